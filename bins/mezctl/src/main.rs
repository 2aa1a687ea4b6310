//! `mezctl`: Mezite for administrators.
#![forbid(unsafe_code)]

mod bundle;
mod command;
mod files;
mod hub;
mod release;
mod state;
mod tiles;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use mezite_console::{fail, out, recording};

use command::{
    audit, bundle as bundles, ca, can, explain, lock, login, nodes, recordings,
    release as releases, resources, roles, sessions, status, tokens, users,
};
use fail::Failure;
use hub::{Hub, Where};
use out::Format;

/// Mezite for administrators. On the hub's own machine it speaks over the hub's Unix socket; elsewhere with a login.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Examples:\n  mezctl users add alice --roles access --logins alice\n  mezctl tokens add\n  mezctl audit verify"
)]
struct Cli {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Log in to a hub on another machine; the same as `msh login`.
    #[command(
        after_help = "Example:\n  mezctl login --proxy hub.example:3080 --user carol --ca-pin sha256:…",
        disable_help_flag = true
    )]
    Login(login::LoginArgs),
    /// Users and their passwords.
    #[command(
        subcommand,
        after_help = "Example:\n  mezctl users add alice --roles access --logins alice"
    )]
    Users(users::Users),
    /// Tokens with which nodes join.
    #[command(
        subcommand,
        after_help = "Example:\n  mezctl tokens add --node-name web"
    )]
    Tokens(tokens::Tokens),
    /// Nodes that run a stock sshd.
    #[command(
        subcommand,
        after_help = "Example:\n  mezctl nodes add db1 --openssh 10.0.0.7:22"
    )]
    Nodes(nodes::Nodes),
    /// The cluster's authorities.
    #[command(subcommand, after_help = "Example:\n  mezctl ca status")]
    Ca(ca::Ca),
    /// Show users, roles, nodes, tokens or locks.
    #[command(after_help = "Examples:\n  mezctl get nodes\n  mezctl get role access -o yaml")]
    Get(resources::GetArgs),
    /// Create or replace what documents describe.
    #[command(after_help = "Example:\n  mezctl apply -f role.yaml")]
    Apply(resources::ApplyArgs),
    /// Remove a user, role, node, token or lock.
    #[command(after_help = "Example:\n  mezctl rm user alice")]
    Rm(resources::RmArgs),
    /// Stop a user, role, node, login or session at once.
    #[command(after_help = "Example:\n  mezctl lock user alice --reason 'laptop stolen' --ttl 24h")]
    Lock(lock::LockArgs),
    /// Remove a lock.
    #[command(after_help = "Example:\n  mezctl unlock 018bcfe5-6800-7fff-bfff-ffffffffffff")]
    Unlock(lock::UnlockArgs),
    /// Say whether a user may log in to a node, and why. Exit code 0 for yes, 1 for no.
    #[command(
        after_help = "Examples:\n  mezctl can alice deploy@web\n  mezctl can alice root@db1 --action sftp --from 10.1.2.3"
    )]
    Can(can::CanArgs),
    /// Say who may log in where, as the roles say; locks are left out.
    #[command(
        after_help = "Examples:\n  mezctl who-can root@db1\n  mezctl who-can --user alice\n  mezctl who-can --login root -o json"
    )]
    WhoCan(can::WhoCanArgs),
    /// Role documents: compare, test, lint, schema.
    #[command(
        subcommand,
        after_help = "Example:\n  mezctl roles test -f roles.yaml cases.yaml"
    )]
    Roles(roles::Roles),
    /// Say which role and rule decided what an event tells of.
    #[command(after_help = "Example:\n  mezctl explain 018bcfe5-6800-7fff-bfff-ffffffffffff")]
    Explain(explain::ExplainArgs),
    /// The audit log.
    #[command(subcommand, after_help = "Example:\n  mezctl audit ls --since 1h")]
    Audit(audit::Audit),
    /// Recorded sessions.
    #[command(subcommand, after_help = "Example:\n  mezctl recordings ls")]
    Recordings(recordings::Recordings),
    /// Check a bundle that `mezctl recordings export --format bundle` wrote, without a hub.
    #[command(after_help = "Example:\n  mezctl verify-bundle session.bundle --key audit.key")]
    VerifyBundle(bundles::VerifyArgs),
    /// Check that files are those of a signed release, without network and hub.
    #[command(
        after_help = "Examples:\n  mezctl verify-release ./mezite-1.2.3\n  mezctl verify-release ./mezhub --key release-key.pem"
    )]
    VerifyRelease(releases::VerifyArgs),
    /// Running sessions.
    #[command(subcommand, after_help = "Example:\n  mezctl sessions ls")]
    Sessions(sessions::Sessions),
    /// The hub at a glance.
    #[command(after_help = "Example:\n  mezctl status")]
    Status {
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Write the manual pages and the completions for shells.
    #[command(hide = true, after_help = "Example:\n  mezctl pages ./out")]
    Pages {
        /// Where to; `man` and `completions` are made in it.
        directory: std::path::PathBuf,
    },
    /// Print the version.
    #[command(after_help = "Example:\n  mezctl version")]
    Version,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Passwords and keys are in memory: no core dump, and no other process of this user looks into this one.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        out::note(format_args!("core dumps cannot be forbidden: {error}"));
        return ExitCode::from(1);
    }
    let Err(failure) = run(&cli) else {
        return ExitCode::SUCCESS;
    };
    if !failure.is_silent() {
        out::note(&failure);
    }
    ExitCode::from(failure.code.number())
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("cannot start: {error}")))?;
    let result = runtime.block_on(dispatch(cli));
    // A thread may still wait for more of a recording; nobody waits for it.
    runtime.shutdown_background();
    result
}

