//! `ssh` and `scp`: the stock programs, with a configuration of our own. They take the place of this process, so their
//! exit code, signals and terminal are theirs.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use clap::Args;
use mezite_core::{ClusterName, NodeName};

use crate::command::config;
use crate::fail::Failure;
use crate::files;
use crate::home::{Home, Login};
use crate::snippet::Scope;

/// Where to, as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    login: Option<mezite_core::Login>,
    host: String,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (login, host) = match text.rsplit_once('@') {
            Some((login, host)) => {
                let login = login.parse::<mezite_core::Login>();
                (Some(login.map_err(|error| error.to_string())?), host)
            }
            None => (None, text),
        };
        if host.parse::<NodeName>().is_err() {
            host.parse::<ClusterName>().map_err(|_| {
                format!(
                    "`{}` is not a node: write LOGIN@NODE",
                    host.escape_default()
                )
            })?;
        }
        Ok(Self {
            login,
            host: host.to_owned(),
        })
    }
}

impl Destination {
    /// As `ssh` takes it: the node's full name.
    fn target(&self, cluster: &ClusterName) -> String {
        let host = if self.host.contains('.') {
            self.host.clone()
        } else {
            format!("{}.{cluster}", self.host)
        };
        match &self.login {
            Some(login) => format!("{login}@{host}"),
            None => host,
        }
    }
}

/// What `ssh` takes.
#[derive(Debug, Args)]
pub(crate) struct SshArgs {
    /// Ask for a terminal, also for a command; twice: even when there is none here.
    #[arg(short = 't', action = clap::ArgAction::Count)]
    terminal: u8,
    /// Run no command, only forward.
    #[arg(short = 'N')]
    no_command: bool,
    /// Forward a local port, as ssh(1) has it.
    #[arg(short = 'L', value_name = "ADDRESS")]
    local: Vec<String>,
    /// Lend your SSH agent to the session.
    #[arg(short = 'A')]
    agent: bool,
    /// Pass an option to ssh, as ssh_config(5) has it.
    #[arg(short = 'o', value_name = "OPTION")]
    option: Vec<String>,
    /// Let ssh say what it does; up to three times.
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    verbose: u8,
    /// The login and the node; without a login, your own user name here.
    #[arg(value_name = "LOGIN@NODE")]
    destination: Destination,
    /// What to run there instead of a shell.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

/// What `scp` takes.
#[derive(Debug, Args)]
pub(crate) struct ScpArgs {
    /// Options, sources and target of scp(1); a remote file is LOGIN@NODE:PATH.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "ARG"
    )]
    arguments: Vec<OsString>,
}

/// Returns only when it failed.
pub(crate) fn ssh(args: &SshArgs, home: &Home, login: &Login) -> Failure {
    let target = args.destination.target(&login.profile.cluster);
    let start = || -> Result<Command, Failure> {
        let mut command = prepared("ssh", home, login)?;
        command
            .args(ssh_arguments(args))
            .arg("--")
            .arg(target)
            .args(&args.command);
        Ok(command)
    };
    start().map_or_else(|failure| failure, |command| replace("ssh", command))
}

fn ssh_arguments(args: &SshArgs) -> Vec<String> {
    let mut words = Vec::new();
    words.extend((0..args.terminal).map(|_| "-t".to_owned()));
    words.extend((0..args.verbose).map(|_| "-v".to_owned()));
    words.extend(args.no_command.then(|| "-N".to_owned()));
    words.extend(args.agent.then(|| "-A".to_owned()));
    for (flag, values) in [("-L", &args.local), ("-o", &args.option)] {
        for value in values {
            words.extend([flag.to_owned(), value.clone()]);
        }
    }
    words
}

/// Returns only when it failed.
pub(crate) fn scp(args: &ScpArgs, home: &Home, login: &Login) -> Failure {
    let start = || -> Result<Command, Failure> {
        let mut command = prepared("scp", home, login)?;
        command.args(&args.arguments);
        Ok(command)
    };
    start().map_or_else(|failure| failure, |command| replace("scp", command))
}

fn prepared(program: &str, home: &Home, login: &Login) -> Result<Command, Failure> {
    let file = private_config(home, login)?;
    let mut command = Command::new(program);
    command.arg("-F").arg(file);
    Ok(command)
}

/// The configuration file that only `msh ssh` and `msh scp` use.
fn private_config(home: &Home, login: &Login) -> Result<PathBuf, Failure> {
    let text = config::written(home, login, Scope::Private)?;
    let path = login.place.path("ssh_config");
    let same = files::read(&path).ok().flatten().as_deref() == Some(text.as_bytes());
    if !same {
        files::write(&path, text.as_bytes(), 0o600).map_err(Failure::failed)?;
    }
    Ok(path)
}

fn replace(program: &str, mut command: Command) -> Failure {
    let error = command.exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        return Failure::failed(format_args!(
            "there is no `{program}` in PATH: install the OpenSSH client"
        ));
    }
    Failure::failed(format_args!("cannot start `{program}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_becomes_a_full_name() {
        let cluster = "example".parse().unwrap();
        for (text, target) in [
            ("root@web", "root@web.example"),
            ("web", "web.example"),
            ("root@web.example", "root@web.example"),
        ] {
            assert_eq!(
                text.parse::<Destination>().unwrap().target(&cluster),
                target
            );
        }
    }

    #[test]
    fn attack_82_a_destination_is_no_option() {
        for bad in [
            "-oProxyCommand=touch x",
            "root@-oProxyCommand=x",
            "-l@web",
            "root@$(id)",
            "root@web\nx",
            "root@",
            "@web",
            "a b@web",
            "root@web:22",
        ] {
            assert!(bad.parse::<Destination>().is_err(), "{bad:?}");
        }
    }
}
