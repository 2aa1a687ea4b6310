//! Decisions on concrete cases, and what the other files ask with.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod explained;
mod hostile;

use std::collections::BTreeMap;
use std::net::IpAddr;

use mezite_core::{Labels, Login, NodeId, Span};
use mezite_rbac::budget::MAX_SUBJECT_ROLES;
use mezite_rbac::{
    Decision, Node, NodeLabels, Obligations, OnFailure, PolicySet, Reason, Request, Resource, Role,
    Subject, Traits, Verb, allows, authorize, builtin_roles, explain, identity_ttl, logins, reach,
    sees, who_can,
};

fn policy(specs: &[(&str, &str)]) -> PolicySet {
    let roles = specs.iter().flat_map(|(name, spec)| {
        let yaml =
            format!("kind: role\nversion: v1\nmetadata: {{ name: {name} }}\nspec:\n{spec}\n");
        Role::parse(&yaml, name).unwrap_or_else(|error| panic!("{error}"))
    });
    PolicySet::compile(roles).unwrap()
}

/// A role `all` that allows everything, and a role `r` of this `spec`.
fn policy_of_one(spec: &str) -> PolicySet {
    policy(&[
        (
            "all",
            "  allow: { node_labels: { \"*\": \"*\" }, logins: [\"*\"] }",
        ),
        ("r", spec),
    ])
}

fn traits(map: &[(&str, &[&str])]) -> Traits {
    let owned = map.iter().map(|(name, values)| {
        (
            (*name).to_owned(),
            values.iter().map(|value| (*value).to_owned()).collect(),
        )
    });
    Traits::new(owned.collect::<BTreeMap<_, _>>()).unwrap()
}

fn subject(roles: &[&str], internal: &[(&str, &[&str])], external: &[(&str, &[&str])]) -> Subject {
    Subject {
        user: "alice".parse().unwrap(),
        roles: roles.iter().map(|role| role.parse().unwrap()).collect(),
        internal: traits(internal),
        external: traits(external),
    }
}

fn labels(words: &[&str]) -> Labels {
    Labels::parse(words.iter().copied()).unwrap()
}

fn node(operator: &[&str]) -> Node {
    Node {
        id: NodeId::new([7; 16]),
        name: "db1".parse().unwrap(),
        labels: NodeLabels {
            operator: labels(operator),
            ..NodeLabels::default()
        },
    }
}

fn ask<'a>(
    policy: &'a PolicySet,
    subject: &'a Subject,
    node: &'a Node,
    login: &str,
) -> Decision<'a> {
    ask_from(policy, subject, node, login, None)
}

fn ask_from<'a>(
    policy: &'a PolicySet,
    subject: &'a Subject,
    node: &'a Node,
    login: &str,
    source: Option<&str>,
) -> Decision<'a> {
    // A denial keeps what was asked for, so that it can explain itself.
    let login: &Login = Box::leak(Box::new(login.parse().unwrap()));
    let source = source.map(|source| source.parse::<IpAddr>().unwrap());
    authorize(
        policy,
        &Request {
            subject,
            node,
            login,
            source,
        },
    )
}

fn obligations(decision: Decision<'_>) -> Obligations {
    match decision {
        Decision::Allow(permit) => permit.obligations().clone(),
        Decision::Deny(denial) => panic!("{}", denial.explanation()),
    }
}

fn is_allowed(decision: &Decision<'_>) -> bool {
    matches!(decision, Decision::Allow(_))
}

fn reason(decision: &Decision<'_>) -> Option<Reason> {
    match decision {
        Decision::Allow(_) => None,
        Decision::Deny(denial) => Some(denial.reason()),
    }
}

