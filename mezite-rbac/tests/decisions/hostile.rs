//! Attacks on decisions: order, patterns, traits, labels.

use mezite_rbac::{Node, NodeLabels, Reason, logins};

use crate::{ask, is_allowed, labels, node, permutations, policy, policy_of_one, reason, subject};

#[test]
fn attack_34_deny_wins_in_every_order_of_roles() {
    let policy = policy(&[
        (
            "all",
            "  allow: { node_labels: { \"*\": \"*\" }, logins: [\"*\"] }",
        ),
        (
            "more",
            "  allow: { node_labels: { env: \"*\" }, logins: [root, postgres] }",
        ),
        ("exact", "  deny: { node_labels: { env: prod } }"),
        ("regex", "  deny: { node_labels: { env: \"^st.*|qa$\" } }"),
        ("empty", "  deny: { node_labels: { owner: \"\" } }"),
        (
            "tagged",
            "  deny: { node_labels: { \"tag:a.b/c-d_e\": \"*\" } }",
        ),
        (
            "both",
            "  deny: { combined: [ { node_labels: { tier: db }, logins: [postgres] } ] }",
        ),
        (
            "template",
            "  deny: { node_labels: { held-by: \"x-{{external.team}}\" } }",
        ),
    ]);
    let everyone = ["all", "more", "exact", "regex", "empty", "tagged", "both"];
    let cases: [(&[&str], &str, bool); 12] = [
        (&["env=dev", "held-by=x-b"], "root", false),
        (&["env=dev"], "root", true),
        (&["env=prod"], "root", false),
        (&["env=staging"], "root", false),
        (&["env=qa"], "root", false),
        (&["env=q"], "root", true),
        (&["env=dev", "owner="], "root", false),
        (&["env=dev", "owner=x"], "root", true),
        (&["env=dev", "tag:a.b/c-d_e=x"], "root", false),
        (&["env=dev", "tier=db"], "root", true),
        (&["env=dev", "tier=db"], "postgres", false),
        (&[], "root", true),
    ];
    let orders = permutations(&everyone);
    assert_eq!(orders.len(), 5040);
    for (labels, login, allowed) in cases {
        let node = node(labels);
        for (turn, order) in orders.iter().enumerate() {
            // The role with the template comes in at every place in turn.
            let mut order = order.clone();
            order.insert(turn % (order.len() + 1), "template");
            let subject = subject(&order, &[], &[("team", &["a", "b"])]);
            let decision = ask(&policy, &subject, &node, login);
            assert_eq!(
                is_allowed(&decision),
                allowed,
                "{labels:?} {login} {order:?}"
            );
        }
    }
}

#[test]
fn attack_35_patterns_match_the_whole_and_take_linear_time() {
    let policy = policy(&[
        (
            "or",
            "  allow: { node_labels: { env: \"^a|b$\" }, logins: [x] }",
        ),
        (
            "slow",
            "  allow: { node_labels: { env: \"^(a+)+$\" }, logins: [x] }",
        ),
        (
            "lines",
            "  allow: { node_labels: { env: \"^(?m)a$\" }, logins: [x] }",
        ),
    ]);
    for (role, env, allowed) in [
        ("or", "a", true),
        ("or", "b", true),
        ("or", "ab", false),
        ("or", "ax", false),
        ("or", "xb", false),
        ("or", "A", false),
        ("lines", "a", true),
        ("slow", &"a".repeat(250), true),
        ("slow", &format!("{}!", "a".repeat(250)), false),
        ("slow", "^(a+)+$", false),
    ] {
        let (subject, node) = (subject(&[role], &[], &[]), node(&[&format!("env={env}")]));
        let decision = ask(&policy, &subject, &node, "x");
        assert_eq!(is_allowed(&decision), allowed, "{role} {env}");
    }
}

/// What a label says is text to a pattern, however it is made up: it leaves no deny, and enters no allow.
#[test]
fn attack_35_hostile_values_neither_dodge_a_deny_nor_make_an_allow() {
    let policy = policy(&[
        (
            "all",
            "  allow: { node_labels: { \"*\": \"*\" }, logins: [\"*\"] }",
        ),
        ("no", "  deny: { node_labels: { env: '^(?s)prod.*$' } }"),
        ("nested", "  deny: { node_labels: { env: '^(x+x+)+y$' } }"),
        (
            "yes",
            "  allow: { node_labels: { env: '^(?:dev|qa)-[0-9]{1,3}$' }, logins: [x] }",
        ),
    ]);
    let long = "x".repeat(250);
    for (role, env, allowed) in [
        ("no", "prod", false),
        ("no", "prod^$", false),
        ("no", "prod|dev", false),
        ("no", "prod\u{2028}dev", false),
        ("no", "prod)", false),
        ("no", "xprod", true),
        ("nested", &long, true),
        ("nested", &format!("{long}y"), false),
    ] {
        let (subject, node) = (
            subject(&["all", role], &[], &[]),
            node(&[&format!("env={env}")]),
        );
        let decision = ask(&policy, &subject, &node, "x");
        assert_eq!(is_allowed(&decision), allowed, "{role} {env:?}");
    }
    let yes = subject(&["yes"], &[], &[]);
    assert!(is_allowed(&ask(&policy, &yes, &node(&["env=qa-7"]), "x")));
    for env in [
        "dev",
        "dev-1234",
        "dev-1|",
        "^dev-1$",
        "qa-\u{661}",
        "dev-1\u{2028}",
        " dev-1",
        "DEV-1",
    ] {
        let node = node(&[&format!("env={env}")]);
        assert!(!is_allowed(&ask(&policy, &yes, &node, "x")), "{env:?}");
    }
}

