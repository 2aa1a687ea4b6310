//! `tokens add`.

use clap::{Args, Subcommand};
use mezite_api::v1::CreateTokenRequest;
use mezite_core::{NodeName, Span, UnixTime};
use serde_json::json;

use super::{labels, shell_word};
use crate::fail::Failure;
use crate::hub::{Hub, Introduction, within};
use crate::out::{self, Format};

/// What `tokens` takes.
#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// Make a one-time token with which a node joins; it is shown this once.
    #[command(
        after_help = "Example:\n  mezctl tokens add --node-name web --label env=prod --ttl 1h"
    )]
    Add(AddArgs),
}

/// What `tokens add` takes.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The only name with which a node may join.
    #[arg(long, value_name = "NAME")]
    node_name: Option<NodeName>,
    /// How long it is good; an hour by default.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// A label that the node gets; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// How the node reaches the hub, for the command that is printed.
    #[arg(long, value_name = "HOST:PORT")]
    proxy: Option<String>,
    /// How to show the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(command: &Tokens, hub: &mut Hub) -> Result<(), Failure> {
    let Tokens::Add(args) = command;
    let request = CreateTokenRequest {
        ttl_seconds: args.ttl.map_or(0, Span::as_secs),
        labels: labels(&args.labels)?,
        node_name: args
            .node_name
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    };
    let made = within(hub.client.create_token(request)).await?;
    let expires = UnixTime::from_millis(made.expires_ms);
    let Introduction { address, .. } = hub.introduction(args.proxy.as_deref()).await?;
    let join = join_line(&address, &made.token, &made.ca_pin, args.node_name.as_ref());
    let value = json!({
        "id": made.id, "token": made.token, "expires": expires.to_string(), "ca_pin": made.ca_pin, "join": join,
    });
    match args.output {
        Format::Json => out::json(&value),
        Format::Yaml => out::yaml(&value),
        Format::Table => {
            out::line(format_args!(
                "token:   {}   (shown this once)",
                out::plain(&made.token)
            ))?;
            out::line(format_args!("pin:     {}", out::plain(&made.ca_pin)))?;
            out::line(format_args!("expires: {expires}"))?;
            out::line(format_args!("join:    {join}"))
        }
    }
}

fn join_line(proxy: &str, token: &str, pin: &str, name: Option<&NodeName>) -> String {
    let (proxy, token, pin) = (shell_word(proxy), shell_word(token), shell_word(pin));
    let name = name
        .map(|name| format!(" --name {name}"))
        .unwrap_or_default();
    format!("mezd join --hub {proxy} --token {token} --ca-pin {pin}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_join_line_names_the_node_when_the_token_does() {
        let name = "web".parse().unwrap();
        let line = join_line("hub:3080", "mzt-1", "sha256:ab", Some(&name));
        assert_eq!(
            line,
            "mezd join --hub hub:3080 --token mzt-1 --ca-pin sha256:ab --name web"
        );
        assert!(join_line("hub:3080", "mzt-1", "sha256:ab", None).ends_with(":ab"));
    }
}