/// Every order of the names.
fn permutations(names: &[&'static str]) -> Vec<Vec<&'static str>> {
    let Some((first, rest)) = names.split_first() else {
        return vec![vec![]];
    };
    let mut all = Vec::new();
    for shorter in permutations(rest) {
        for at in 0..=shorter.len() {
            let mut order = shorter.clone();
            order.insert(at, first);
            all.push(order);
        }
    }
    all
}

#[test]
fn a_permit_carries_what_was_asked() {
    let policy = policy(&[(
        "a",
        "  allow: { node_labels: { env: dev }, logins: [deploy] }",
    )]);
    let (subject, node) = (subject(&["a"], &[], &[]), node(&["env=dev"]));
    let Decision::Allow(permit) = ask(&policy, &subject, &node, "deploy") else {
        panic!("allowed");
    };
    assert_eq!(permit.subject(), &subject);
    assert_eq!(permit.node(), &node);
    assert_eq!(permit.login().as_str(), "deploy");
}

#[test]
fn labels_and_login_have_to_come_from_the_same_role() {
    let policy = policy(&[
        (
            "dev",
            "  allow: { node_labels: { env: dev }, logins: [root] }",
        ),
        (
            "prod",
            "  allow: { node_labels: { env: prod }, logins: [deploy] }",
        ),
        ("none", "  allow: { logins: [root] }"),
    ]);
    let subject = subject(&["dev", "prod", "none"], &[], &[]);
    assert!(is_allowed(&ask(
        &policy,
        &subject,
        &node(&["env=dev"]),
        "root"
    )));
    assert!(is_allowed(&ask(
        &policy,
        &subject,
        &node(&["env=prod"]),
        "deploy"
    )));
    assert_eq!(
        reason(&ask(&policy, &subject, &node(&["env=prod"]), "root")),
        Some(Reason::NotAllowed)
    );
}

#[test]
fn a_role_that_is_not_known_denies() {
    let policy = policy(&[(
        "all",
        "  allow: { node_labels: { \"*\": \"*\" }, logins: [\"*\"], rules: [{ resources: [user], verbs: [read] }] }",
    )]);
    let (known, unknown) = (
        subject(&["all"], &[], &[]),
        subject(&["all", "gone"], &[], &[]),
    );
    assert!(is_allowed(&ask(&policy, &known, &node(&[]), "x")));
    assert_eq!(
        reason(&ask(&policy, &unknown, &node(&[]), "x")),
        Some(Reason::UnknownRole)
    );
    assert!(allows(&policy, &known, Resource::User, Verb::Read, None));
    assert!(!allows(&policy, &unknown, Resource::User, Verb::Read, None));
    assert!(sees(&policy, &known, &node(&[])) && !sees(&policy, &unknown, &node(&[])));

    let many = Subject {
        roles: vec!["all".parse().unwrap(); 65],
        ..known
    };
    assert_eq!(
        reason(&ask(&policy, &many, &node(&[]), "x")),
        Some(Reason::TooManyRoles)
    );
}

/// What one role says is compared once for all that repeat it, and means to each what it says there.
#[test]
fn roles_that_repeat_one_another_keep_their_own_meaning() {
    let lists = [
        "node_labels: { env: [dev, \"{{external.none}}\"] }",
        "logins: [x, \"{{external.none}}\"]",
    ];
    let everywhere = "node_labels: { \"*\": \"*\" }";
    let policy = policy(&[
        (
            "grant",
            &format!("  allow: {{ {}, {} }}", lists[0], lists[1]),
        ),
        (
            "agent",
            &format!(
                "  allow: {{ {}, node_label_sources: [agent], logins: [y] }}",
                lists[0]
            ),
        ),
        (
            "any",
            &format!("  allow: {{ {everywhere}, logins: [x, y, z] }}"),
        ),
        ("not-there", &format!("  deny: {{ {} }}", lists[0])),
        ("not-as", &format!("  deny: {{ {} }}", lists[1])),
        (
            "all",
            "  allow: { node_labels: { env: dev }, node_label_sources: [operator, token, agent], logins: [x, z] }",
        ),
        (
            "not-z",
            "  deny: { combined: [{ node_labels: { env: dev }, logins: [z] }] }",
        ),
        (
            "not-both",
            &format!("  deny: {{ combined: [{{ {}, {} }}] }}", lists[0], lists[1]),
        ),
    ]);
    let by_operator = node(&["env=dev"]);
    let mut by_agent = node(&[]);
    by_agent.labels.agent = labels(&["env=dev"]);
    let mut by_both = node(&["env=prod"]);
    by_both.labels.agent = labels(&["env=dev"]);
    let allowed = |roles: &[&str], node: &Node| {
        let mut reversed = roles.to_vec();
        reversed.reverse();
        let [found, also] = [roles, reversed.as_slice()].map(|roles| {
            let subject = subject(roles, &[], &[]);
            let allowed =
                ["x", "y", "z"].map(|login| is_allowed(&ask(&policy, &subject, node, login)));
            (allowed, logins(&policy, &subject, node).len())
        });
        assert_eq!(found, also, "{roles:?}");
        assert_eq!(found.0.iter().filter(|allowed| **allowed).count(), found.1);
        found.0
    };
    assert_eq!(
        allowed(&["grant", "agent"], &by_operator),
        [true, false, false]
    );
    assert_eq!(
        allowed(&["grant", "agent"], &by_agent),
        [false, true, false]
    );
    for deny in ["not-there", "not-as", "not-both"] {
        // A template without a value grants nothing and denies everything.
        for node in [&by_operator, &by_agent, &node(&[])] {
            assert_eq!(allowed(&["any", "grant", "agent", deny], node), [false; 3]);
        }
    }
    // What any source says denies, what the strongest says grants.
    assert_eq!(allowed(&["all", "not-z"], &by_both), [false; 3]);
    assert_eq!(allowed(&["any", "not-z"], &by_both), [true, true, false]);
    assert_eq!(allowed(&["all", "not-z"], &by_agent), [true, false, false]);
    assert_eq!(allowed(&["any", "grant", "agent"], &by_agent), [true; 3]);
}

#[test]
fn a_decision_that_takes_too_long_is_a_denial() {
    let values: Vec<String> = (0..250)
        .map(|n| format!("'{{{{regexp.replace(external.x, \"^(.*)b{n}$\", \"$1\")}}}}'"))
        .collect();
    let spec = format!(
        "  allow: {{ node_labels: {{ \"*\": \"*\" }}, logins: [x, {}] }}",
        values.join(", ")
    );
    let policy = policy(&[
        ("a", &spec),
        ("b", "  deny: { logins: [\"{{external.x}}\"] }"),
    ]);
    let long: Vec<String> = (0..200)
        .map(|n| format!("{n}{}", "a".repeat(1000)))
        .collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let subject = subject(&["a"], &[], &[("x", &long)]);
    let node = node(&[]);
    assert!(is_allowed(&ask(&policy, &subject, &node, "x")));
    let decision = ask(&policy, &subject, &node, "y");
    assert_eq!(reason(&decision), Some(Reason::Exhausted));
    assert!(logins(&policy, &subject, &node).is_empty());
    // Questions about many say that they do not know; one login is asked about alone.
    assert!(reach(&policy, &subject, &node).exhausted);
    assert_eq!(
        reach(&policy, &subject, &node).to_string(),
        "too large to say"
    );
    let one = |login: &str| {
        let login: Login = login.parse().unwrap();
        let found = who_can(&policy, [&subject], [&node], Some(&login))
            .next()
            .unwrap();
        (found.reach.exhausted, found.reach.logins.len())
    };
    assert_eq!((one("x"), one("y")), ((false, 1), (true, 0)));
}

#[test]
fn labels_that_take_too_long_are_a_denial() {
    let values: Vec<String> = (0..250)
        .map(|n| format!("'{{{{regexp.replace(external.x, \"^(.*)b{n}$\", \"$1\")}}}}'"))
        .collect();
    let values = values.join(", ");
    let policy = policy(&[
        (
            "a",
            &format!("  allow: {{ node_labels: {{ env: [{values}] }}, logins: [x] }}"),
        ),
        ("b", "  allow: { node_labels: { env: dev }, logins: [x] }"),
    ]);
    let long = "a".repeat(1000);
    let long: Vec<&str> = (0..200).map(|_| long.as_str()).collect();
    let both = subject(&["b", "a"], &[], &[("x", &long)]);
    let dev = node(&["env=dev"]);
    let decision = ask(&policy, &both, &dev, "x");
    assert_eq!(reason(&decision), Some(Reason::Exhausted));
    assert!(reach(&policy, &both, &dev).exhausted);
    let one = subject(&["b"], &[], &[("x", &long)]);
    assert!(is_allowed(&ask(&policy, &one, &node(&["env=dev"]), "x")));
    assert!(reach(&policy, &both, &node(&[])).is_empty());
}

#[test]
fn options_merge_to_the_strictest_over_the_roles_that_allow_this_target() {
    let policy = policy(&[
        (
            "a",
            "  options: { max_session_ttl: 8h, idle_timeout: 30m, port_forwarding: true, file_copy: true, agent_forwarding: true,
             record: { input: false, file_content: true, announce_watchers: true, on_failure: suspend }, max_sessions: 10, require_session_mfa: totp,
             source_networks: [\"10.0.0.0/8\", \"192.0.2.0/24\"] }
  allow: { node_labels: { env: dev }, logins: [x, y] }",
        ),
        (
            "b",
            "  options: { max_session_ttl: 1h, idle_timeout: 1h, port_forwarding: false,
             record: { input: true, file_content: false, announce_watchers: false, on_failure: terminate }, max_sessions: 20, require_session_mfa: webauthn,
             source_networks: [\"10.1.0.0/16\"] }
  allow: { node_labels: { env: dev }, logins: [x] }",
        ),
        ("c", "  options: { max_session_ttl: 5m, file_copy: false }\n  allow: { node_labels: { env: prod }, logins: [x] }"),
    ]);
    let (subject, node) = (subject(&["a", "b", "c"], &[], &[]), node(&["env=dev"]));
    let both = obligations(ask_from(&policy, &subject, &node, "x", Some("10.1.2.3")));
    assert_eq!(both.max_session_ttl, Some(Span::from_secs(3600)));
    assert_eq!(both.idle_timeout, Some(Span::from_secs(1800)));
    assert_eq!(
        (both.port_forwarding, both.file_copy, both.agent_forwarding),
        (false, true, true)
    );
    assert_eq!(
        (
            both.record.input,
            both.record.file_content,
            both.record.announce_watchers,
            both.record.on_failure
        ),
        (true, true, true, OnFailure::Terminate)
    );
    assert_eq!(both.max_sessions, Some(10));
    assert_eq!(
        both.require_session_mfa.iter().collect::<Vec<_>>(),
        ["totp", "webauthn"]
    );
    assert_eq!(
        both.source_networks,
        Some(vec!["10.1.0.0/16".parse().unwrap()])
    );

    let one = obligations(ask_from(&policy, &subject, &node, "y", Some("192.0.2.7")));
    assert_eq!(one.max_session_ttl, Some(Span::from_secs(28_800)));
    assert!(one.port_forwarding && one.record.on_failure == OnFailure::Suspend);
    for source in [
        None,
        Some("192.0.2.7"),
        Some("10.2.0.1"),
        Some("2001:db8::1"),
    ] {
        let decision = ask_from(&policy, &subject, &node, "x", source);
        assert_eq!(reason(&decision), Some(Reason::SourceNetwork), "{source:?}");
    }
    assert!(is_allowed(&ask_from(
        &policy,
        &subject,
        &node,
        "x",
        Some("::ffff:10.1.2.3")
    )));
    assert_eq!(identity_ttl(&policy, &subject), Some(Span::from_secs(300)));
}

#[test]
fn what_no_role_says_is_the_strict_default() {
    let policy = policy(&[(
        "a",
        "  allow: { node_labels: { \"*\": \"*\" }, logins: [x] }",
    )]);
    let subject = subject(&["a"], &[], &[]);
    let defaults = obligations(ask(&policy, &subject, &node(&[]), "x"));
    let json = serde_json::to_value(&defaults).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "max_session_ttl": null, "idle_timeout": null, "port_forwarding": false, "file_copy": false,
            "agent_forwarding": false, "x11_forwarding": false, "nested_ssh": false,
            "forward_destinations": [], "forward_listen": [], "record": { "input": false, "file_content": false, "announce_watchers": false, "on_failure": "terminate" },
            "max_sessions": null, "require_session_mfa": [], "source_networks": null
        })
    );
    assert_eq!(
        serde_json::from_value::<Obligations>(json).unwrap(),
        defaults
    );
    assert_eq!(identity_ttl(&policy, &subject), None);
}

#[test]
fn what_is_listed_and_seen() {
    let policy = policy(&[
        (
            "some",
            "  allow: { node_labels: { env: dev }, logins: [deploy, root, \"{{internal.logins}}\"] }",
        ),
        (
            "open",
            "  allow: { node_labels: { env: prod }, logins: [\"^app-.*$\"] }",
        ),
        (
            "own",
            "  allow: { node_labels: { env: dev }, logins: [\"{{internal.logins}}\"] }",
        ),
        ("noroot", "  deny: { logins: [root] }"),
        ("nologin", "  deny: { logins: [\"*\"] }"),
        ("unresolved", "  deny: { logins: [\"{{external.held}}\"] }"),
        (
            "noprod",
            "  deny: { combined: [ { node_labels: { env: prod }, logins: [\"*\"] } ] }",
        ),
    ]);
    let alice = subject(
        &["some", "open", "noroot"],
        &[("logins", &["alice", "not a login"])],
        &[],
    );
    let names: Vec<String> = logins(&policy, &alice, &node(&["env=dev"]))
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["alice", "deploy"]);
    assert!(sees(&policy, &alice, &node(&["env=dev"])));
    assert!(logins(&policy, &alice, &node(&["env=prod"])).is_empty());
    assert!(sees(&policy, &alice, &node(&["env=prod"])));
    assert!(!sees(&policy, &alice, &node(&["env=qa"])));
    let held = subject(&["some", "open", "noprod"], &[], &[]);
    assert!(!sees(&policy, &held, &node(&["env=prod"])));
    assert!(sees(&policy, &held, &node(&["env=dev"])));
    let nameless = subject(&["own"], &[], &[]);
    assert!(!sees(&policy, &nameless, &node(&["env=dev"])));
    for closing in ["nologin", "unresolved"] {
        let closed = subject(&["some", "open", closing], &[], &[]);
        assert!(!sees(&policy, &closed, &node(&["env=prod"])), "{closing}");
    }
}