#[test]
fn attack_36_what_a_trait_holds_is_data() {
    let policy = policy(&[
        (
            "label",
            "  allow: { node_labels: { team: \"{{external.team}}\" }, logins: [x] }",
        ),
        (
            "login",
            "  allow: { node_labels: { \"*\": \"*\" }, logins: [\"{{internal.logins}}\"] }",
        ),
    ]);
    for value in [
        "*",
        "^.*$",
        "{{user.name}}",
        "{{external.team}}",
        "db,web",
        "db web",
        "db\nweb",
        "db\n",
        "$1",
        "\"db\"",
        "",
        "DB",
        "d\u{431}",
    ] {
        let label = subject(&["label"], &[], &[("team", &[value])]);
        assert!(
            !is_allowed(&ask(&policy, &label, &node(&["team=db"]), "x")),
            "{value:?}"
        );
        let login = subject(&["login"], &[("logins", &[value])], &[]);
        assert!(
            !is_allowed(&ask(&policy, &login, &node(&[]), "db")),
            "{value:?}"
        );
        assert!(
            !logins(&policy, &login, &node(&[]))
                .iter()
                .any(|login| login.as_str() == "db")
        );
    }
    // The label that says the same is matched: as text.
    let star = subject(&["label"], &[], &[("team", &["*"])]);
    assert!(is_allowed(&ask(&policy, &star, &node(&["team=*"]), "x")));
}

#[test]
fn attack_36_internal_and_external_are_two_names() {
    let policy = policy(&[(
        "a",
        "  allow: { node_labels: { \"*\": \"*\" }, logins: [\"{{internal.logins}}\"] }",
    )]);
    let outside = subject(
        &["a"],
        &[],
        &[("logins", &["root"]), ("internal.logins", &["root"])],
    );
    assert!(!is_allowed(&ask(&policy, &outside, &node(&[]), "root")));
    let inside = subject(&["a"], &[("logins", &["root"])], &[("logins", &["bob"])]);
    assert!(is_allowed(&ask(&policy, &inside, &node(&[]), "root")));
    assert!(!is_allowed(&ask(&policy, &inside, &node(&[]), "bob")));
}

#[test]
fn attack_36_a_missing_trait_grants_nothing_and_denies_everything() {
    let policy = policy(&[
        (
            "all",
            "  allow: { node_labels: { \"*\": \"*\" }, logins: [\"*\"] }",
        ),
        (
            "some",
            "  allow: { node_labels: { team: \"{{external.team}}\" }, logins: [\"{{external.team}}\"] }",
        ),
        (
            "node",
            "  deny: { node_labels: { env: prod, team: [x, \"{{external.team}}\"] } }",
        ),
        (
            "login",
            "  deny: { logins: [\"{{email.local(external.mail)}}\"] }",
        ),
        (
            "both",
            "  deny: { combined: [ { node_labels: { team: \"{{external.team}}\" }, logins: [root] } ] }",
        ),
    ]);
    let empty: [&[(&str, &[&str])]; 2] = [&[], &[("team", &[]), ("mail", &[])]];
    for external in empty {
        let with = |role| subject(&["all", role], &[], external);
        assert!(!is_allowed(&ask(
            &policy,
            &subject(&["some"], &[], external),
            &node(&["team="]),
            "x"
        )));
        assert!(is_allowed(&ask(&policy, &with("some"), &node(&[]), "bob")));
        assert!(!is_allowed(&ask(
            &policy,
            &with("node"),
            &node(&["env=dev"]),
            "bob"
        )));
        assert!(!is_allowed(&ask(
            &policy,
            &with("login"),
            &node(&[]),
            "bob"
        )));
        assert!(is_allowed(&ask(&policy, &with("both"), &node(&[]), "bob")));
        assert!(!is_allowed(&ask(
            &policy,
            &with("both"),
            &node(&[]),
            "root"
        )));
    }
    // A value that the function refuses makes the deny unresolved, even beside one that it takes.
    let mixed = subject(
        &["all", "login"],
        &[],
        &[("mail", &["carol@x", "not an address"])],
    );
    assert!(!is_allowed(&ask(&policy, &mixed, &node(&[]), "bob")));
    let plain = subject(&["all", "login"], &[], &[("mail", &["carol@x"])]);
    assert!(is_allowed(&ask(&policy, &plain, &node(&[]), "bob")));
    assert!(!is_allowed(&ask(&policy, &plain, &node(&[]), "carol")));
}

