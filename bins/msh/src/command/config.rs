//! `config`: the lines that make stock `ssh`, `scp`, `sftp`, `rsync` and `git` go through the gateway.

use clap::Args;
use mezite_core::NodeName;

use crate::command::ls;
use crate::fail::Failure;
use crate::home::{Home, Login};
use crate::out;
use crate::snippet::{self, Paths, Scope};

/// What `config` takes.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Let every node that you see now be called by its bare name too. A node can have the name of another host that
    /// you use: look at `msh ls` first.
    #[arg(long)]
    aliases: bool,
}

pub(crate) async fn config(args: &ConfigArgs, home: &Home, login: &Login) -> Result<(), Failure> {
    let mut aliases: Vec<NodeName> = Vec::new();
    if args.aliases {
        for node in ls::nodes(login, "").await? {
            aliases.push(node.name.parse().map_err(Failure::failed)?);
        }
    }
    out::bytes(written(home, login, Scope::Shared(&aliases))?.as_bytes())
}

/// The lines for `scope`.
pub(crate) fn written(home: &Home, login: &Login, scope: Scope<'_>) -> Result<String, Failure> {
    let program = snippet::program()
        .map_err(|error| Failure::failed(format_args!("cannot find this program: {error}")))?;
    let paths = Paths {
        program: &program,
        home: home.path(),
        place: &login.place,
    };
    snippet::ssh_config(&login.profile, paths, scope).map_err(Failure::failed)
}