async fn dispatch(cli: &Cli) -> Result<(), Failure> {
    if let Command::Audit(command) = &cli.command
        && let Some(done) = command.offline()
    {
        return done;
    }
    let connect = Hub::connect(&cli.place);
    match &cli.command {
        Command::Login(args) => Err(login::run(args)),
        Command::VerifyBundle(args) => bundles::verify(args),
        Command::VerifyRelease(args) => releases::verify(args),
        Command::Pages { directory } => {
            let written = mezite_standalone::pages::write(&Cli::command(), directory);
            written.map_err(|error| {
                Failure::failed(format_args!(
                    "cannot write to `{}`: {error}",
                    directory.display()
                ))
            })
        }
        Command::Version => out::line(format_args!("mezctl {}", env!("CARGO_PKG_VERSION"))),
        Command::Users(command) => users::run(command, &mut connect.await?).await,
        Command::Tokens(command) => tokens::run(command, &mut connect.await?).await,
        Command::Nodes(command) => nodes::run(command, &mut connect.await?).await,
        Command::Ca(command) => ca::run(command, &mut connect.await?).await,
        Command::Get(args) => resources::get(args, &mut connect.await?).await,
        Command::Apply(args) => resources::apply(args, &mut connect.await?).await,
        Command::Rm(args) => resources::rm(args, &mut connect.await?).await,
        Command::Lock(args) => lock::lock(args, &mut connect.await?).await,
        Command::Unlock(args) => lock::unlock(args, &mut connect.await?).await,
        Command::Can(args) => can::can(args, &mut connect.await?).await,
        Command::WhoCan(args) => can::who_can(args, &mut connect.await?).await,
        Command::Roles(command) => roles::run(command, &cli.place).await,
        Command::Explain(args) => explain::run(args, &mut connect.await?).await,
        Command::Audit(command) => audit::run(command, &mut connect.await?).await,
        Command::Recordings(command) => recordings::run(command, &mut connect.await?).await,
        Command::Sessions(command) => sessions::run(command, &mut connect.await?).await,
        Command::Status { output } => status::run(*output, &mut connect.await?).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_well_formed_and_shows_an_example() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        let mut open: Vec<&clap::Command> = command.get_subcommands().collect();
        while let Some(sub) = open.pop() {
            if sub.get_name() == "help" {
                continue;
            }
            let example = sub
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(example.contains("Example"), "{}", sub.get_name());
            open.extend(sub.get_subcommands());
        }
    }

    #[test]
    fn commands_read_as_the_guide_writes_them() {
        for line in [
            "mezctl --socket /x users add alice --roles access --logins a,b -o json",
            "mezctl tokens add -o json",
            "mezctl get nodes -o json",
            "mezctl rm node/web",
            "mezctl recordings export --format asciicast-v2 018bcfe5-6800-7fff-bfff-ffffffffffff",
            "mezctl lock user alice --reason x --ttl 1h",
            "mezctl audit ls --type session. --failed -n 5 -o csv",
            "mezctl audit verify --bundle x --key y --checkpoint z",
            "mezctl audit prune --dry-run",
            "mezctl ca rotate --begin --authority user",
            "mezctl ca rotate --advance --force --key host-tls -o json",
            "mezctl ca rotate --rollback --all",
            "mezctl ca adopted web",
            "mezctl can alice deploy@web --action sftp --from 10.1.2.3 -o json",
            "mezctl who-can root@db1",
            "mezctl who-can --user alice",
            "mezctl who-can --login root",
            "mezctl roles diff -f a.yaml b.yaml --rm old",
            "mezctl roles test -f roles.yaml cases.yaml",
            "mezctl roles lint",
            "mezctl roles schema",
            "mezctl recordings search -i drop --since 30d -o json",
            "mezctl recordings prune --dry-run",
            "mezctl verify-bundle session.bundle",
            "mezctl verify-release mezite-1.2.3 --key release-key.pem --allow-older",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(
                parsed.is_ok(),
                "{line}: {:?}",
                parsed.err().map(|error| error.to_string())
            );
        }
        for line in [
            "mezctl lock planet x --reason y",
            "mezctl ca rotate --begin",
            "mezctl ca rotate --all",
            "mezctl ca rotate --begin --advance --all",
            "mezctl ca rotate --begin --force --all",
            "mezctl ca rotate --begin --key audit",
            "mezctl ca rotate --begin --all --key node",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