#[test]
fn admin_rules_own_and_deny() {
    let policy = policy(&[
        (
            "own",
            "  allow: { rules: [ { resources: [recording], verbs: [list, read], where: own } ] }",
        ),
        (
            "any",
            "  allow: { rules: [ { resources: [recording, user], verbs: [read] } ] }",
        ),
        (
            "not",
            "  deny: { rules: [ { resources: [user], verbs: [read] } ] }",
        ),
        (
            "notown",
            "  deny: { rules: [ { resources: [recording], verbs: [read], where: own } ] }",
        ),
    ]);
    let can = |roles: &[&str], resource, verb, owner: Option<&str>| {
        let owner = owner.map(|owner| owner.parse().unwrap());
        allows(
            &policy,
            &subject(roles, &[], &[]),
            resource,
            verb,
            owner.as_ref(),
        )
    };
    use Resource::{Recording, User};
    assert!(can(&["own"], Recording, Verb::Read, Some("alice")));
    assert!(!can(&["own"], Recording, Verb::Read, Some("bob")));
    assert!(!can(&["own"], Recording, Verb::Read, None));
    assert!(!can(&["own"], Recording, Verb::Delete, Some("alice")));
    assert!(can(&["any"], User, Verb::Read, None));
    assert!(!can(&["any", "not"], User, Verb::Read, None));
    assert!(!can(&["not", "any"], User, Verb::Read, None));
    assert!(can(&["any", "notown"], Recording, Verb::Read, Some("bob")));
    assert!(!can(
        &["any", "notown"],
        Recording,
        Verb::Read,
        Some("alice")
    ));
    assert!(!can(&["any", "notown"], Recording, Verb::Read, None));
    assert!(!can(&[], User, Verb::Read, None));
}

