//! `nodes add --openssh`: a node that runs a stock sshd.

use clap::{Args, Subcommand, ValueEnum};
use mezite_api::request;
use mezite_api::v1::AddOpenSshNodeRequest;
use mezite_core::NodeName;
use serde_json::json;

use super::labels;
use crate::fail::Failure;
use crate::hub::{Hub, within};
use crate::out::{self, Format};

/// What `nodes` takes.
#[derive(Debug, Subcommand)]
pub(crate) enum Nodes {
    /// Add a node that runs a stock sshd, and say what its sshd_config needs. (A node with an agent joins by itself: see
    /// `mezctl tokens add`.)
    #[command(
        after_help = "Example:\n  mezctl nodes add db1 --openssh 10.0.0.7:22 --label env=prod"
    )]
    Add(AddArgs),
}

/// What `nodes add` takes.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// What the node is to be called.
    name: NodeName,
    /// Where its sshd listens, as the hub reaches it.
    #[arg(long, value_name = "HOST:PORT")]
    openssh: String,
    /// A label; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// How its sshd tells its own certificates from those of other nodes.
    #[arg(long, value_enum, default_value_t)]
    binding: Binding,
    /// How to show the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// How an sshd tells its own certificates from those of other nodes.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Binding {
    /// By the node's id, which is part of the principal: a certificate for one node opens no other.
    #[default]
    Principal,
    /// It does not: the principal is the bare login. For an sshd on which nothing but TrustedUserCAKeys can be set.
    Login,
}

pub(crate) async fn run(command: &Nodes, hub: &mut Hub) -> Result<(), Failure> {
    let Nodes::Add(args) = command;
    let binding = match args.binding {
        Binding::Principal => "node",
        Binding::Login => "login",
    };
    let request = AddOpenSshNodeRequest {
        name: args.name.to_string(),
        address: request::address(&args.openssh).map_err(Failure::usage)?,
        labels: labels(&args.labels)?,
        binding: binding.to_owned(),
    };
    let added = within(hub.client.add_open_ssh_node(request)).await?;
    if !added.warning.is_empty() {
        out::note(out::plain(&added.warning));
    }
    let value = json!({
        "name": args.name, "id": added.node_id, "sshd_lines": added.sshd_lines, "user_ca": added.user_ca,
        "warning": added.warning,
    });
    match args.output {
        Format::Json => out::json(&value),
        Format::Yaml => out::yaml(&value),
        Format::Table => out::line(instructions(&args.name, &added.sshd_lines, &added.user_ca)),
    }
}

/// What is left to do on the node. The lines that are no comments go into files as they are.
fn instructions(name: &NodeName, sshd_lines: &str, user_ca: &str) -> String {
    let block = |text: &str| {
        text.lines()
            .map(|line| format!("{}\n", out::plain(line)))
            .collect::<String>()
    };
    let (sshd_lines, user_ca) = (block(sshd_lines), block(user_ca));
    format!(
        "# On {name}, /etc/ssh/mezite_user_ca.pub:\n{user_ca}\n# On {name}, /etc/ssh/sshd_config:\n{sshd_lines}\n\
         # Sign its host key, put the certificate where HostCertificate says, and reload sshd. The certificate is good for\n\
         # 24 hours: sign again every day.\n\
         # mezctl ca sign-host {name} --public-key ssh_host_ed25519_key.pub --out ssh_host_ed25519_key-cert.pub"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_comment_goes_into_files() {
        let text = instructions(
            &"db1".parse().unwrap(),
            "TrustedUserCAKeys /x\nHostCertificate /y\n",
            "ssh-ed25519 AAAA\n",
        );
        let lines: Vec<_> = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        assert_eq!(
            lines,
            [
                "ssh-ed25519 AAAA",
                "TrustedUserCAKeys /x",
                "HostCertificate /y"
            ]
        );
        assert!(text.contains("mezctl ca sign-host db1 "));
    }
}
