//! Lints, each on a role that has it and on one that does not.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use mezite_core::{Labels, NodeId};
use mezite_rbac::{
    Concern, Inventory, Node, NodeLabels, PolicySet, Role, Subject, Traits, builtin_roles, lint,
};

fn policy(specs: &[&str]) -> PolicySet {
    let roles = specs.iter().enumerate().flat_map(|(index, spec)| {
        let yaml =
            format!("kind: role\nversion: v1\nmetadata: {{ name: r{index} }}\nspec:\n  {spec}\n");
        Role::parse(&yaml, "r").unwrap_or_else(|error| panic!("{spec}: {error}"))
    });
    PolicySet::compile(roles).unwrap()
}

/// Place and concern of every lint of one role.
fn found(spec: &str, inventory: Option<&Inventory>) -> Vec<(String, Concern)> {
    let lints = lint(&policy(&[spec]), inventory);
    lints
        .into_iter()
        .map(|lint| (lint.place, lint.concern))
        .collect()
}

#[test]
fn what_a_role_says_alone_is_looked_at() {
    let all = "allow: { node_labels: { env: dev }, logins: [";
    for (spec, expected) in [
        // patterns and lists
        (format!("{all}a, \"^.*$\"] }}"), vec![("allow.logins", Concern::MatchesEverything)]),
        (format!("{all}a, \"^.+$\"] }}"), vec![("allow.logins", Concern::MatchesEverything)]),
        (format!("{all}a, \"^[A-Za-z_][A-Za-z0-9._-]*$\"] }}"), vec![("allow.logins", Concern::MatchesEverything)]),
        (format!("{all}a, \"^[a-z]+$\"] }}"), vec![]),
        ("allow: { node_labels: { env: \"^(?s:.*)$\" }, logins: [a] }".into(), vec![("allow.node_labels.env", Concern::MatchesEverything)]),
        ("allow: { node_labels: { env: \"^prod|dev$\" }, logins: [a] }".into(), vec![]),
        ("deny: { combined: [{ node_labels: { env: \"^.*$\" }, logins: [root] }] }".into(), vec![("deny.combined[0].node_labels.env", Concern::MatchesEverything)]),
        (format!("{all}a, b, a] }}"), vec![("allow.logins", Concern::Redundant)]),
        (format!("{all}a, \"*\"] }}"), vec![("allow.logins", Concern::Redundant)]),
        (format!("{all}\"*\"] }}"), vec![]),
        // sources
        ("allow: { node_labels: { env: dev }, node_label_sources: [operator, agent], logins: [a] }".into(), vec![("allow.node_label_sources", Concern::AgentLabels)]),
        ("allow: { node_labels: { env: dev }, node_label_sources: [operator], logins: [a] }".into(), vec![]),
        // allow that grants nothing
        ("allow: { logins: [a] }".into(), vec![("allow.logins", Concern::Unreachable)]),
        ("allow: { node_labels: { env: dev } }".into(), vec![("allow.node_labels", Concern::Unreachable)]),
        (format!("{all}a, \"{{{{external.mail}}}}@host\"] }}"), vec![("allow.logins", Concern::Unreachable)]),
        (format!("{all}a, \"1{{{{external.mail}}}}\"] }}"), vec![("allow.logins", Concern::Unreachable)]),
        (format!("{all}a, \"app-{{{{external.mail}}}}\", \"{{{{user.name}}}}-1\"] }}"), vec![]),
        (format!("{all}a, root] }}\n  deny: {{ logins: [root] }}"), vec![("allow.logins", Concern::Unreachable)]),
        (format!("{all}a, root] }}\n  deny: {{ logins: [\"^r.*$\"] }}"), vec![("allow.logins", Concern::Unreachable)]),
        (format!("{all}a, \"^r.*$\"] }}\n  deny: {{ logins: [\"^r.*$\"] }}"), vec![("allow.logins", Concern::Unreachable)]),
        (format!("{all}a, \"{{{{user.name}}}}\"] }}\n  deny: {{ logins: [\"^.{{13}}$\"] }}"), vec![]),
        (format!("{all}a] }}\n  deny: {{ logins: [\"*\"] }}"), vec![("allow", Concern::Unreachable)]),
        (format!("{all}a] }}\n  deny: {{ node_labels: {{ \"*\": \"*\" }} }}"), vec![("allow.node_labels", Concern::Unreachable)]),
        (format!("{all}a] }}\n  deny: {{ node_labels: {{ env: [prod, dev] }} }}"), vec![("allow.node_labels", Concern::Unreachable)]),
        (format!("{all}a] }}\n  deny: {{ node_labels: {{ env: dev, team: a }} }}"), vec![]),
        ("allow: { node_labels: { env: [dev, qa] }, logins: [a] }\n  deny: { node_labels: { env: dev } }".into(), vec![]),
        // root
        ("allow: { node_labels: { \"*\": \"*\" }, logins: [a, root] }".into(), vec![("allow", Concern::RootEverywhere)]),
        ("allow: { node_labels: { \"*\": \"*\" }, logins: [\"*\"] }".into(), vec![("allow", Concern::RootEverywhere)]),
        ("allow: { node_labels: { \"*\": \"*\" }, logins: [\"^r...$\"] }".into(), vec![("allow", Concern::RootEverywhere)]),
        ("allow: { node_labels: { \"*\": \"*\" }, logins: [\"*\"] }\n  deny: { logins: [root] }".into(), vec![]),
        ("allow: { node_labels: { \"*\": \"*\", env: dev }, logins: [root] }".into(), vec![]),
        // deny that never matches
        ("deny: { logins: [\"{{user.name}}@host\"] }".into(), vec![("deny.logins", Concern::DenyNeverMatches)]),
        (format!("deny: {{ node_labels: {{ env: {} }} }}", "x".repeat(256)), vec![("deny.node_labels.env", Concern::DenyNeverMatches)]),
        (format!("deny: {{ node_labels: {{ env: {} }} }}", "x".repeat(255)), vec![]),
        // combined that others cover
        ("deny: { logins: [root, \"^x.*$\"], combined: [{ node_labels: { env: prod }, logins: [root, xy] }] }".into(), vec![("deny.combined[0]", Concern::Redundant)]),
        ("deny: { logins: [root], combined: [{ node_labels: { env: prod }, logins: [root, b] }] }".into(), vec![]),
        ("deny: { node_labels: { env: [prod, qa] }, combined: [{ node_labels: { env: prod, team: a }, logins: [b] }] }".into(), vec![("deny.combined[0]", Concern::Redundant)]),
        ("deny: { node_labels: { env: \"^p.*d$\" }, combined: [{ node_labels: { env: \"^p.*d$\" }, logins: [b] }] }".into(), vec![("deny.combined[0]", Concern::Redundant)]),
        ("deny: { logins: [\"*\"], combined: [{ node_labels: { env: prod }, logins: [\"^p.*d$\"] }] }".into(), vec![("deny.combined[0]", Concern::Redundant)]),
        // templates under deny
        ("deny: { logins: [\"{{external.x}}\"] }".into(), vec![("deny.logins", Concern::UnresolvedDeny)]),
        ("deny: { logins: [\"{{user.name}}\"] }".into(), vec![]),
        // administrative rules
        ("allow: { rules: [{ resources: [ca], verbs: [read, list] }] }\n  deny: { rules: [{ resources: [ca], verbs: [read, list] }] }".into(), vec![("allow.rules[0]", Concern::Unreachable)]),
        ("allow: { rules: [{ resources: [ca], verbs: [read, list] }] }\n  deny: { rules: [{ resources: [ca], verbs: [read] }] }".into(), vec![]),
        ("allow: { rules: [{ resources: [ca], verbs: [read] }] }\n  deny: { rules: [{ resources: [ca], verbs: [read], where: own }] }".into(), vec![]),
        ("allow: { rules: [{ resources: [ca], verbs: [read], where: own }] }\n  deny: { rules: [{ resources: [ca], verbs: [read], where: own }] }".into(), vec![("allow.rules[0]", Concern::Unreachable)]),
        ("allow: { rules: [{ resources: [ca, role], verbs: [read] }, { resources: [ca], verbs: [read], where: own }] }".into(), vec![("allow.rules[1]", Concern::Redundant)]),
        ("allow: { rules: [{ resources: [ca], verbs: [read], where: own }, { resources: [ca], verbs: [read] }] }".into(), vec![]),
        // forwards
        ("options: { port_forwarding: true }".into(), vec![("options.port_forwarding", Concern::ForwardsNowhere)]),
        ("options: { port_forwarding: true, forward_destinations: [\"db:5432\"] }".into(), vec![]),
        ("options: { port_forwarding: true, forward_listen: [\"localhost:8080\"] }".into(), vec![]),
        ("options: { port_forwarding: false }".into(), vec![]),
        ("options: { forward_destinations: [\"db:5432\"] }".into(), vec![("options.forward_destinations", Concern::ForwardsNowhere)]),
        ("options: { port_forwarding: false, forward_listen: [\"localhost:8080\"] }".into(), vec![("options.forward_listen", Concern::ForwardsNowhere)]),
    ] {
        let expected: Vec<(String, Concern)> = expected.into_iter().map(|(place, concern)| (place.to_owned(), concern)).collect();
        assert_eq!(found(&spec, None), expected, "{spec}");
    }
}

