//! What people read, word by word: the matrix of built-in roles, and denials.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use mezite_core::{Labels, Login, NodeId, RoleName, UserName};
use mezite_rbac::{
    Decision, Node, NodeLabels, PolicySet, Request, Resource, Role, Subject, Traits, Verb, allows,
    authorize, builtin_roles,
};

fn compare(file: &str, fresh: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(file);
    if std::env::var_os("MEZITE_WRITE_SNAPSHOTS").is_some() {
        std::fs::write(&path, fresh).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found
        .lines()
        .zip(fresh.lines())
        .find(|(found, fresh)| found != fresh);
    assert!(
        found == fresh,
        "{} is stale, first at {differs:?}: run with MEZITE_WRITE_SNAPSHOTS=1 and look at what changed",
        path.display()
    );
}

fn holder(role: &RoleName) -> Subject {
    Subject {
        user: "alice".parse().unwrap(),
        roles: vec![role.clone()],
        internal: Traits::default(),
        external: Traits::default(),
    }
}

/// Every built-in role, every resource, every verb. A new resource, verb or role changes the matrix, and somebody has to look.
#[test]
fn built_in_roles_may_what_the_matrix_says() {
    let roles = builtin_roles();
    let names: Vec<RoleName> = roles.iter().map(|role| role.name().clone()).collect();
    let policy = PolicySet::compile(roles).unwrap();
    let bob: UserName = "bob".parse().unwrap();
    let mut matrix = String::from("# yes: any, own: only one's own, -: no\n");
    let heads: String = names.iter().fold(String::new(), |heads, name| {
        heads + &format!(" {:<8}", name.as_str())
    });
    let head = format!("{:<9} {:<7}{heads}", "resource", "verb");
    writeln!(matrix, "{}", head.trim_end()).unwrap();
    for resource in Resource::ALL.iter().copied() {
        let mut covered = 0;
        for verb in Verb::ALL.iter().copied() {
            let mut row = format!(
                "{resource:<9} {verb:<7}",
                resource = resource.as_str(),
                verb = verb.as_str()
            );
            for name in &names {
                let subject = holder(name);
                let may = |owner| allows(&policy, &subject, resource, verb, owner);
                let cell = match (may(None), may(Some(&bob)), may(Some(&subject.user))) {
                    (true, true, true) => "yes",
                    (false, false, true) => "own",
                    (false, false, false) => "-",
                    other => panic!("{name} {verb} {resource}: {other:?}"),
                };
                covered += usize::from(cell == "yes");
                write!(row, " {cell:<8}").unwrap();
            }
            writeln!(matrix, "{}", row.trim_end()).unwrap();
        }
        assert!(
            covered >= Verb::ALL.len(),
            "{resource} has a verb that no built-in role may"
        );
    }
    compare("matrix.out", &matrix);
}

const ROLES: &str = r#"
kind: role
version: v1
metadata: { name: backend-dev }
spec:
  options: { source_networks: ["10.0.0.0/8"] }
  allow:
    node_labels: { env: [staging, dev], team: "{{external.team}}" }
    logins: ["{{internal.logins}}", deploy]
  deny:
    logins: [root]
---
kind: role
version: v1
metadata: { name: no-held-nodes }
spec:
  deny:
    node_labels: { held-by: "{{external.team}}" }
"#;

/// Five typical denials, as the user sees them and as the log keeps them.
#[test]
fn denials_read_as_they_should() {
    let policy = PolicySet::compile(Role::parse(ROLES, "roles").unwrap()).unwrap();
    let user = |roles: &[&str], team: &[&str]| Subject {
        user: "alice".parse().unwrap(),
        roles: roles.iter().map(|role| role.parse().unwrap()).collect(),
        internal: traits("logins", &["alice"]),
        external: traits("team", team),
    };
    let node = Node {
        id: NodeId::new([7; 16]),
        name: "web-01".parse().unwrap(),
        labels: NodeLabels {
            operator: Labels::parse(["env=dev"]).unwrap(),
            token: Labels::parse(["team=payments"]).unwrap(),
            agent: Labels::parse(["env=prod"]).unwrap(),
        },
    };
    let dev = user(&["backend-dev"], &["payments"]);
    let mut out = String::new();
    for (title, subject, login, source) in [
        (
            "another team's node",
            user(&["backend-dev"], &["search"]),
            "deploy",
            "10.1.2.3",
        ),
        ("a denied login", dev.clone(), "root", "10.1.2.3"),
        (
            "a trait is missing under deny",
            user(&["backend-dev", "no-held-nodes"], &[]),
            "deploy",
            "10.1.2.3",
        ),
        ("from outside", dev, "deploy", "192.0.2.7"),
        (
            "a role was deleted",
            user(&["backend-dev", "gone"], &["payments"]),
            "deploy",
            "10.1.2.3",
        ),
    ] {
        let login: Login = login.parse().unwrap();
        let request = Request {
            subject: &subject,
            node: &node,
            login: &login,
            source: Some(source.parse().unwrap()),
        };
        let Decision::Deny(denial) = authorize(&policy, &request) else {
            panic!("{title} is allowed");
        };
        writeln!(
            out,
            "# {title}\nuser: {denial}\nlog: {}\n",
            denial.explanation()
        )
        .unwrap();
    }
    compare("denials.out", &out);
}

fn traits(name: &str, values: &[&str]) -> Traits {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Traits::new(BTreeMap::from([(name.to_owned(), values)])).unwrap()
}
