//! Role documents: what is read, what is refused and where, what comes back.

#![expect(clippy::panic, reason = "a test")]

use mezite_rbac::{PolicyError, PolicySet, Role, RoleError, budget, builtin_roles};

/// Every option and every place of design section 8.
const FULL: &str = r#"
kind: role
version: v1
metadata: { name: backend-dev, description: "Backend developers" }
spec:
  options: { max_session_ttl: 8h, port_forwarding: false, file_copy: true, agent_forwarding: false,
             record: { input: false, on_failure: terminate }, idle_timeout: 30m, max_sessions: 10,
             x11_forwarding: false, nested_ssh: false, forward_destinations: ["db.internal:5432", "10.0.0.0/8:*"],
             forward_listen: ["localhost:8080-8090", "/run/app/*"],
             require_session_mfa: "", source_networks: ["10.0.0.0/8"] }
  allow:
    node_labels: { env: [staging, dev], team: "{{external.team}}", host: "^web-[0-9]+$", os: "*" }
    node_label_sources: [operator, agent]
    logins: ["{{internal.logins}}", deploy, "*", "^app-.*$"]
    rules: [ { resources: [session, recording], verbs: [list, read], where: own } ]
  deny:
    node_labels: { sensitivity: restricted, "tag:held": "yes" }
    logins: [root]
    combined: [ { node_labels: { env: prod }, logins: [postgres, "{{external.logins}}"] } ]
    rules: [ { resources: [ca], verbs: [update] } ]
"#;

/// A small role with `line` as the last line of its `spec`.
fn with(line: &str) -> String {
    format!("kind: role\nversion: v1\nmetadata: {{ name: r }}\nspec:\n  {line}\n")
}

fn refusal(yaml: &str) -> (u64, u64, String) {
    match Role::parse(yaml, "r.yaml") {
        Err(RoleError::Document {
            line,
            column,
            message,
            origin,
        }) => {
            assert_eq!(origin, "r.yaml");
            (line, column, message)
        }
        other => panic!("{yaml}: {other:?}"),
    }
}

#[test]
fn a_full_document_comes_back_the_same_as_yaml_and_as_json() {
    let roles = Role::parse(FULL, "full.yaml").unwrap();
    let [role] = roles.as_slice() else {
        panic!("one document");
    };
    assert_eq!(role.name().as_str(), "backend-dev");
    assert_eq!(role.description(), "Backend developers");
    assert_eq!(Role::parse(&role.to_yaml(), "again").unwrap(), roles);
    assert_eq!(
        &serde_json::from_value::<Role>(role.to_json()).unwrap(),
        role
    );
    PolicySet::compile(roles).unwrap();
}

#[test]
fn what_a_role_does_not_say_is_not_written() {
    let role = Role::parse(&with("{}"), "r").unwrap().remove(0);
    let spec = &role.to_json()["spec"];
    for part in ["options", "allow", "deny"] {
        assert_eq!(spec[part], serde_json::json!({}), "{part}");
    }
    assert!(role.to_json()["metadata"].get("description").is_none());
}

#[test]
fn builtin_roles_come_back_the_same_and_compile() {
    for role in builtin_roles() {
        assert_eq!(Role::parse(&role.to_yaml(), "again").unwrap(), [role]);
    }
    assert_eq!(
        PolicySet::compile(builtin_roles()).unwrap().roles().count(),
        5
    );
}

#[test]
fn several_documents_in_one_text() {
    let text = format!(
        "{}---\n{}",
        with("{}"),
        with("allow: {}").replace("name: r", "name: s")
    );
    assert_eq!(Role::parse(&text, "two").unwrap().len(), 2);
    assert_eq!(
        Role::parse("", "none"),
        Err(RoleError::Empty {
            origin: "none".to_owned()
        })
    );
    assert_eq!(
        Role::parse("# nothing\n", "none"),
        Err(RoleError::Empty {
            origin: "none".to_owned()
        })
    );
}

