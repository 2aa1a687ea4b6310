//! `msh`: Mezite for users.
#![forbid(unsafe_code)]

mod command;
mod files;
mod home;
mod hub;
mod preamble;
mod snippet;
mod terminal;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use mezite_console::{fail, out, recording};
use mezite_core::{Clock, ClusterName};
use mezite_net::clock::SystemClock;

use command::{config, join, login, ls, play, proxy, session, ssh};
use fail::Failure;
use home::{Home, Login};
use out::Format;

/// What `ssh` ends with when it is itself at fault; so do we where we stand in for it.
const SSH_FAILED: u8 = 255;

/// Mezite for users: log in once, then use stock ssh, scp, sftp, rsync and git.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Example:\n  msh login --proxy hub.example:3080 --user alice --ca-pin sha256:…\n  msh ls\n  msh ssh root@web"
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Common {
    /// The state directory; ~/.msh by default.
    #[arg(long, global = true, env = "MSH_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
    /// The cluster; the one of the last login by default.
    #[arg(long, global = true, value_name = "NAME")]
    cluster: Option<ClusterName>,
}

#[derive(Subcommand)]
enum Command {
    /// Get a short-lived identity from the hub. The keys are made here and stay here.
    #[command(
        after_help = "Examples:\n  msh login --proxy hub.example:3080 --user alice --ca-pin sha256:…\n  \
                      msh login --proxy hub.example:3080 --user alice --ttl 1h --password-stdin < password\n\n\
                      The password is asked for on the terminal, or read with --password-stdin, or taken from MEZITE_PASSWORD."
    )]
    Login(login::LoginArgs),
    /// Remove the identity from this machine.
    #[command(after_help = "Example:\n  msh logout")]
    Logout(login::LogoutArgs),
    /// Say who is logged in, where, and for how long.
    #[command(after_help = "Example:\n  msh status -o json")]
    Status {
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// List the nodes that you may use.
    #[command(after_help = "Example:\n  msh ls --search env=prod")]
    Ls(ls::LsArgs),
    /// Print the ssh_config lines that make stock OpenSSH use the gateway.
    #[command(
        after_help = "Example:\n  msh config > ~/.ssh/mezite.conf    # and in ~/.ssh/config: Include ~/.ssh/mezite.conf"
    )]
    Config(config::ConfigArgs),
    /// Carry one SSH connection; ssh runs it as its ProxyCommand.
    #[command(after_help = "Example:\n  ssh -o ProxyCommand=\"msh proxy %h:%p\" root@web.example")]
    Proxy(proxy::ProxyArgs),
    /// Open a session with the stock ssh program.
    #[command(after_help = "Examples:\n  msh ssh root@web\n  msh ssh -t root@web top")]
    Ssh(ssh::SshArgs),
    /// Copy files with the stock scp program.
    #[command(after_help = "Example:\n  msh scp notes.txt root@web:/tmp/")]
    Scp(ssh::ScpArgs),
    /// List sessions that run and sessions that were recorded.
    #[command(after_help = "Example:\n  msh sessions -n 20")]
    Sessions(session::SessionsArgs),
    /// Play a recorded session.
    #[command(
        after_help = "Examples:\n  msh play 018bcfe5-6800-7fff-bfff-ffffffffffff --speed 2 --idle-limit 2s\n  \
                      msh play --file session.mzr --identity key.txt\n\n\
                      Keys while it plays:\n  \
                      space  pause, go on          .      one step\n  \
                      ← →    5 seconds back, on    [ ]    the command before, the next one\n  \
                      < >    slower, faster        0…9    to 0 … 90 %\n  \
                      g G    to the start, the end i      skip idle time, or not\n  \
                      q      stop                  ?      these keys"
    )]
    Play(play::PlayArgs),
    /// Watch a session while it runs, without a hand in it.
    #[command(after_help = "Example:\n  msh join 018bcfe5-6800-7fff-bfff-ffffffffffff")]
    Join(join::JoinArgs),
    /// Write the manual pages and the completions for shells.
    #[command(hide = true, after_help = "Example:\n  msh pages ./out")]
    Pages {
        /// Where to; `man` and `completions` are made in it.
        directory: PathBuf,
    },
    /// Print the version.
    #[command(after_help = "Example:\n  msh version")]
    Version,
}

