//! `ls`: the nodes on which the caller may use at least one login.

use std::collections::BTreeMap;

use clap::Args;
use mezite_api::v1::{ListNodesRequest, Node};
use serde_json::{Value, json};

use crate::fail::Failure;
use crate::home::Login;
use crate::hub;
use crate::out::{self, Format, Table};

/// What `ls` takes.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Words that must all be found in the name or in a key=value label.
    #[arg(long, value_name = "WORDS", default_value = "")]
    search: String,
    /// How to show the list.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn ls(args: &LsArgs, login: &Login) -> Result<(), Failure> {
    let nodes = nodes(login, &args.search).await?;
    let value: Value = nodes.iter().map(document).collect();
    out::show(args.output, &value, || table(&nodes))
}

pub(crate) async fn nodes(login: &Login, search: &str) -> Result<Vec<Node>, Failure> {
    let mut client = hub::hub(login).await?;
    let search = search.to_owned();
    Ok(hub::within(client.list_nodes(ListNodesRequest { search }))
        .await?
        .nodes)
}

fn document(node: &Node) -> Value {
    let labels = labels(node);
    json!({
        "id": node.id, "name": node.name, "kind": node.kind, "logins": node.logins, "labels": labels,
        "online": node.online,
    })
}

/// In order of their keys.
fn labels(node: &Node) -> BTreeMap<String, String> {
    node.labels.clone().into_iter().collect()
}

fn table(nodes: &[Node]) -> Table {
    let mut table = Table::new(&["NODE", "LOGINS", "LABELS", "STATUS"]);
    for node in nodes {
        let labels: Vec<_> = labels(node)
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let status = if node.online { "online" } else { "offline" };
        table.row(&[
            node.name.clone(),
            node.logins.join(","),
            labels.join(","),
            status.to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_in_one_cell() {
        let labels = [("team", "db"), ("env", "prod")];
        let node = Node {
            name: "web".to_owned(),
            logins: vec!["deploy".to_owned(), "root".to_owned()],
            labels: labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            online: true,
            ..Node::default()
        };
        assert_eq!(
            table(&[node]).to_string(),
            "NODE  LOGINS       LABELS            STATUS\nweb   deploy,root  env=prod,team=db  online"
        );
    }
}