#[test]
fn a_misspelt_word_is_told_the_one_that_was_meant() {
    for (line, meant) in [
        ("alow: {}", Some("allow")),
        ("allow: { login: [x] }", Some("logins")),
        ("deny: { node_lables: { env: prod } }", Some("node_labels")),
        (
            "options: { record: { on_failure: terminat } }",
            Some("terminate"),
        ),
        (
            "allow: { rules: [{ resources: [sesion], verbs: [read] }] }",
            Some("session"),
        ),
        ("optns: {}", Some("options")),
        // Too far from anything, or so short that anything is near.
        ("de: {}", None),
        ("allow: { nodes: {} }", None),
        (
            "allow: { rules: [{ resources: [ca], verbs: [read], were: own }] }",
            Some("where"),
        ),
        ("x: {}", None),
    ] {
        let (_, _, message) = refusal(&with(line));
        match meant {
            Some(word) => assert!(
                message.ends_with(&format!(": did you mean `{word}`?")),
                "{line}: {message}"
            ),
            None => assert!(!message.contains("did you mean"), "{line}: {message}"),
        }
    }
}

#[test]
fn unknown_keys_are_refused_with_line_and_column() {
    for (line, key, column) in [
        ("allows: {}", "allows", 3),
        ("allow: { nodes: {} }", "nodes", 12),
        (
            "allow: { rules: [{ resources: [ca], verbs: [read], were: own }] }",
            "were",
            54,
        ),
        ("deny: { node_label: { env: prod } }", "node_label", 11),
        (
            "deny: { combined: [{ node_labels: { env: prod }, logins: [root], or: 1 }] }",
            "or",
            68,
        ),
        ("options: { max_session_tl: 8h }", "max_session_tl", 14),
        ("options: { record: { outputs: true } }", "outputs", 24),
    ] {
        let (at_line, at_column, message) = refusal(&with(line));
        assert_eq!((at_line, at_column), (5, column), "{line}: {message}");
        assert!(message.contains(key), "{line}: {message}");
    }
    let error = Role::parse("kind: role\nversion: v1\nname: x\n", "a\nb.yaml").unwrap_err();
    assert!(error.to_string().starts_with("a\\nb.yaml:3:1: "), "{error}");
}

#[test]
fn attack_34_what_looks_like_a_rule_but_is_none_is_refused() {
    for (line, said) in [
        (
            "deny: { node_labels: { env: \"prod-*\" } }",
            "globs are not known",
        ),
        (
            "deny: { node_labels: { env: \"{{user.name}}*\" } }",
            "globs are not known",
        ),
        (
            "deny: { node_labels: { env: \"!prod\" } }",
            "negation is not known",
        ),
        (
            "deny: { node_labels: { env: \"^prod\" } }",
            "half a pattern",
        ),
        (
            "deny: { node_labels: { env: \"prod$\" } }",
            "half a pattern",
        ),
        (
            "deny: { node_labels: { env: \"{{user.name}}$\" } }",
            "holds no template",
        ),
        (
            "deny: { node_labels: { env: \"^{{user.name}}$\" } }",
            "holds no template",
        ),
        ("deny: { node_labels: { env: [] } }", "list is empty"),
        ("deny: { node_labels: {} }", "at least one label"),
        ("deny:", "expected mapping"),
        ("deny: { node_labels: }", "expected mapping"),
        ("deny: { logins: [] }", "list is empty"),
        ("deny: { logins: }", "expected sequence"),
        ("deny: { logins: root }", "expected sequence"),
        ("deny: { logins: [\"0\"] }", "not a valid login"),
        ("deny: { logins: [\"ROOT \"] }", "not a valid login"),
        ("deny: { combined: [ { logins: [root] } ] }", "node_labels"),
        (
            "deny: { combined: [ { node_labels: { env: prod } } ] }",
            "logins",
        ),
        ("deny: { node_labels: { Env: prod } }", "label key `Env`"),
        (
            "deny: { node_labels: { \"e nv\": prod } }",
            "label key `e nv`",
        ),
        ("deny: { node_labels: { \"\": prod } }", "label key ``"),
        (
            "deny: { node_labels: { \"e\\u0301nv\": prod } }",
            "label key",
        ),
        ("deny: { node_labels: { \"*\": prod } }", "every node"),
        (
            "deny: { node_labels: { env: prod, env: dev } }",
            "duplicate",
        ),
        ("deny: { node_labels: { env: 1.10 } }", "in quotes"),
        ("deny: { node_labels: { env: true } }", "in quotes"),
        ("deny: { node_labels: { env: null } }", "in quotes"),
        ("deny: { node_labels: { env: [1.10] } }", "in quotes"),
        ("deny: { logins: [7] }", "in quotes"),
        ("deny: { node_labels: { env: { a: b } } }", "text or a list"),
        (
            "allow: { node_labels: { \"tag:team\": db } }",
            "never grant",
        ),
        ("allow: { node_labels: {} }", "at least one label"),
        ("allow: { node_label_sources: [] }", "list is empty"),
        ("allow: { node_label_sources: [root] }", "root"),
        ("options: { max_session_ttl: 0s }", "no time at all"),
        ("options: { max_session_ttl: 8 }", "8"),
        ("options: { max_sessions: 0 }", "0"),
        ("options: { port_forwarding: no }", "bool"),
        (
            "options: { source_networks: [\"10.0.0.1/8\"] }",
            "bits behind the prefix",
        ),
        ("options: { source_networks: [] }", "list is empty"),
        ("options: { forward_destinations: [] }", "list is empty"),
        (
            "options: { forward_destinations: [\"db\"] }",
            "`db` is not a destination: write HOST:PORT",
        ),
        (
            "options: { forward_listen: [\"localhost:http\"] }",
            "its port is no number",
        ),
        ("options: { record: { on_failure: ignore } }", "ignore"),
        (
            "options: { require_session_mfa: \"T O T P\" }",
            "not a second factor",
        ),
    ] {
        let (at_line, _, message) = refusal(&with(line));
        assert!(message.contains(said), "{line}: {message}");
        assert!(
            (4..=6).contains(&at_line),
            "{line}: line {at_line}, {message}"
        );
    }
    // `no` and `yes` are text, as in YAML 1.2: they need no quotes and are not booleans.
    assert!(Role::parse(&with("deny: { node_labels: { country: no } }"), "r").is_ok());
}

