//! `get`, `apply`, `rm`: users, roles, nodes, tokens and locks as documents.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use mezite_api::v1::{
    ApplyResourceRequest, GetResourceRequest, ListNodesRequest, ListResourcesRequest,
    RemoveResourceRequest, Resource,
};
use serde_json::{Value, json};

use crate::fail::Failure;
use crate::files;
use crate::hub::{Hub, within};
use crate::out::{self, Format, Table};

/// What `get` takes.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// user, role, node, token or lock; KIND/NAME and plurals are understood.
    kind: String,
    /// Which one; all by default.
    name: Option<String>,
    /// How to show them.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What `apply` takes.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// YAML or JSON, one or several documents; `-` for standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Refuse to replace what is there.
    #[arg(long)]
    create_only: bool,
}

/// What `rm` takes.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// user, role, node, token or lock; or KIND/NAME.
    kind: String,
    /// Which one.
    name: Option<String>,
}

/// `KIND NAME` or `KIND/NAME`; the kind in the singular.
fn named(kind: &str, name: Option<&str>) -> (String, Option<String>) {
    let (kind, name) = match (kind.split_once('/'), name) {
        (Some((kind, name)), None) => (kind, Some(name)),
        _ => (kind, name),
    };
    let singular = ["user", "role", "node", "token", "lock"]
        .into_iter()
        .find(|known| kind.strip_suffix('s') == Some(known));
    (singular.unwrap_or(kind).to_owned(), name.map(str::to_owned))
}

pub(crate) async fn get(args: &GetArgs, hub: &mut Hub) -> Result<(), Failure> {
    let (kind, name) = named(&args.kind, args.name.as_deref());
    let alone = name.is_some();
    let resources = match name {
        Some(name) => {
            let request = GetResourceRequest {
                kind: kind.clone(),
                name,
            };
            within(hub.client.get_resource(request))
                .await?
                .resource
                .into_iter()
                .collect()
        }
        None => {
            let request = ListResourcesRequest { kind: kind.clone() };
            within(hub.client.list_resources(request)).await?.resources
        }
    };
    let mut documents = resources
        .iter()
        .map(document)
        .collect::<Result<Vec<_>, _>>()?;
    if kind == "node" {
        add_status(&mut documents, hub).await;
    }
    match args.output {
        Format::Table => out::line(table(&kind, &documents)),
        Format::Yaml => many(&documents),
        Format::Json => match documents.as_slice() {
            [one] if alone => out::json(one),
            all => out::json(&all.iter().cloned().collect()),
        },
    }
}

fn document(resource: &Resource) -> Result<Value, Failure> {
    serde_json::from_str(&resource.document).map_err(|error| {
        Failure::failed(format_args!("the hub sent an unreadable document: {error}"))
    })
}

/// Whether nodes are online is no part of their documents. Callers who may not ask see the documents alone.
async fn add_status(documents: &mut [Value], hub: &mut Hub) {
    let Ok(answer) = within(hub.client.list_nodes(ListNodesRequest::default())).await else {
        return;
    };
    let online: BTreeMap<_, _> = answer
        .nodes
        .into_iter()
        .map(|node| (node.id, node.online))
        .collect();
    for document in documents {
        let id = text(document, "/metadata/id");
        if let (Some(online), Some(fields)) = (online.get(&id), document.as_object_mut()) {
            fields.insert("status".to_owned(), json!({ "online": online }));
        }
    }
}

/// A stream of YAML documents, as `apply` reads it.
fn many(documents: &[Value]) -> Result<(), Failure> {
    for (index, document) in documents.iter().enumerate() {
        if index > 0 {
            out::line("---")?;
        }
        out::yaml(document)?;
    }
    Ok(())
}

fn table(kind: &str, documents: &[Value]) -> Table {
    let columns: &[(&str, &str)] = match kind {
        "user" => &[
            ("USER", "/metadata/name"),
            ("ROLES", "/spec/roles"),
            ("LOGINS", "/spec/traits/logins"),
        ],
        "role" => &[
            ("ROLE", "/metadata/name"),
            ("DESCRIPTION", "/metadata/description"),
        ],
        "node" => &[
            ("NODE", "/metadata/name"),
            ("KIND", "/spec/kind"),
            ("LABELS", "/spec/labels"),
            ("TOKEN LABELS", "/spec/token_labels"),
            ("ONLINE", "/status/online"),
            ("ID", "/metadata/id"),
        ],
        "token" => &[
            ("TOKEN", "/metadata/name"),
            ("NODE", "/spec/node_name"),
            ("EXPIRES", "/spec/expires"),
            ("USED BY", "/spec/used_by"),
        ],
        "lock" => &[
            ("LOCK", "/metadata/name"),
            ("TARGET", "/spec/target"),
            ("REASON", "/spec/reason"),
            ("EXPIRES", "/spec/expires"),
        ],
        _ => &[("NAME", "/metadata/name")],
    };
    let head: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
    let mut table = Table::new(&head);
    for document in documents {
        table.cells(columns.iter().map(|(_, place)| text(document, place)));
    }
    table
}

