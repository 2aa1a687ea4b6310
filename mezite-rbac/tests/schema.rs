//! The schema of role documents: fresh, and of one mind with the reader.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test"
)]

use std::path::Path;

use mezite_rbac::{Resource, Role, Verb, builtin_roles, role_schema};
use serde_json::{Value, json};

const FULL: &str = include_str!("../../fuzz/rbac/corpus/document/full.yaml");

#[test]
fn the_checked_in_schema_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("role.schema.json");
    let fresh = serde_json::to_string_pretty(&role_schema()).unwrap() + "\n";
    if std::env::var_os("MEZITE_WRITE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == fresh,
        "{} is stale: run with MEZITE_WRITE_SNAPSHOTS=1 and look at what changed",
        path.display()
    );
}

#[test]
fn the_schema_accepts_what_the_reader_accepts() {
    let full = Role::parse(FULL, "full").unwrap();
    for role in full.iter().chain(&builtin_roles()) {
        let json = role.to_json();
        assert_eq!(faults(&json), Vec::<String>::new(), "{json:#}");
    }
}

/// Every key that the reader knows is in the schema, and the other way round.
#[test]
fn schema_and_reader_know_the_same_keys() {
    let full = Role::parse(FULL, "full").unwrap();
    let known = keys(&full.first().unwrap().to_json(), "");
    let mut schema = Vec::new();
    properties(&role_schema(), &role_schema(), "", &mut schema);
    schema.sort();
    // An empty factor is the same as none and is not written.
    schema.retain(|key| key != "/spec/options/require_session_mfa");
    let mut known: Vec<String> = known
        .into_iter()
        .filter(|key| !key.contains("/node_labels/"))
        .collect();
    known.sort();
    known.dedup();
    assert_eq!(known, schema);
}

#[test]
fn whatever_the_schema_refuses_the_reader_refuses() {
    let good = json!({
        "kind": "role", "version": "v1", "metadata": { "name": "r" },
        "spec": {
            "options": { "max_session_ttl": "1h", "max_sessions": 3, "record": { "on_failure": "suspend" }, "source_networks": ["10.0.0.0/8"] },
            "allow": { "node_labels": { "env": "dev" }, "logins": ["x"], "rules": [{ "resources": ["node"], "verbs": ["list"] }] },
            "deny": { "combined": [{ "node_labels": { "env": ["prod"] }, "logins": ["root"] }] },
        },
    });
    assert_eq!(faults(&good), Vec::<String>::new());
    let long = "x".repeat(1025);
    let many: Vec<String> = (0..257).map(|index| format!("l{index}")).collect();
    for (pointer, value) in [
        ("/kind", json!("Role")),
        ("/kind", json!(null)),
        ("/version", json!("v2")),
        ("/metadata/name", json!("a b")),
        ("/metadata/name", json!("a-")),
        ("/metadata/name", json!("x".repeat(64))),
        ("/metadata", json!({})),
        ("/metadata", json!([])),
        ("/spec/options/max_session_ttl", json!("soon")),
        ("/spec/options/max_session_ttl", json!(3600)),
        ("/spec/options/max_sessions", json!(0)),
        ("/spec/options/max_sessions", json!(4_294_967_296_u64)),
        ("/spec/options/max_sessions", json!("3")),
        ("/spec/options/record/on_failure", json!("ignore")),
        ("/spec/options/source_networks", json!([])),
        ("/spec/options", json!({ "port_forwarding": "no" })),
        ("/spec/options", json!({ "forward_destinations": [] })),
        (
            "/spec/options",
            json!({ "forward_listen": vec!["*:*"; 33] }),
        ),
        ("/spec/options", json!({ "max_session_tll": "1h" })),
        ("/spec/options", json!({ "require_session_mfa": "T O" })),
        ("/spec/allow/node_labels", json!({})),
        ("/spec/allow/node_labels", json!({ "Env": "x" })),
        ("/spec/allow/node_labels", json!({ "env": 1 })),
        ("/spec/allow/node_labels", json!({ "env": [] })),
        ("/spec/allow/logins", json!("x")),
        ("/spec/allow/logins", json!([long])),
        ("/spec/allow/logins", json!(many)),
        ("/spec/allow", json!({ "node_label_sources": [] })),
        ("/spec/allow", json!({ "node_label_sources": ["Agent"] })),
        ("/spec/allow/rules/0/resources", json!(["nodes"])),
        ("/spec/allow/rules/0/verbs", json!([])),
        ("/spec/allow/rules/0", json!({ "resources": ["node"] })),
        (
            "/spec/allow/rules/0",
            json!({ "resources": ["node"], "verbs": ["list"], "where": "mine" }),
        ),
        ("/spec/deny/combined/0", json!({ "logins": ["root"] })),
        ("/spec/deny/combined/0/logins", json!([])),
        ("/spec/deny", json!({ "logins": [] })),
        ("/spec/deny", json!({ "node_label_sources": ["agent"] })),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert!(
            !faults(&bad).is_empty(),
            "the schema accepts {pointer}: {bad}"
        );
        assert!(
            serde_json::from_value::<Role>(bad.clone()).is_err(),
            "the reader accepts {bad}"
        );
    }
}