#[test]
fn attack_35_patterns_are_bounded_and_cannot_leave_their_anchors() {
    for pattern in [
        r"^)|(?:$",
        r"^a)|(b$",
        r"^(a$",
        r"^a\$",
        r"^(?x)a#$",
        r"^\w{500}$",
        r"^(((a{100}){100}){100})$",
        r"^(?=a)$",
        r"^(a)\1$",
        r"^[z-a]$",
        "^*$",
        "$",
        "^",
    ] {
        let yaml = with(&format!("allow: {{ logins: ['{pattern}'] }}"));
        let (_, _, message) = refusal(&yaml);
        assert!(message.contains("pattern"), "{pattern}: {message}");
    }
    let nested = format!("^{}{}$", "(".repeat(100), ")".repeat(100));
    let (_, _, message) = refusal(&with(&format!("allow: {{ logins: ['{nested}'] }}")));
    assert!(message.contains("pattern"), "{message}");
}

#[test]
fn a_refusal_shows_the_value_and_what_the_compiler_says() {
    for (line, said) in [
        (
            "allow: { logins: [\"^prod\"] }",
            "`^prod` is half a pattern",
        ),
        ("allow: { logins: [\"a*b\"] }", "`a*b` is not a value"),
        (
            "allow: { logins: [\"^[z-a]$\"] }",
            "`^[z-a]$` is not a pattern: invalid character class range",
        ),
        (
            "allow: { logins: [\"{{internal.x}}{{internal.y}}\"] }",
            "`{{internal.x}}{{internal.y}}` is not a template: write one",
        ),
        (
            "allow: { logins: [\"{{internal.x!}}\"] }",
            "`!}}` is not an expression",
        ),
        (
            "allow: { logins: ['{{regexp.replace(internal.x, \"^(a)$\", \"$2\")}}'] }",
            "`$2` in the replacement",
        ),
        (
            "options: { source_networks: [\"10.0.0.1/8\"] }",
            "`10.0.0.1/8` is not a network",
        ),
        (
            "options: { require_session_mfa: \"To TP\" }",
            "`To TP` is not a second factor",
        ),
    ] {
        let (_, _, message) = refusal(&with(line));
        assert!(message.contains(said), "{line}: {message}");
    }
}

#[test]
fn a_value_may_be_as_long_as_the_bound_and_no_longer() {
    let of = |length: usize| {
        let value = "x".repeat(length);
        Role::parse(
            &with(&format!("deny: {{ node_labels: {{ env: {value} }} }}")),
            "r",
        )
    };
    assert!(of(budget::MAX_VALUE_BYTES).is_ok());
    assert!(of(budget::MAX_VALUE_BYTES + 1).is_err());
}

