//! Questions about everybody and every node say what single decisions say.

use std::collections::{BTreeMap, BTreeSet};

use mezite_core::{Login, UserName};
use mezite_rbac::{
    Decision, Inventory, Node, Obligations, Owner, PolicySet, Reach, Request, Resource, Subject,
    Verb, allows, authorize, diff, logins, reach, sees, who_can,
};

use crate::choices::Choices;
use crate::pairs::Random;
use crate::spec::{Case, WORDS};

const ROUNDS: usize = 400;

/// Users and nodes for the roles of one case; the user names tell them apart.
fn inventory(case: &Case, choices: &mut Choices<'_>) -> Inventory {
    let users = ["alice", "b", "carol"].map(|name| Subject {
        user: name.parse().unwrap(),
        ..choices.subject(case.roles.keys())
    });
    let nodes = (0..5).map(|index| Node {
        name: format!("n{index}").parse().unwrap(),
        ..choices.node()
    });
    Inventory {
        nodes: nodes.collect(),
        users: users.to_vec(),
        logins: WORDS.map(|word| word.parse().unwrap()).to_vec(),
    }
}

fn each(mut check: impl FnMut(&Case, &PolicySet, &Inventory)) {
    let mut random = Random(11);
    for _ in 0..ROUNDS {
        let bytes: Vec<u8> = (0..128).flat_map(|_| random.next().to_le_bytes()).collect();
        let mut choices = Choices(&bytes);
        let case = choices.case();
        let inventory = inventory(&case, &mut choices);
        check(&case, &case.policy(), &inventory);
    }
}

/// The decision but for the source, as the engine makes it.
fn allowed(policy: &PolicySet, subject: &Subject, node: &Node, login: &Login) -> bool {
    conditions(policy, subject, node, login).is_some()
}

fn conditions(
    policy: &PolicySet,
    subject: &Subject,
    node: &Node,
    login: &Login,
) -> Option<Obligations> {
    // From each of these, and from nowhere: some merged networks admit none of them, and then the policy allows nobody.
    let sources = ["10.1.2.3", "10.1.9.9", "10.9.9.9", "192.0.2.1"];
    let sources = sources.iter().map(|source| Some(source.parse().unwrap()));
    sources.chain([None]).find_map(|source| {
        match authorize(
            policy,
            &Request {
                subject,
                node,
                login,
                source,
            },
        ) {
            Decision::Allow(permit) => Some(permit.obligations().clone()),
            Decision::Deny(_) => None,
        }
    })
}

#[test]
fn reach_is_logins_and_sees_in_one() {
    let mut seen = 0;
    each(|_, policy, inventory| {
        for user in &inventory.users {
            for node in &inventory.nodes {
                let found = reach(policy, user, node);
                let listed = logins(policy, user, node);
                assert_eq!(Vec::from_iter(found.logins.clone()), listed);
                assert_eq!(!found.is_empty(), sees(policy, user, node), "{found}");
                seen += usize::from(!found.is_empty());
            }
        }
    });
    assert!(seen > 200, "only {seen} were not empty");
}

#[test]
fn who_can_says_what_single_decisions_say() {
    let mut several = 0;
    each(|_, policy, inventory| {
        let mut all: BTreeMap<(&UserName, &str), Reach> = BTreeMap::new();
        for access in who_can(policy, &inventory.users, &inventory.nodes, None) {
            several += usize::from(access.nodes.len() > 1);
            for node in &access.nodes {
                let key = (&access.subject.user, node.name.as_str());
                assert!(
                    all.insert(key, access.reach.clone()).is_none(),
                    "{access} comes twice"
                );
            }
        }
        for user in &inventory.users {
            for node in &inventory.nodes {
                let found = all.get(&(&user.user, node.name.as_str())).cloned();
                assert_eq!(found.unwrap_or_default(), reach(policy, user, node));
            }
        }
    });
    assert!(several > 200, "nodes came together only {several} times");
}

#[test]
fn who_can_use_one_login_is_exact() {
    let mut found_some = 0;
    each(|_, policy, inventory| {
        for login in &inventory.logins {
            let found: BTreeSet<(&str, &str)> =
                who_can(policy, &inventory.users, &inventory.nodes, Some(login))
                    .flat_map(|access| {
                        assert_eq!(access.reach.logins, BTreeSet::from([login.clone()]));
                        assert!(access.reach.patterns.is_empty());
                        let user = access.subject.user.as_str();
                        access
                            .nodes
                            .into_iter()
                            .map(move |node| (user, node.name.as_str()))
                    })
                    .collect();
            found_some += found.len();
            for user in &inventory.users {
                for node in &inventory.nodes {
                    let said = found.contains(&(user.user.as_str(), node.name.as_str()));
                    // What no address is admitted to, the question leaves open.
                    assert!(said || !allowed(policy, user, node, login));
                    assert!(
                        !said
                            || allowed(policy, user, node, login)
                            || no_address(policy, user, node, login)
                    );
                }
            }
        }
    });
    assert!(found_some > 1000, "{found_some}");
}