#[test]
fn builtin_roles_do_what_their_names_say() {
    let policy = PolicySet::compile(builtin_roles()).unwrap();
    let with = |role| subject(&[role], &[("logins", &["alice"])], &[("logins", &["root"])]);
    let alice = "alice".parse().unwrap();
    for resource in Resource::ALL {
        for verb in Verb::ALL {
            let can = |role, owner| allows(&policy, &with(role), *resource, *verb, owner);
            let reading = matches!(verb, Verb::List | Verb::Read);
            let sessions = matches!(resource, Resource::Session | Resource::Recording);
            assert!(can("admin", None));
            // An auditor sees what happened, and asks the rules: what answers tell is nothing secret.
            let asking = matches!(resource, Resource::Role | Resource::User | Resource::Node);
            let audited = sessions || asking || *resource == Resource::Audit;
            assert_eq!(can("auditor", None), reading && audited);
            let lists_nodes = *resource == Resource::Node && *verb == Verb::List;
            assert_eq!(can("access", None), lists_nodes);
            assert_eq!(
                can("access", Some(&alice)),
                lists_nodes || (reading && sessions)
            );
        }
    }
    let node = node(&[]);
    assert!(is_allowed(&ask(&policy, &with("access"), &node, "alice")));
    for role in ["admin", "access", "auditor", "node", "proxy"] {
        assert!(
            !is_allowed(&ask(&policy, &with(role), &node, "root")),
            "{role}"
        );
    }
}