/// A pattern in a template is one, too.
#[test]
fn patterns_in_templates_count() {
    let roles = (0..8).flat_map(|n| {
        let many: Vec<String> = (0..budget::MAX_VALUES)
            .map(|v| format!("'{{{{regexp.replace(user.name, \"^a{v}$\", \"b\")}}}}'"))
            .collect();
        let line = format!("allow: {{ logins: [{}] }}", many.join(", "));
        Role::parse(&with(&line).replace("name: r", &format!("name: r{n}")), "r").unwrap()
    });
    const { assert!(8 * budget::MAX_VALUES > budget::MAX_PATTERNS) };
    let refused = PolicySet::compile(roles).unwrap_err();
    assert!(matches!(refused, PolicyError::Patterns(_)), "{refused}");
}

/// The bound of patterns counts patterns, not values.
#[test]
fn plain_values_and_templates_are_no_patterns() {
    let each = |value: fn(usize) -> String| {
        let many: Vec<String> = (0..budget::MAX_VALUES).map(value).collect();
        many.join(", ")
    };
    let plain = each(|n| format!("v{n}"));
    let templates = each(|n| format!("\"{{{{internal.t{n}}}}}\""));
    let roles = (0..10).flat_map(|n| {
        let line = format!("allow: {{ node_labels: {{ env: [{plain}] }}, logins: [{templates}] }}");
        Role::parse(&with(&line).replace("name: r", &format!("name: r{n}")), "r").unwrap()
    });
    PolicySet::compile(roles).unwrap();
}

#[test]
fn attack_36_templates_have_one_form() {
    for template in [
        "{{internal.x",
        "internal.x}}",
        "{{}}",
        "{{x}}",
        "{{internal}}",
        "{{internal.}}",
        "{{internal.x.y}}",
        "{{Internal.x}}",
        "{{internal[x]}}",
        r#"{{internal[\"\"]}}"#,
        "{{internal.x}}{{internal.y}}",
        "{{internal.{{internal.x}}}}",
        "{{user.traits}}",
        "{{email.local(x)}}",
        "{{email.local(external.x}}",
        "{{email.local(email.local(external.x))}}",
        r#"{{regexp.replace(external.x, \"a\", \"b\")}}"#,
        r#"{{regexp.replace(external.x, \"^a$\")}}"#,
        r#"{{regexp.replace(external.x, \"^(a$\", \"b\")}}"#,
        r#"{{regexp.replace(external.x, \"^a$\", \"$1\")}}"#,
        r#"{{regexp.replace(external.x, \"^(a)$\", \"$2\")}}"#,
        r#"{{regexp.replace(external.x, \"^(a)$\", \"$0\")}}"#,
        r#"{{regexp.replace(external.x, \"^(a)$\", \"${1}\")}}"#,
        r#"{{regexp.replace(external.x, \"^(a)$\", \"$\")}}"#,
    ] {
        let (_, _, message) = refusal(&with(&format!("allow: {{ logins: [\"{template}\"] }}")));
        assert!(message.contains("template"), "{template}: {message}");
    }
    for template in [
        "{{ internal.x }}",
        "a-{{internal.x}}-b",
        "{{user.name}}",
        r#"{{external[\"http://schemas.example/claims/Group\"]}}"#,
        "{{email.local( external.email )}}",
        r#"{{regexp.replace(external.x, \"^([a-z]{2})}}-.*$\", \"a$1b$$\")}}"#,
    ] {
        let yaml = with(&format!("allow: {{ logins: [\"{template}\"] }}"));
        assert_eq!(Role::parse(&yaml, "r").map(|_| ()), Ok(()), "{template}");
    }
}

