//! `cargo bench --manifest-path mezite-rbac/benches-cedar/Cargo.toml --bench decide`, with `--features cedar` beside Cedar.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use mezite_core::Login;
use mezite_rbac::{
    Decision, Inventory, Node, PolicySet, Reason, Request, Role, Subject, authorize, can,
    differences, explain, lint, who_can,
};
use mezite_rbac_bench::{lone_policy, node, policy, user};

/// Requests that are put in turn, so that neither caches nor branch prediction see one alone.
struct Asked {
    policy: PolicySet,
    users: Vec<Subject>,
    nodes: Vec<Node>,
    logins: Vec<Login>,
}

impl Asked {
    /// `held` of `of` roles for each of 100 users.
    fn new(held: usize, of: usize, nodes: usize) -> Self {
        Self {
            policy: policy(of),
            users: (0..100).map(|index| user(index, held, of)).collect(),
            nodes: (0..nodes).map(node).collect(),
            logins: ["deploy", "postgres"]
                .map(|login| login.parse().expect("a login"))
                .to_vec(),
        }
    }

    fn request(&self, turn: usize) -> Request<'_> {
        Request {
            subject: &self.users[turn % self.users.len()],
            node: &self.nodes[turn.wrapping_mul(7919) % self.nodes.len()],
            login: &self.logins[turn / 3 % self.logins.len()],
            source: None,
        }
    }

    /// Turns whose answer is a yes, or a no.
    fn turns(&self, allowed: bool) -> Vec<usize> {
        let is_allowed = |turn: &usize| {
            matches!(
                authorize(&self.policy, &self.request(*turn)),
                Decision::Allow(_)
            )
        };
        (0..100_000)
            .filter(|turn| is_allowed(turn) == allowed)
            .take(1000)
            .collect()
    }
}

fn yes_and_no(group: &mut BenchmarkGroup<'_, WallTime>, asked: &Asked, what: &str) {
    for (name, allowed) in [("yes", true), ("no", false)] {
        let turns = asked.turns(allowed);
        let mut next = turns.iter().cycle();
        group.bench_function(format!("{name}, {what}"), |bench| {
            bench.iter(|| can(&asked.policy, &asked.request(*next.next().expect("a turn"))));
        });
    }
}

fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    for (held, of, nodes) in [
        (10, 10, 10),
        (10, 10, 10_000),
        (10, 1000, 10),
        (10, 1000, 10_000),
        (1, 1000, 10_000),
        (20, 1000, 10_000),
        (40, 1000, 10_000),
        (64, 1000, 10_000),
    ] {
        let asked = Asked::new(held, of, nodes);
        let what = format!("{held} of {of} roles, {nodes} nodes");
        yes_and_no(&mut group, &asked, &what);
    }
    // Roles mostly repeat one another, which costs them less: what they cost without.
    for nodes in [10, 10_000] {
        let asked = Asked {
            policy: lone_policy(10),
            ..Asked::new(10, 10, nodes)
        };
        let what = format!("10 of 10 roles without a list in common, {nodes} nodes");
        yes_and_no(&mut group, &asked, &what);
    }
    let asked = Asked::new(10, 1000, 10_000);
    for (name, allowed) in [("with its permit", true), ("with its denial", false)] {
        let turns = asked.turns(allowed);
        let mut next = turns.iter().cycle();
        group.bench_function(format!("{name}, 10 of 1000 roles, 10000 nodes"), |bench| {
            bench.iter(|| {
                // Dropping what was decided is part of what it costs.
                match authorize(&asked.policy, &asked.request(*next.next().expect("a turn"))) {
                    Decision::Allow(permit) => permit.obligations().file_copy,
                    Decision::Deny(denial) => denial.reason() == Reason::NotAllowed,
                }
            });
        });
    }
    let turns = asked.turns(false);
    let mut next = turns.iter().cycle();
    group.bench_function("explained, 10 of 1000 roles, 10000 nodes", |bench| {
        bench.iter(|| explain(&asked.policy, &asked.request(*next.next().expect("a turn"))));
    });
    group.finish();
}

fn questions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("who_can");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_secs(2));
    let nodes: Vec<Node> = (0..10_000).map(node).collect();
    for (held, of) in [(3, 50), (10, 1000)] {
        let policy = policy(of);
        let users: Vec<Subject> = (0..1000).map(|index| user(index, held, of)).collect();
        group.bench_function(
            format!("1000 users with {held} of {of} roles, 10000 nodes"),
            |bench| {
                bench.iter(|| {
                    let found = who_can(&policy, &users, &nodes, None);
                    let pairs: usize = found.map(|access| black_box(&access).nodes.len()).sum();
                    assert!(pairs > 10_000, "{pairs}");
                });
            },
        );
    }
    group.finish();
    review(criterion, &nodes);
}

/// What an administrator asks before a change, on the same inventory.
fn review(criterion: &mut Criterion, nodes: &[Node]) {
    let mut group = criterion.benchmark_group("review");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_secs(2));
    let before = policy(50);
    let inventory = Inventory {
        users: (0..1000).map(|index| user(index, 3, 50)).collect(),
        nodes: nodes.to_vec(),
        logins: Vec::new(),
    };
    let renamed = before.roles().map(|role| {
        let yaml = role.to_yaml().replace("deploy", "deployer");
        Role::parse(&yaml, "changed").expect("a role").remove(0)
    });
    let after = PolicySet::compile(renamed).expect("a policy");
    group.bench_function(
        "diff, 1000 users with 3 of 50 roles, 10000 nodes",
        |bench| {
            bench.iter(|| {
                let changed = differences(&before, &after, &inventory).count();
                assert!(changed > 900, "{changed}");
            });
        },
    );
    group.bench_function(
        "lint, 1000 users with 3 of 50 roles, 10000 nodes",
        |bench| {
            bench.iter(|| lint(&before, Some(&inventory)).len());
        },
    );
    group.finish();
}

#[cfg(feature = "cedar")]
#[path = "decide/cedar.rs"]
mod cedar;

#[cfg(not(feature = "cedar"))]
criterion_group!(benches, decide, questions);
#[cfg(feature = "cedar")]
criterion_group!(benches, decide, questions, cedar::beside);
criterion_main!(benches);
