//! The same roles as Cedar policies, the same requests, the same answers; then both are timed in turn.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::time::Duration;

use cedar_policy::{
    Authorizer, Context, Decision as Answer, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    PolicySet as Policies, Request as Call, RestrictedExpression,
};
use criterion::Criterion;
use mezite_rbac::{Node, Subject, can};

use crate::Asked;

pub(crate) fn beside(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("beside");
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    for of in [10, 100] {
        let asked = Asked::new(10, of, 100);
        let policies = policies(of);
        let entities = entities(&asked);
        let calls: Vec<Call> = (0..1000).map(|turn| call(&asked, turn)).collect();
        let authorizer = Authorizer::new();
        let mut allowed = 0;
        for (turn, call) in calls.iter().enumerate() {
            let ours = can(&asked.policy, &asked.request(turn)).is_ok();
            let theirs = authorizer.is_authorized(call, &policies, &entities);
            assert_eq!(theirs.diagnostics().errors().count(), 0);
            assert_eq!(ours, theirs.decision() == Answer::Allow, "turn {turn}");
            allowed += usize::from(ours);
        }
        println!("{of} roles: {allowed} of 1000 requests allowed, by both alike");
        let mut turn = 0;
        group.bench_function(format!("mezite, {of} roles"), |bench| {
            bench.iter(|| {
                turn = (turn + 1) % 1000;
                can(&asked.policy, &asked.request(turn))
            });
        });
        let mut turn = 0;
        group.bench_function(format!("cedar, {of} roles"), |bench| {
            bench.iter(|| {
                turn = (turn + 1) % 1000;
                authorizer.is_authorized(&calls[turn], &policies, &entities)
            });
        });
    }
    group.finish();
}

fn policies(count: usize) -> Policies {
    let mut text = String::new();
    for index in 0..count {
        text += &format!(
            r#"
permit (principal in Role::"role-{index}", action == Action::"login", resource)
when {{ (resource.env == "env-{index}" || resource.env == "dev") && principal.team.contains(resource.team)
        && (principal.logins.contains(context.login) || context.login == "deploy") }};
forbid (principal in Role::"role-{index}", action == Action::"login", resource)
when {{ context.login == "root" }};
"#
        );
    }
    Policies::from_str(&text).expect("policies")
}

fn entities(asked: &Asked) -> Entities {
    let users = asked.users.iter().map(|user| {
        let roles: HashSet<EntityUid> = user
            .roles
            .iter()
            .map(|role| uid("Role", role.as_str()))
            .collect();
        let set = |values: &[String]| {
            RestrictedExpression::new_set(
                values.iter().cloned().map(RestrictedExpression::new_string),
            )
        };
        let traits = HashMap::from([
            ("team".to_owned(), set(user.external.values("team"))),
            ("logins".to_owned(), set(user.internal.values("logins"))),
        ]);
        Entity::new(uid_of(user), traits, roles).expect("a user")
    });
    let nodes = asked.nodes.iter().map(|node| {
        let labels = node.labels.operator.iter().map(|(key, value)| {
            (
                key.to_owned(),
                RestrictedExpression::new_string(value.to_owned()),
            )
        });
        Entity::new(uid_of_node(node), labels.collect(), HashSet::new()).expect("a node")
    });
    let roles: HashSet<&str> = asked
        .users
        .iter()
        .flat_map(|user| &user.roles)
        .map(|role| role.as_str())
        .collect();
    let roles = roles
        .into_iter()
        .map(|role| Entity::new_no_attrs(uid("Role", role), HashSet::new()));
    Entities::from_entities(users.chain(nodes).chain(roles), None).expect("entities")
}

fn call(asked: &Asked, turn: usize) -> Call {
    let request = asked.request(turn);
    let login = RestrictedExpression::new_string(request.login.to_string());
    let context = Context::from_pairs([("login".to_owned(), login)]).expect("a context");
    Call::new(
        uid_of(request.subject),
        uid("Action", "login"),
        uid_of_node(request.node),
        context,
        None,
    )
    .expect("a request")
}

fn uid_of(user: &Subject) -> EntityUid {
    uid("User", user.user.as_str())
}

fn uid_of_node(node: &Node) -> EntityUid {
    uid("Node", node.name.as_str())
}

fn uid(kind: &str, name: &str) -> EntityUid {
    let kind = EntityTypeName::from_str(kind).expect("a type");
    EntityUid::from_type_name_and_id(kind, EntityId::new(name))
}
