//! The JSON schema of role documents, for editors and checks before anything reaches a hub.

use serde_json::{Value, json};

use crate::admin::{Resource, Verb};
use crate::budget::{MAX_FORWARDS, MAX_LABEL_KEYS, MAX_RULES, MAX_VALUE_BYTES, MAX_VALUES};

/// The schema (JSON Schema, draft 2020-12) of a document `kind: role`.
///
/// It says what can be said about the form: keys, types, bounds, closed sets of words. What values mean to each other,
/// [`Role::parse`](crate::Role::parse) alone knows; it refuses everything that the schema refuses.
#[must_use]
pub fn role_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Mezite role",
        "description": "Who may reach which nodes as which logins, and on which conditions.",
        "type": "object",
        "additionalProperties": false,
        "required": ["kind", "version", "metadata"],
        "properties": {
            "kind": { "const": "role" },
            "version": { "const": "v1" },
            "metadata": object(&["name"], &json!({
                "name": {
                    "type": "string",
                    "description": "1 to 63 of a-z 0-9 -, starting and ending with a letter or digit.",
                    "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
                },
                "description": { "type": "string" },
            })),
            "spec": object(&[], &json!({
                "options": options(),
                "allow": allow(),
                "deny": deny(),
            })),
        },
        "$defs": {
            "values": {
                "description": "One value or a list of which one has to match. A value is exact, \"*\", a pattern ^…$, or a template with {{…}}.",
                "oneOf": [value(), list(1, MAX_VALUES, &value())],
            },
            "node_labels": {
                "type": "object",
                "description": "Every key has to match. \"*\": \"*\" stands for every node.",
                "minProperties": 1,
                "maxProperties": MAX_LABEL_KEYS,
                "propertyNames": { "pattern": r"^(\*|[a-z][a-z0-9._/:-]{0,62})$" },
                "additionalProperties": { "$ref": "#/$defs/values" },
            },
            "rule": object(&["resources", "verbs"], &json!({
                "resources": words(Resource::ALL.iter().map(|word| word.as_str())),
                "verbs": words(Verb::ALL.iter().map(|word| word.as_str())),
                "where": { "const": "own", "description": "Only what the user owns." },
            })),
        },
    })
}

fn options() -> Value {
    let span = |description: &str| {
        json!({
            "type": "string",
            "description": description,
            "pattern": "^([0-9]+(d|h|m|s|ms))+$",
        })
    };
    let flag = |description: &str| json!({ "type": "boolean", "description": description });
    object(
        &[],
        &json!({
            "max_session_ttl": span("Most time of a session, and of an identity: 8h, 1h30m."),
            "idle_timeout": span("Most time without input: 30m."),
            "port_forwarding": flag("Whether anything may be forwarded; where to, forward_destinations and forward_listen say."),
            "forward_destinations": list(1, MAX_FORWARDS, &json!({
                "type": "string",
                "description": "Where forwards may lead: db.internal:5432, 10.0.0.0/8:*, [2001:db8::1]:443, *:8080-8090, /run/app.sock, /run/app/*.",
            })),
            "forward_listen": list(1, MAX_FORWARDS, &json!({
                "type": "string",
                "description": "Where a session may listen on its node: localhost:8080-8090, 127.0.0.1:*, /run/user/1000/*.",
            })),
            "file_copy": flag("Whether files may be copied; false unless said."),
            "agent_forwarding": flag("Whether the SSH agent may be forwarded; false unless said."),
            "x11_forwarding": flag("Whether X11 may be forwarded; false unless said."),
            "nested_ssh": flag("Whether another SSH connection may lie inside a forward or a command's stream; false unless said."),
            "record": object(&[], &json!({
                "input": flag("Whether what the user types is recorded, too."),
                "file_content": flag("Whether the content of files that are copied by SFTP or scp is recorded, too."),
                "announce_watchers": flag("Whether the user is told who watches the running session; false unless said."),
                "on_failure": {
                    "enum": ["terminate", "suspend"],
                    "description": "What happens when the recording cannot be written; terminate unless said.",
                },
            })),
            "max_sessions": {
                "type": "integer",
                "description": "Most sessions of the user at the same time.",
                "minimum": 1,
                "maximum": u32::MAX,
            },
            "require_session_mfa": {
                "type": "string",
                "description": "The second factor to show for each session; empty for none.",
                "pattern": "^[a-z0-9-]{0,32}$",
            },
            "source_networks": list(1, MAX_VALUES, &json!({
                "type": "string",
                "description": "10.0.0.0/8, 2001:db8::/32, or an address alone.",
            })),
        }),
    )
}

fn allow() -> Value {
    object(
        &[],
        &json!({
            "node_labels": { "$ref": "#/$defs/node_labels" },
            "node_label_sources": list(1, 3, &json!({ "enum": ["operator", "token", "agent"] })),
            "logins": list(0, MAX_VALUES, &value()),
            "rules": list(0, MAX_RULES, &json!({ "$ref": "#/$defs/rule" })),
        }),
    )
}

fn deny() -> Value {
    let logins = list(1, MAX_VALUES, &value());
    let combined = object(
        &["node_labels", "logins"],
        &json!({ "node_labels": { "$ref": "#/$defs/node_labels" }, "logins": logins }),
    );
    object(
        &[],
        &json!({
            "node_labels": { "$ref": "#/$defs/node_labels" },
            "logins": logins,
            "combined": list(0, MAX_RULES, &combined),
            "rules": list(0, MAX_RULES, &json!({ "$ref": "#/$defs/rule" })),
        }),
    )
}

/// An object with these keys and no others.
fn object(required: &[&str], properties: &Value) -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

fn list(min: usize, max: usize, items: &Value) -> Value {
    json!({ "type": "array", "minItems": min, "maxItems": max, "items": items })
}

fn words<'a>(words: impl Iterator<Item = &'a str>) -> Value {
    let words: Vec<&str> = words.collect();
    list(1, MAX_VALUES, &json!({ "enum": words }))
}

/// `maxLength` counts characters where the bound counts bytes: longer is refused either way.
fn value() -> Value {
    json!({ "type": "string", "maxLength": MAX_VALUE_BYTES })
}
