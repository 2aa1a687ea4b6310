//! The fleet that the benches ask about: users with roles and traits, nodes with labels, roles of the usual form.

use std::collections::BTreeMap;

use mezite_core::{Labels, NodeId};
use mezite_rbac::{Node, NodeLabels, PolicySet, Role, Subject, Traits};

/// The teams that there are.
pub const TEAMS: usize = 20;

/// Role `index`: one environment of its own and `dev`, the user's teams, the user's logins and `deploy`, never root.
pub fn role(index: usize) -> Role {
    parsed(index, "", "deploy", "root")
}

/// The same where no list is in another role, too: each has one more team and login, and denies another.
pub fn lone_role(index: usize) -> Role {
    let (team, logins) = (
        format!(", team-of-{index}"),
        format!("deploy, login-{index}"),
    );
    parsed(index, &team, &logins, &format!("nobody-{index}"))
}

fn parsed(index: usize, team: &str, logins: &str, denied: &str) -> Role {
    let yaml = format!(
        r#"
kind: role
version: v1
metadata: {{ name: role-{index} }}
spec:
  options: {{ max_session_ttl: 8h, file_copy: true }}
  allow:
    node_labels: {{ env: [env-{index}, dev], team: ["{{{{external.team}}}}"{team}] }}
    logins: ["{{{{internal.logins}}}}", {logins}]
  deny:
    logins: [{denied}]
"#
    );
    let mut roles = Role::parse(&yaml, "bench").expect("a role");
    roles.pop().expect("one role")
}

/// A policy of `count` roles.
pub fn policy(count: usize) -> PolicySet {
    PolicySet::compile((0..count).map(role)).expect("a policy")
}

/// A policy of `count` roles that share no list.
pub fn lone_policy(count: usize) -> PolicySet {
    PolicySet::compile((0..count).map(lone_role)).expect("a policy")
}

/// User `index` with `roles` roles of a policy of `of`.
pub fn user(index: usize, roles: usize, of: usize) -> Subject {
    let named = |name: &str, value: String| {
        Traits::new(BTreeMap::from([(name.to_owned(), vec![value])])).expect("traits")
    };
    Subject {
        user: format!("user-{index}").parse().expect("a user"),
        roles: (0..roles)
            .map(|nth| format!("role-{}", (index * 7 + nth * of / roles) % of))
            .map(|name| name.parse().expect("a role"))
            .collect(),
        internal: named("logins", format!("user-{index}")),
        external: named("team", format!("team-{}", index % TEAMS)),
    }
}

/// Node `index`. Every one has a label that no other has.
pub fn node(index: usize) -> Node {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(index as u64).to_be_bytes());
    let env = if index % 3 == 0 {
        "dev".to_owned()
    } else {
        format!("env-{}", index % 50)
    };
    let labels = [
        format!("env={env}"),
        format!("team=team-{}", index / 3 % TEAMS),
        format!("rack=rack-{index}"),
    ];
    Node {
        id: NodeId::new(id),
        name: format!("node-{index}").parse().expect("a name"),
        labels: NodeLabels {
            operator: Labels::parse(labels.iter().map(String::as_str)).expect("labels"),
            ..NodeLabels::default()
        },
    }
}