/// What stands at a place, in one cell.
fn text(document: &Value, place: &str) -> String {
    match document.pointer(place) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => {
            let words: Vec<String> = list.iter().map(|value| text(value, "")).collect();
            words.join(",")
        }
        Some(Value::Object(map)) => {
            let words: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}={}", text(value, "")))
                .collect();
            words.join(",")
        }
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(Value::Number(number)) => number.to_string(),
    }
}

pub(crate) async fn apply(args: &ApplyArgs, hub: &mut Hub) -> Result<(), Failure> {
    let text = files::read(&args.file)?;
    let documents = split(&text);
    if documents.is_empty() {
        let path = args.file.display();
        return Err(Failure::usage(format_args!("`{path}` holds no document")));
    }
    for (index, document) in documents.iter().enumerate() {
        let request = ApplyResourceRequest {
            document: document.clone(),
            create_only: args.create_only,
        };
        let applied = within(hub.client.apply_resource(request))
            .await
            .map_err(|failure| {
                let path = args.file.display();
                Failure::new(
                    failure.code,
                    format_args!("{path}, document {}: {failure}", index + 1),
                )
            })?;
        if let Some(Resource { kind, name, .. }) = applied.resource {
            let done = if applied.created {
                "created"
            } else {
                "updated"
            };
            out::line(out::plain(&format!("{kind}/{name} {done}")))?;
        }
    }
    Ok(())
}

/// The documents of a YAML stream, each as it was written.
fn split(text: &str) -> Vec<String> {
    let documents = split_at(text).into_iter();
    documents.map(|(_, document)| document).collect()
}

/// The documents of a YAML stream, each as it was written and with the number of lines before it. `---` in the first column is
/// always a mark (YAML 1.2, 9.1.2).
pub(crate) fn split_at(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(0, String::new())];
    for (number, line) in text.lines().enumerate() {
        let rest = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        match (rest, documents.last_mut()) {
            (Some(rest), _) => documents.push((number, format!("{}\n", rest.trim_start()))),
            (None, Some((_, last))) => last.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    let says = |document: &str| {
        document
            .lines()
            .map(str::trim)
            .any(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with('%'))
    };
    documents.retain(|(_, document)| says(document));
    documents
}

pub(crate) async fn rm(args: &RmArgs, hub: &mut Hub) -> Result<(), Failure> {
    let (kind, Some(name)) = named(&args.kind, args.name.as_deref()) else {
        return Err(Failure::usage(
            "which one? Write for example `mezctl rm user alice`",
        ));
    };
    let request = RemoveResourceRequest {
        kind: kind.clone(),
        name: name.clone(),
    };
    within(hub.client.remove_resource(request)).await?;
    out::line(out::plain(&format!("{kind}/{name} removed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_understood_in_every_form() {
        let pair = |kind: &str, name: Option<&str>| (kind.to_owned(), name.map(str::to_owned));
        assert_eq!(named("nodes", None), pair("node", None));
        assert_eq!(named("user", Some("alice")), pair("user", Some("alice")));
        assert_eq!(named("node/web", None), pair("node", Some("web")));
        assert_eq!(named("bus", None), pair("bus", None));
    }

    #[test]
    fn a_stream_is_cut_at_its_marks_only() {
        let text =
            "# head\n---\nkind: user\nnote: |\n  ---\n  a --- b\n--- # second\nkind: role\n---\n\n";
        let documents = split(text);
        assert_eq!(
            documents,
            [
                "kind: user\nnote: |\n  ---\n  a --- b\n".to_owned(),
                "# second\nkind: role\n".to_owned()
            ]
            .map(|d| if d.starts_with("kind: user") {
                format!("\n{d}")
            } else {
                d
            })
        );
        assert_eq!(split("{\"kind\":\"user\"}").len(), 1);
        assert!(split("# nothing\n---\n").is_empty());
    }

    #[test]
    fn cells_show_lists_and_maps() {
        let lock = json!({ "metadata": { "name": "l1" }, "spec": { "target": { "user": "bob" }, "reason": "left" } });
        assert_eq!(
            table("lock", &[lock]).to_string(),
            "LOCK  TARGET    REASON  EXPIRES\nl1    user=bob  left"
        );
        let user =
            json!({ "metadata": { "name": "a" }, "spec": { "roles": ["x", "y"], "traits": {} } });
        assert_eq!(
            table("user", &[user]).to_string(),
            "USER  ROLES  LOGINS\na     x,y"
        );
    }
}