fn user(name: &str, roles: &[&str], team: Option<&str>) -> Subject {
    let map = team.map(|team| ("team".to_owned(), vec![team.to_owned()]));
    Subject {
        user: name.parse().unwrap(),
        roles: roles.iter().map(|role| role.parse().unwrap()).collect(),
        internal: Traits::default(),
        external: Traits::new(map.into_iter().collect()).unwrap(),
    }
}

fn inventory(users: &[Subject]) -> Inventory {
    Inventory {
        users: users.to_vec(),
        nodes: vec![Node {
            id: NodeId::new([1; 16]),
            name: "db1".parse().unwrap(),
            labels: NodeLabels {
                agent: Labels::parse(["env=prod"]).unwrap(),
                ..NodeLabels::default()
            },
        }],
        logins: Vec::new(),
    }
}

#[test]
fn what_users_and_nodes_make_of_a_role_is_looked_at() {
    let both = inventory(&[
        user("alice", &["r0"], Some("a")),
        user("bob", &["r0"], None),
    ]);
    let alice = inventory(&[user("alice", &["r0"], Some("a")), user("bob", &[], None)]);
    for (spec, inventory, expected) in [
        (
            "deny: { logins: [\"{{external.team}}\"] }",
            &both,
            vec![("deny.logins", Concern::UnresolvedDeny)],
        ),
        ("deny: { logins: [\"{{external.team}}\"] }", &alice, vec![]),
        (
            "allow: { node_labels: { env: \"{{external.team}}\" }, logins: [x] }",
            &both,
            vec![],
        ),
        (
            "allow: { node_labels: { env: \"{{external.taem}}\" }, logins: [x] }",
            &both,
            vec![("allow.node_labels.env", Concern::UnknownTrait)],
        ),
        (
            "allow: { node_labels: { env: \"{{internal.team}}\" }, logins: [x] }",
            &both,
            vec![("allow.node_labels.env", Concern::UnknownTrait)],
        ),
        ("deny: { node_labels: { env: prod } }", &both, vec![]),
        (
            "deny: { node_labels: { env: prd } }",
            &both,
            vec![("deny.node_labels", Concern::DenyNeverMatches)],
        ),
        (
            "deny: { combined: [{ node_labels: { env: prod, x: y }, logins: [root] }] }",
            &both,
            vec![("deny.combined[0].node_labels", Concern::DenyNeverMatches)],
        ),
        (
            "deny: { node_labels: { env: \"{{external.team}}\" } }",
            &alice,
            vec![("deny.node_labels", Concern::DenyNeverMatches)],
        ),
        (
            "deny: { node_labels: { env: prd } }",
            &inventory(&[]),
            vec![("", Concern::Unused)],
        ),
    ] {
        let expected: Vec<(String, Concern)> = expected
            .into_iter()
            .map(|(place, concern)| (place.to_owned(), concern))
            .collect();
        assert_eq!(found(spec, Some(inventory)), expected, "{spec}");
    }
}