#[test]
fn reach_lists_logins_and_names_patterns_beside_them() {
    let policy = policy(&[
        (
            "a",
            "  allow: { node_labels: { \"*\": \"*\" }, logins: [deploy, \"{{user.name}}\"] }",
        ),
        (
            "b",
            "  allow: { node_labels: { env: dev }, logins: [\"*\", \"^app-.*$\"] }",
        ),
    ]);
    let (dev, prod) = (node(&["env=dev"]), node(&["env=prod"]));
    let both = subject(&["a", "b"], &[], &[]);
    let of = |node: &Node| {
        let found = reach(&policy, &both, node);
        let logins: Vec<String> = found.logins.iter().map(ToString::to_string).collect();
        (
            logins.join(" "),
            found.patterns.into_iter().collect::<Vec<_>>().join(" "),
        )
    };
    let pair = |logins: &str, patterns: &str| (logins.to_owned(), patterns.to_owned());
    assert_eq!(of(&prod), pair("alice deploy", ""));
    assert_eq!(of(&dev), pair("alice deploy", "* ^app-.*$"));
}

#[test]
fn a_subject_may_hold_as_many_roles_as_the_bound_says() {
    let policy = policy(&[(
        "a",
        "  allow: { node_labels: { \"*\": \"*\" }, logins: [x] }",
    )]);
    let explained = |roles: usize| {
        let subject = subject(&vec!["a"; roles], &[], &[]);
        let (node, login) = (node(&[]), "x".parse().unwrap());
        let request = Request {
            subject: &subject,
            node: &node,
            login: &login,
            source: None,
        };
        explain(&policy, &request)
    };
    assert_eq!(explained(MAX_SUBJECT_ROLES).reason, None);
    assert_eq!(
        explained(MAX_SUBJECT_ROLES + 1).to_string(),
        "alice as x on db1: denied, the user has too many roles"
    );
    assert_eq!(
        explained(0).to_string(),
        "alice as x on db1: denied, no role allows it\nthe user has no roles"
    );
}
