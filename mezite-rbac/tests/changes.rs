//! Who can reach what, and what a change of roles does, as people read it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use mezite_core::{Labels, NodeId};
use mezite_rbac::{
    Inventory, Node, NodeLabels, PolicySet, Role, Subject, Traits, diff, reach, who_can,
};

fn policy(roles: &[(&str, &str)]) -> PolicySet {
    let roles = roles.iter().flat_map(|(name, spec)| {
        let yaml =
            format!("kind: role\nversion: v1\nmetadata: {{ name: {name} }}\nspec:\n  {spec}\n");
        Role::parse(&yaml, name).unwrap_or_else(|error| panic!("{error}"))
    });
    PolicySet::compile(roles).unwrap()
}

fn user(name: &str, roles: &[&str]) -> Subject {
    Subject {
        user: name.parse().unwrap(),
        roles: roles.iter().map(|role| role.parse().unwrap()).collect(),
        internal: Traits::default(),
        external: Traits::default(),
    }
}

/// A node `env=…` of this name.
fn node(name: &str, env: &str) -> Node {
    Node {
        id: NodeId::new([7; 16]),
        name: name.parse().unwrap(),
        labels: NodeLabels {
            operator: Labels::parse([format!("env={env}").as_str()]).unwrap(),
            ..NodeLabels::default()
        },
    }
}

fn fleet(size: usize) -> Vec<Node> {
    (1..=size).map(|n| node(&format!("n{n}"), "dev")).collect()
}

#[test]
fn access_reads_as_a_line() {
    let policy = policy(&[
        (
            "a",
            "allow: { node_labels: { env: dev }, logins: [deploy, root, \"^app-.*$\"] }",
        ),
        (
            "b",
            "allow: { node_labels: { env: prod }, logins: [\"*\"] }",
        ),
    ]);
    let users = [user("alice", &["a", "b"]), user("bob", &[])];
    let line = |nodes: &[Node]| {
        let lines: Vec<String> = who_can(&policy, &users, nodes, None)
            .map(|access| access.to_string())
            .collect();
        lines.join("\n")
    };
    assert_eq!(line(&fleet(2)), "alice: deploy, root, `^app-.*$` on n1, n2");
    assert_eq!(
        line(&fleet(8)),
        "alice: deploy, root, `^app-.*$` on n1, n2, n3, n4, n5, n6, n7, n8"
    );
    let mut nodes = fleet(10);
    nodes.push(node("p1", "prod"));
    assert_eq!(
        line(&nodes),
        "alice: deploy, root, `^app-.*$` on n1, n2, n3, n4, n5, n6, n7, n8 and 2 more\nalice: `*` on p1"
    );
    assert_eq!(reach(&policy, &users[1], &nodes[0]).to_string(), "nothing");
}

#[test]
fn a_change_reads_as_what_everybody_gains_and_loses() {
    let before = policy(&[
        (
            "a",
            "options: { port_forwarding: true, max_session_ttl: 8h }
  allow: { node_labels: { env: dev }, logins: [deploy, root, \"^app-.*$\"], rules: [{ resources: [node], verbs: [list] }] }",
        ),
        (
            "gone",
            "allow: { node_labels: { env: prod }, logins: [deploy] }",
        ),
        ("idle", "{}"),
    ]);
    let after = policy(&[
        (
            "a",
            "options: { max_session_ttl: 1h }
  allow: { node_labels: { env: dev }, logins: [deploy, www-data, \"*\"], rules: [{ resources: [recording], verbs: [read], where: own }] }
  deny: { logins: [root] }",
        ),
        ("idle", "{}"),
    ]);
    let inventory = Inventory {
        users: vec![
            user("alice", &["a"]),
            user("bob", &["gone"]),
            user("carol", &["idle"]),
        ],
        nodes: vec![node("n1", "dev"), node("n2", "dev"), node("p1", "prod")],
        logins: Vec::new(),
    };
    assert_eq!(
        diff(&before, &after, &inventory).to_string(),
        "alice
  + www-data, `*` on n1, n2
  - root, `^app-.*$` on n1, n2
  ~ max_session_ttl: \"8h\" -> \"1h\" as deploy on n1, n2
  ~ port_forwarding: true -> false as deploy on n1, n2
  + may read recording of their own
  - may list node
  ~ identity may last 8h -> 1h
bob
  ! role gone is gone: whoever holds it may do nothing
  - deploy on p1"
    );
    assert_eq!(
        diff(&after, &before, &inventory).to_string(),
        "alice
  + root, `^app-.*$` on n1, n2
  - www-data, `*` on n1, n2
  ~ max_session_ttl: \"1h\" -> \"8h\" as deploy on n1, n2
  ~ port_forwarding: false -> true as deploy on n1, n2
  + may list node
  - may read recording of their own
  ~ identity may last 1h -> 8h
bob
  + deploy on p1"
    );
    let none = diff(&before, &before, &inventory);
    assert_eq!(none.to_string(), "nothing changes for anybody");
}

/// Whichever roles it comes from.
#[test]
fn nodes_where_the_same_changes_come_in_one_line() {
    let before = policy(&[
        (
            "a",
            "allow: { node_labels: { env: dev }, logins: [deploy] }",
        ),
        ("b", "allow: { node_labels: { env: qa }, logins: [deploy] }"),
        (
            "c",
            "allow: { node_labels: { env: prod }, logins: [deploy, \"^app-.*$\"] }",
        ),
    ]);
    let after = policy(&[("a", "{}"), ("b", "{}"), ("c", "{}")]);
    let inventory = Inventory {
        users: vec![user("alice", &["a", "b", "c"])],
        nodes: vec![node("n1", "dev"), node("q1", "qa"), node("p1", "prod")],
        logins: Vec::new(),
    };
    assert_eq!(
        diff(&before, &after, &inventory).to_string(),
        "alice\n  - deploy on n1, q1\n  - deploy, `^app-.*$` on p1"
    );
    assert_eq!(
        diff(&after, &before, &inventory).to_string(),
        "alice\n  + deploy on n1, q1\n  + deploy, `^app-.*$` on p1"
    );
}

#[test]
fn conditions_come_with_every_login_that_they_change_for() {
    let role = |max: &str, idle: &str, logins: &str| {
        format!(
            "options: {{ max_session_ttl: {max}, idle_timeout: {idle} }}\n  allow: {{ node_labels: {{ env: dev }}, logins: [{logins}] }}"
        )
    };
    let before = policy(&[
        ("a", &role("8h", "2h", "deploy, web")),
        ("b", &role("4h", "2h", "root")),
        ("c", &role("8h", "2h", "app")),
    ]);
    let after = policy(&[
        ("a", &role("1h", "1h", "deploy, web")),
        ("b", &role("1h", "2h", "root")),
        ("c", &role("2h", "2h", "app")),
    ]);
    let inventory = Inventory {
        users: vec![user("alice", &["a", "b", "c"])],
        nodes: vec![node("n1", "dev")],
        logins: Vec::new(),
    };
    assert_eq!(
        diff(&before, &after, &inventory).to_string(),
        "alice
  ~ max_session_ttl: \"8h\" -> \"2h\" as app on n1
  ~ idle_timeout: \"2h\" -> \"1h\" as deploy, web on n1
  ~ max_session_ttl: \"8h\" -> \"1h\" as deploy, web on n1
  ~ max_session_ttl: \"4h\" -> \"1h\" as root on n1
  ~ identity may last 4h -> 1h"
    );
}