/// Whether the decision fails by the address alone.
fn no_address(policy: &PolicySet, subject: &Subject, node: &Node, login: &Login) -> bool {
    let request = Request {
        subject,
        node,
        login,
        source: None,
    };
    matches!(authorize(policy, &request), Decision::Deny(denial) if denial.reason() == mezite_rbac::Reason::SourceNetwork)
}

#[test]
fn a_diff_says_who_gains_and_who_loses() {
    let mut random = Random(13);
    let (mut gains, mut losses, mut other, mut calls) = (0, 0, 0, 0);
    each(|case, before, inventory| {
        let bytes: Vec<u8> = (0..128).flat_map(|_| random.next().to_le_bytes()).collect();
        let mut changed = Choices(&bytes).case();
        // A change keeps most of the roles.
        for (name, role) in &case.roles {
            if name != "r1" {
                changed.roles.insert(name.clone(), role.clone());
            }
        }
        let after = &changed.policy();
        let found = diff(before, after, inventory);
        assert!(diff(before, before, inventory).is_empty());
        assert_eq!(diff(after, before, inventory).is_empty(), found.is_empty());
        for user in &inventory.users {
            let told = found.users.iter().find(|told| told.user == user.user);
            for node in &inventory.nodes {
                let target = told.and_then(|told| {
                    told.targets
                        .iter()
                        .find(|target| target.nodes.contains(&node.name))
                });
                for login in &inventory.logins {
                    let earlier = conditions_of(before, user, node, login);
                    let later = conditions_of(after, user, node, login);
                    let gained = target.is_some_and(|target| target.gained.contains(login));
                    let lost = target.is_some_and(|target| target.lost.contains(login));
                    assert_eq!(gained, earlier.is_none() && later.is_some(), "{found}");
                    assert_eq!(lost, earlier.is_some() && later.is_none(), "{found}");
                    let named = target.is_some_and(|target| {
                        target
                            .conditions
                            .iter()
                            .any(|one| one.logins.contains(login))
                    });
                    if earlier.as_deref() != Some("") && later.as_deref() != Some("") {
                        let differs = earlier.is_some() && later.is_some() && earlier != later;
                        assert_eq!(named, differs, "{found}");
                    }
                    gains += usize::from(gained);
                    losses += usize::from(lost);
                    other += usize::from(named);
                }
            }
            calls += compare_calls(before, after, user, told);
        }
    });
    let counts = (gains, losses, other, calls);
    assert!(
        gains > 200 && losses > 200 && other > 100 && calls > 100,
        "{counts:?}"
    );
}

/// The obligations as text; empty where no address is admitted.
fn conditions_of(policy: &PolicySet, user: &Subject, node: &Node, login: &Login) -> Option<String> {
    match conditions(policy, user, node, login) {
        Some(obligations) => Some(serde_json::to_string(&obligations).unwrap()),
        None => no_address(policy, user, node, login).then(String::new),
    }
}

fn compare_calls(
    before: &PolicySet,
    after: &PolicySet,
    user: &Subject,
    told: Option<&mezite_rbac::UserDiff>,
) -> usize {
    let other: UserName = "somebody-else".parse().unwrap();
    let mut changes = 0;
    for (owner, who) in [
        (Owner::Own, Some(&user.user)),
        (Owner::Other, Some(&other)),
        (Owner::Unknown, None),
    ] {
        for resource in Resource::ALL.iter().copied() {
            for verb in Verb::ALL.iter().copied() {
                let earlier = allows(before, user, resource, verb, who);
                let later = allows(after, user, resource, verb, who);
                let is_in = |calls: &[mezite_rbac::Call]| {
                    calls.iter().any(|call| {
                        call.resource == resource
                            && call.verb == verb
                            && call.owner.is_none_or(|of| of == owner)
                    })
                };
                let gained = told.is_some_and(|told| is_in(&told.gained));
                let lost = told.is_some_and(|told| is_in(&told.lost));
                assert_eq!((gained, lost), (later && !earlier, earlier && !later));
                changes += usize::from(gained || lost);
            }
        }
    }
    changes
}
