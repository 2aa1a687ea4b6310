//! `can` and `who-can`: what the rules allow, asked before somebody tries.

use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;
use mezite_api::v1::{CanRequest, WhoCanRequest, WhoCanResponse};
use mezite_core::name::NameError;
use mezite_core::{Login, NodeName, UserName};
use mezite_rbac::Action;
use serde_json::{Value, json};

use crate::fail::{Code, Failure};
use crate::hub::{Hub, within};
use crate::out::{self, Format, Table};

/// What `can` takes.
#[derive(Debug, Args)]
pub(crate) struct CanArgs {
    /// Who.
    user: UserName,
    /// As which account on which node.
    #[arg(value_name = "LOGIN@NODE")]
    target: Target,
    /// What for: shell, exec, sftp, port-forwarding or agent-forwarding.
    #[arg(long, default_value = "shell")]
    action: Action,
    /// From this address; by default from wherever the roles admit.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What `who-can` takes.
#[derive(Debug, Args)]
pub(crate) struct WhoCanArgs {
    /// Which account on which node; a node alone asks about every account, none about every node.
    #[arg(value_name = "[LOGIN@]NODE")]
    target: Option<Place>,
    /// Only this user: what may she reach?
    #[arg(long)]
    user: Option<UserName>,
    /// Only this account, on every node.
    #[arg(long, conflicts_with = "target")]
    login: Option<Login>,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// `login@node`. Neither name holds an `@`.
#[derive(Clone, Debug)]
struct Target {
    login: Login,
    node: NodeName,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Place { login, node } = text.parse()?;
        let login =
            login.ok_or_else(|| format!("it names no account: write for example deploy@{node}"))?;
        Ok(Self { login, node })
    }
}

/// A node, and perhaps an account on it.
#[derive(Clone, Debug)]
struct Place {
    login: Option<Login>,
    node: NodeName,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let said = |error: NameError| error.to_string();
        let (login, node) = match text.split_once('@') {
            None => (None, text),
            Some((login, node)) => (Some(login.parse().map_err(said)?), node),
        };
        let node = node.parse().map_err(said)?;
        Ok(Self { login, node })
    }
}

/// Says yes with exit code 0, no with 1.
pub(crate) async fn can(args: &CanArgs, hub: &mut Hub) -> Result<(), Failure> {
    let Target { login, node } = &args.target;
    let request = CanRequest {
        user: args.user.to_string(),
        login: login.to_string(),
        node: node.to_string(),
        action: args.action.to_string(),
        client_ip: args.from.map(|from| from.to_string()).unwrap_or_default(),
    };
    let found = within(hub.client.can(request)).await?;
    let value = || serde_json::from_str::<Value>(&found.answer).map_err(Failure::failed);
    match args.output {
        Format::Json => out::json(&value()?)?,
        Format::Yaml => out::yaml(&value()?)?,
        Format::Table => out::lines(&found.text)?,
    }
    if found.allowed {
        return Ok(());
    }
    Err(Failure::new(Code::Failed, ""))
}

pub(crate) async fn who_can(args: &WhoCanArgs, hub: &mut Hub) -> Result<(), Failure> {
    let place = args.target.as_ref();
    let login = place
        .and_then(|place| place.login.as_ref())
        .or(args.login.as_ref());
    let node = place.map(|place| &place.node);
    let text = |name: Option<String>| name.unwrap_or_default();
    let request = WhoCanRequest {
        user: text(args.user.as_ref().map(ToString::to_string)),
        node: text(node.map(ToString::to_string)),
        login: text(login.map(ToString::to_string)),
    };
    let mut answers = within(hub.client.who_can(request)).await?;
    let mut found = Vec::new();
    while let Some(answer) = answers.message().await? {
        found.push(answer);
    }
    if found.is_empty() && args.output == Format::Table {
        return out::line("nobody");
    }
    let value: Value = found.iter().map(value).collect();
    out::show(args.output, &value, || table(&found))
}

fn value(one: &WhoCanResponse) -> Value {
    json!({
        "user": one.user, "logins": one.logins, "patterns": one.patterns, "nodes": one.nodes,
        "exhausted": one.exhausted,
    })
}

/// Nodes beyond this are counted, not named: programs have `-o json`.
const NAMED: usize = 8;

fn table(found: &[WhoCanResponse]) -> Table {
    let mut table = Table::new(&["USER", "LOGINS", "NODES"]);
    for one in found {
        let logins: Vec<&str> = one
            .logins
            .iter()
            .chain(&one.patterns)
            .map(String::as_str)
            .collect();
        let logins = if one.exhausted {
            "too large to say".to_owned()
        } else {
            logins.join(",")
        };
        let named: Vec<&str> = one.nodes.iter().take(NAMED).map(String::as_str).collect();
        let more = match one.nodes.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        table.row(&[
            one.user.clone(),
            logins,
            format!("{}{more}", named.join(",")),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_account_on_a_node() {
        let target: Target = "deploy@web".parse().unwrap();
        assert_eq!(
            (target.login.as_str(), target.node.as_str()),
            ("deploy", "web")
        );
        for bad in ["web", "@web", "deploy@", "a@b@c", "de ploy@web"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
        let said = "web".parse::<Target>().unwrap_err();
        assert!(said.contains("deploy@web"), "{said}");
        assert!("web".parse::<Place>().unwrap().login.is_none());
        assert!("web*".parse::<Place>().is_err());
    }

    #[test]
    fn a_long_list_of_nodes_is_counted() {
        let one = WhoCanResponse {
            user: "alice".into(),
            logins: vec!["deploy".into()],
            patterns: vec!["*".into()],
            nodes: (0..10).map(|index| format!("n{index}")).collect(),
            exhausted: false,
        };
        assert_eq!(
            table(&[one]).to_string(),
            "USER   LOGINS    NODES\nalice  deploy,*  n0,n1,n2,n3,n4,n5,n6,n7 and 2 more"
        );
    }
}