impl Command {
    /// Whether the program stands in for `ssh`, whose exit codes are those of the far side.
    fn is_ssh(&self) -> bool {
        matches!(self, Self::Ssh(_) | Self::Scp(_) | Self::Proxy(_))
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let is_ssh = cli.command.is_ssh();
    let result = run(cli);
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    if !failure.is_silent() {
        out::note(&failure);
    }
    ExitCode::from(if is_ssh {
        SSH_FAILED
    } else {
        failure.code.number()
    })
}

fn run(cli: Cli) -> Result<(), Failure> {
    // Private keys are in memory: no core dump, and no other process of this user looks into this one. What is started
    // from here is a new program, for which this does not hold.
    nix::sys::prctl::set_dumpable(false).map_err(|error| {
        Failure::failed(format_args!("core dumps cannot be forbidden: {error}"))
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("cannot start: {error}")))?;
    let result = runtime.block_on(dispatch(cli));
    // A thread may still wait for standard input; nobody waits for it.
    runtime.shutdown_background();
    result
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    let Cli { common, command } = cli;
    if matches!(command, Command::Version) {
        return out::line(format_args!("msh {}", env!("CARGO_PKG_VERSION")));
    }
    let home = Home::find(common.home.as_deref())?;
    let cluster = common.cluster.as_ref();
    match command {
        Command::Login(args) => login::login(&args, &home).await,
        Command::Logout(args) => login::logout(&args, &home, cluster),
        Command::Status { output } => login::status(output, &home, cluster),
        Command::Ls(args) => ls::ls(&args, &valid(&home, cluster)?).await,
        Command::Config(args) => config::config(&args, &home, &home.login(cluster)?).await,
        Command::Proxy(args) => {
            let (login, node) = proxy::find(&args, &home, cluster)?;
            login.check(SystemClock.now())?;
            proxy::proxy(&login, &node).await
        }
        Command::Ssh(args) => Err(ssh::ssh(&args, &home, &valid(&home, cluster)?)),
        Command::Scp(args) => Err(ssh::scp(&args, &home, &valid(&home, cluster)?)),
        Command::Sessions(args) => session::sessions(&args, &valid(&home, cluster)?).await,
        Command::Play(args) => match play::offline(&args).await {
            Some(played) => played,
            None => play::online(&args, &valid(&home, cluster)?).await,
        },
        Command::Join(args) => join::join(&args, &valid(&home, cluster)?).await,
        Command::Pages { directory } => {
            let written = mezite_standalone::pages::write(&Cli::command(), &directory);
            written.map_err(|error| {
                Failure::failed(format_args!(
                    "cannot write to `{}`: {error}",
                    directory.display()
                ))
            })
        }
        // Answered above: it needs no home.
        Command::Version => Ok(()),
    }
}

/// The login that is meant, if it has not ended.
fn valid(home: &Home, cluster: Option<&ClusterName>) -> Result<Login, Failure> {
    let login = home.login(cluster)?;
    login.check(SystemClock.now())?;
    Ok(login)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_well_formed_and_shows_an_example() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for sub in command
            .get_subcommands()
            .filter(|sub| sub.get_name() != "help")
        {
            let example = sub
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(example.contains("Example"), "{}", sub.get_name());
        }
    }

    #[test]
    fn a_remote_command_keeps_its_own_options() {
        let cli = Cli::try_parse_from(["msh", "ssh", "-t", "root@web", "ls", "-t", "--color"]);
        assert!(matches!(cli.map(|cli| cli.command), Ok(Command::Ssh(_))));
        assert!(Cli::try_parse_from(["msh", "ssh", "root@-oProxyCommand=x"]).is_err());
        assert!(Cli::try_parse_from(["msh", "scp", "-r", "a", "root@web:b"]).is_ok());
    }
}