#[test]
fn attack_36_functions_take_plain_values_only() {
    let policy = policy(&[
        (
            "local",
            "  allow: { node_labels: { \"*\": \"*\" }, logins: [\"{{email.local(external.mail)}}\"] }",
        ),
        (
            "replace",
            r#"  allow: { node_labels: { "*": "*" }, logins: ['dev-{{regexp.replace(external.mail, "^([a-z]+)@corp\\.example$", "$1")}}'] }"#,
        ),
    ]);
    let node = node(&[]);
    for bad in [
        "root",
        "@corp.example",
        "root@",
        "root@a@corp.example",
        "\"root\"@corp.example",
        "root @x",
        "root@x y",
        "<root@x>",
        "x,root@x",
        "root\n@x",
        "root@x\n",
        "root(c)@x",
        "r\u{3bf}ot@x",
        " root@x",
    ] {
        let subject = subject(&["local", "replace"], &[], &[("mail", &[bad])]);
        assert!(
            !is_allowed(&ask(&policy, &subject, &node, "root")),
            "{bad:?}"
        );
        assert!(logins(&policy, &subject, &node).is_empty(), "{bad:?}");
    }
    let replaced = |mail: &str| {
        logins(
            &policy,
            &subject(&["replace"], &[], &[("mail", &[mail])]),
            &node,
        )
    };
    assert_eq!(replaced("bob@corp.example"), ["dev-bob".parse().unwrap()]);
    for bad in [
        "bob@corpxexample",
        "bob@corp.example.evil",
        "xbob@corp.example\n",
        "$1@corp.example",
        "BOB@corp.example",
    ] {
        assert_eq!(replaced(bad), [], "{bad:?}");
    }
}

#[test]
fn attack_36_output_is_bounded() {
    let spec = format!(
        r#"  allow: {{ node_labels: {{ "*": "*" }}, logins: ["*"] }}
  deny: {{ logins: ['{{{{regexp.replace(external.x, "^(.*)$", "{}")}}}}'] }}"#,
        "$1".repeat(400)
    );
    let policy = policy(&[("a", &spec)]);
    let short = subject(&["a"], &[], &[("x", &["ab"])]);
    assert!(is_allowed(&ask(&policy, &short, &node(&[]), "root")));
    let plain = policy_of_one("  deny: { logins: [\"x{{external.x}}\"] }");
    let full = "a".repeat(1023);
    for (value, unresolved) in [(full.clone(), false), (full + "a", true)] {
        let subject = subject(&["all", "r"], &[], &[("x", &[&value])]);
        let denied = reason(&ask(&plain, &subject, &node(&[]), "root")) == Some(Reason::Denied);
        assert_eq!(denied, unresolved);
    }
    // As long as the bound is long enough: the deny is resolved, and is of another login.
    let same =
        policy_of_one(r#"  deny: { logins: ['{{regexp.replace(external.x, "^(.*)$", "$1")}}'] }"#);
    let full = subject(&["all", "r"], &[], &[("x", &[&"a".repeat(1024)])]);
    assert!(is_allowed(&ask(&same, &full, &node(&[]), "root")));
    // 400 times three bytes are too many: the deny is unresolved.
    let long = subject(&["a"], &[], &[("x", &["abc"])]);
    assert!(!is_allowed(&ask(&policy, &long, &node(&[]), "root")));
}

#[test]
fn attack_37_an_agent_cannot_label_its_node_into_a_role() {
    let policy = policy(&[
        (
            "default",
            "  allow: { node_labels: { env: dev }, logins: [x] }",
        ),
        (
            "trusting",
            "  allow: { node_label_sources: [operator, token, agent], node_labels: { env: dev }, logins: [x] }",
        ),
        ("deny", "  deny: { node_labels: { held: \"yes\" } }"),
    ]);
    let with = |operator: &[&str], token: &[&str], agent: &[&str]| Node {
        labels: NodeLabels {
            operator: labels(operator),
            token: labels(token),
            agent: labels(agent),
        },
        ..node(&[])
    };
    let can = |roles: &[&str], node: &Node| {
        is_allowed(&ask(&policy, &subject(roles, &[], &[]), node, "x"))
    };
    assert!(!can(&["default"], &with(&[], &[], &["env=dev"])));
    assert!(can(&["default"], &with(&[], &["env=dev"], &[])));
    assert!(can(&["trusting"], &with(&[], &[], &["env=dev"])));
    assert!(!can(&["trusting"], &with(&["env=prod"], &[], &["env=dev"])));
    assert!(!can(&["trusting"], &with(&[], &["env=prod"], &["env=dev"])));
    assert!(!can(
        &["default", "trusting", "deny"],
        &with(&["env=dev", "held=no"], &[], &["held=yes"])
    ));
}
