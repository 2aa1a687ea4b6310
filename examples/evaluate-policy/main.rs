//! Asks the policy engine, and nothing else of Mezite, what two roles mean: may she, who can, what would a change do, is it as we wrote
//! down. No hub, no network, no runtime.

#![expect(clippy::print_stdout, reason = "a program whose result is text")]

use std::collections::BTreeMap;
use std::error::Error;

use mezite_core::{Labels, NodeId};
use mezite_rbac::{
    Cases, Decision, Inventory, Node, NodeLabels, PolicySet, Request, Role, Subject, Traits,
    authorize, diff, lint, who_can,
};

fn main() -> Result<(), Box<dyn Error>> {
    let roles = Role::parse(include_str!("roles.yaml"), "roles.yaml")?;
    let policy = PolicySet::compile(roles)?;
    let inventory = Inventory {
        users: vec![
            user("alice", "backend-dev", &["alice"], &["payments"])?,
            user("bob", "on-call", &[], &[])?,
        ],
        nodes: vec![
            node(1, "web-01", &["env=dev", "team=payments"])?,
            node(2, "web-02", &["env=dev", "team=search"])?,
            node(3, "db-01", &["env=prod", "sensitivity=restricted"])?,
        ],
        logins: Vec::new(),
    };

    println!("# May alice log in to web-01 and web-02 as deploy?");
    for user in inventory.users.iter().take(1) {
        for node in inventory.nodes.iter().take(2) {
            may(&policy, user, node)?;
        }
    }

    println!("\n# Who reaches what?");
    for access in who_can(&policy, &inventory.users, &inventory.nodes, None) {
        println!("{access}");
    }

    println!("\n# What would this change do: production for developers, and a slip of the pen?");
    let changed = include_str!("roles.yaml")
        .replace(
            r#"[staging, dev], team: "{{external.team}}""#,
            "[staging, dev, prod]",
        )
        .replace("sensitivity", "sensitivty");
    let after = PolicySet::compile(Role::parse(&changed, "changed.yaml")?)?;
    println!("{}", diff(&policy, &after, &inventory));

    println!("\n# What looks odd in it?");
    for lint in lint(&after, Some(&inventory)) {
        println!("{lint}");
    }

    println!("\n# Is it as we wrote down?");
    for cases in Cases::parse(include_str!("cases.yaml"), "cases.yaml")? {
        println!("{}", cases.run(&policy));
    }
    Ok(())
}

fn may(policy: &PolicySet, subject: &Subject, node: &Node) -> Result<(), Box<dyn Error>> {
    let login = "deploy".parse()?;
    let request = Request {
        subject,
        node,
        login: &login,
        source: Some("10.1.2.3".parse()?),
    };
    match authorize(policy, &request) {
        Decision::Allow(permit) => {
            let ttl = permit.obligations().max_session_ttl;
            let ttl = ttl.map_or_else(|| "as long as it takes".to_owned(), |ttl| ttl.to_string());
            println!("{}: yes, for {ttl}", node.name);
        }
        Decision::Deny(denial) => println!("{}: no, {denial}\n{}", node.name, denial.explanation()),
    }
    Ok(())
}

fn user(
    name: &str,
    role: &str,
    logins: &[&str],
    teams: &[&str],
) -> Result<Subject, Box<dyn Error>> {
    let named = |name: &str, values: &[&str]| {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        Traits::new(BTreeMap::from([(name.to_owned(), values)]))
    };
    Ok(Subject {
        user: name.parse()?,
        roles: vec![role.parse()?],
        internal: named("logins", logins)?,
        external: named("team", teams)?,
    })
}

fn node(number: u8, name: &str, labels: &[&str]) -> Result<Node, Box<dyn Error>> {
    Ok(Node {
        id: NodeId::new([number; 16]),
        name: name.parse()?,
        labels: NodeLabels {
            operator: Labels::parse(labels.iter().copied())?,
            ..NodeLabels::default()
        },
    })
}