#[test]
fn every_word_is_in_the_schema() {
    let rule = &role_schema()["$defs"]["rule"]["properties"];
    let words = |key: &str| rule[key]["items"]["enum"].as_array().unwrap().len();
    assert_eq!(words("resources"), Resource::ALL.len());
    assert_eq!(words("verbs"), Verb::ALL.len());
}

/// The paths of all keys in a value; list entries have none of their own.
fn keys(value: &Value, path: &str) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, inner)| {
                let path = format!("{path}/{key}");
                let inner = keys(inner, &path);
                std::iter::once(path).chain(inner)
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(|entry| keys(entry, path)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// The paths of all properties in a schema.
fn properties(schema: &Value, root: &Value, path: &str, found: &mut Vec<String>) {
    let schema = resolve(schema, root);
    if let Some(items) = schema.get("items") {
        properties(items, root, path, found);
    }
    for (key, inner) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let path = format!("{path}/{key}");
        properties(inner, root, &path, found);
        found.push(path);
    }
}

fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(target) => root.pointer(target.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// What the schema finds wrong: as much of JSON Schema as the schema uses, and a panic at any other keyword.
fn faults(value: &Value) -> Vec<String> {
    let schema = role_schema();
    let mut faults = Vec::new();
    check(value, &schema, &schema, &mut faults);
    if !faults.is_empty() {
        println!("{faults:?}");
    }
    faults
}

fn check(value: &Value, schema: &Value, root: &Value, faults: &mut Vec<String>) {
    for (keyword, wanted) in schema.as_object().unwrap() {
        let fits = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "properties" => true,
            "$ref" => {
                check(value, resolve(schema, root), root, faults);
                true
            }
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "type" => match wanted.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_u64(),
                "boolean" => value.is_boolean(),
                other => panic!("type {other}"),
            },
            "required" => {
                let mut names = wanted.as_array().unwrap().iter();
                names.all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "additionalProperties" => additional(value, schema, root, faults),
            "propertyNames" => value
                .as_object()
                .is_none_or(|map| map.keys().all(|key| matches(&wanted["pattern"], key))),
            "minProperties" => size(value.as_object().map(|map| map.len())) >= wanted.as_u64(),
            "maxProperties" => value
                .as_object()
                .is_none_or(|map| size(Some(map.len())) <= wanted.as_u64()),
            "items" => {
                for entry in value.as_array().into_iter().flatten() {
                    check(entry, wanted, root, faults);
                }
                true
            }
            "minItems" => size(value.as_array().map(Vec::len)) >= wanted.as_u64(),
            "maxItems" => value
                .as_array()
                .is_none_or(|list| size(Some(list.len())) <= wanted.as_u64()),
            "minimum" => value.as_u64() >= wanted.as_u64(),
            "maximum" => value.as_u64() <= wanted.as_u64(),
            "maxLength" => size(value.as_str().map(|text| text.chars().count())) <= wanted.as_u64(),
            "pattern" => value.as_str().is_none_or(|text| matches(wanted, text)),
            "oneOf" => {
                let fitting = wanted.as_array().unwrap().iter().filter(|one| {
                    let mut inner = Vec::new();
                    check(value, one, root, &mut inner);
                    inner.is_empty()
                });
                fitting.count() == 1
            }
            other => panic!("the test does not know the keyword {other}"),
        };
        if !fits {
            faults.push(format!("{value} is against {keyword}: {wanted}"));
        }
    }
}

fn additional(value: &Value, schema: &Value, root: &Value, faults: &mut Vec<String>) -> bool {
    let mut fits = true;
    for (key, inner) in value.as_object().into_iter().flatten() {
        match (
            schema.pointer(&format!("/properties/{key}")),
            &schema["additionalProperties"],
        ) {
            (Some(known), _) => check(inner, known, root, faults),
            (None, Value::Bool(false)) => fits = false,
            (None, other) => check(inner, other, root, faults),
        }
    }
    fits
}

fn size(count: Option<usize>) -> Option<u64> {
    count.and_then(|count| u64::try_from(count).ok())
}

fn matches(pattern: &Value, text: &str) -> bool {
    regex::Regex::new(pattern.as_str().unwrap())
        .unwrap()
        .is_match(text)
}