#[test]
fn a_role_that_is_not_there_is_named_with_its_holders() {
    let users =
        ["alice", "bob", "carol", "dave", "erin"].map(|name| user(name, &["r0", "gone"], None));
    let lints = lint(&policy(&["{}"]), Some(&inventory(&users)));
    let texts: Vec<String> = lints.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "gone: unknown_role: there is no such role, so alice, bob, carol and 2 more may do nothing: add it or take it away"
        ]
    );
    assert!(lints.iter().all(|lint| lint.concern.is_warning()));
    assert!(!Concern::Unused.is_warning());
}

#[test]
fn built_in_roles_have_no_lints() {
    let policy = PolicySet::compile(builtin_roles()).unwrap();
    assert_eq!(lint(&policy, None), []);
}

#[test]
fn a_value_is_quoted_cut_and_escaped() {
    let long = "x".repeat(90);
    let spec = format!(
        "allow: {{ node_labels: {{ env: [{long}, {long}] }}, logins: [a, \"{{{{user.name}}}}\\u202e@\"] }}"
    );
    let texts: Vec<String> = lint(&policy(&[&spec]), None)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        texts,
        [
            "r0: allow.logins: unreachable: `{{user.name}}\\u{202e}@` never gives a login"
                .to_owned(),
            format!(
                "r0: allow.node_labels.env: redundant: `{}` stands here twice",
                "x".repeat(80)
            ),
        ]
    );
}