#[test]
fn attack_40_kind_version_and_names_are_exact() {
    let good = with("{}");
    assert!(Role::parse(&good, "r").is_ok());
    for (from, to) in [
        ("kind: role", "kind: Role"),
        ("kind: role", "kind: user"),
        ("kind: role", "kind: [role]"),
        ("kind: role\n", ""),
        ("version: v1", "version: v0"),
        ("version: v1", "version: V1"),
        ("version: v1", "version: v10"),
        ("version: v1", "version: 1"),
        ("version: v1\n", ""),
        ("name: r", "name: R"),
        ("name: r", "name: ../r"),
        ("name: r", "name: r, name: s"),
        ("name: r", "name: r, id: 7"),
        ("{ name: r }", "{}"),
        ("kind: role", "kind: role\nrevision: 7"),
        ("kind: role", "kind: role\nkind: role"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        assert!(Role::parse(&bad, "r").is_err(), "{bad}");
    }
    let mut json = Role::parse(&good, "r").unwrap()[0].to_json();
    json["spec"]["allow"]["admin"] = true.into();
    assert!(serde_json::from_value::<Role>(json).is_err());
}

#[test]
fn aliases_merge_keys_and_tags_are_refused() {
    for text in [
        with("allow: &a { logins: [x] }\n  deny: *a"),
        with("allow: { logins: [&a x, *a] }"),
        with("allow: { <<: { logins: [x] } }"),
        with("allow: { logins: [!secret x] }"),
        with(&"[".repeat(1000)),
    ] {
        assert!(Role::parse(&text, "r").is_err(), "{text}");
    }
}

#[test]
fn what_is_no_list_and_no_map_is_told_what_belongs_there() {
    let role = |spec: serde_json::Value| {
        let metadata = serde_json::json!({ "name": "r" });
        let role = serde_json::json!({ "kind": "role", "version": "v1", "metadata": metadata, "spec": spec });
        serde_json::from_value::<Role>(role)
            .unwrap_err()
            .to_string()
    };
    for (spec, wanted) in [
        (
            serde_json::json!({ "allow": { "logins": "x" } }),
            "a list of 0 to 256 entries",
        ),
        (
            serde_json::json!({ "deny": { "logins": "x" } }),
            "a list of 1 to 256 entries",
        ),
        (
            serde_json::json!({ "allow": { "node_labels": "x" } }),
            "1 to 64 labels with what they have to be",
        ),
    ] {
        let message = role(spec);
        assert!(message.contains(wanted), "{message}");
    }
}

#[test]
fn bounds_have_errors_of_their_own() {
    let long = with(&"#".repeat(budget::MAX_DOCUMENT_BYTES));
    assert!(matches!(
        Role::parse(&long, "r"),
        Err(RoleError::TooLong { .. })
    ));
    let head = with("{}");
    let longest = format!(
        "{head}{}",
        "#".repeat(budget::MAX_DOCUMENT_BYTES - head.len())
    );
    assert!(Role::parse(&longest, "r").is_ok());

    let many = vec!["x"; budget::MAX_VALUES + 1].join(", ");
    let (_, _, message) = refusal(&with(&format!("allow: {{ logins: [{many}] }}")));
    assert!(message.contains("too long: at most 256"), "{message}");

    let keys: Vec<String> = (0..=budget::MAX_LABEL_KEYS)
        .map(|n| format!("k{n}: v"))
        .collect();
    let (_, _, message) = refusal(&with(&format!(
        "deny: {{ node_labels: {{ {} }} }}",
        keys.join(", ")
    )));
    assert!(message.contains("too many labels"), "{message}");

    let value = "x".repeat(budget::MAX_VALUE_BYTES + 1);
    let (_, _, message) = refusal(&with(&format!(
        "deny: {{ node_labels: {{ env: {value} }} }}"
    )));
    assert!(message.contains("at most 1024 bytes"), "{message}");
}

#[test]
fn a_policy_has_bounds_of_its_own() {
    let role = |name: &str, spec: &str| {
        Role::parse(
            &with(spec).replace("name: r", &format!("name: {name}")),
            name,
        )
        .unwrap()
        .remove(0)
    };
    let twice = [role("a", "{}"), role("a", "allow: { logins: [x] }")];
    assert_eq!(
        PolicySet::compile(twice).unwrap_err(),
        PolicyError::Duplicate("a".parse().unwrap())
    );
    let many = (0..=budget::MAX_ROLES).map(|n| role(&format!("r{n}"), "{}"));
    assert!(matches!(
        PolicySet::compile(many),
        Err(PolicyError::Roles(_))
    ));

    let patterns: Vec<String> = (0..200).map(|n| format!("\"^a{n}$\"")).collect();
    let spec = format!("deny: {{ logins: [{}] }}", patterns.join(", "));
    let many = (0..=budget::MAX_PATTERNS / 200).map(|n| role(&format!("r{n}"), &spec));
    assert_eq!(
        PolicySet::compile(many).unwrap_err(),
        PolicyError::Patterns("r10".parse().unwrap())
    );
}
