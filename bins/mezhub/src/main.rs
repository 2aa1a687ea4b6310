//! `mezhub`: the hub. Auth service and gateway in one process.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people and scripts"
)]

mod authority;
mod backup;
mod config;
mod disk;
mod endings;
mod hardened;
mod health;
mod http;
mod hub;
mod listeners;
mod proxied;
mod quickstart;
mod recordings;
mod store;
mod survey;
mod tunnel;
mod vault;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use mezite_auth::{Auth, Settings};
use mezite_ca::seal::{KeyFile, Passphrase, Sealer};
use mezite_core::Secret;
use mezite_hardening::Notifier;
use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};

use config::{Config, LogFormat, Sealing};
use hardened::Sources;
use hub::{Hub, Plan};
use listeners::Listeners;

/// Exit code for "failed"; usage errors are clap's 2.
const FAILED: u8 = 1;

/// The Mezite hub: certificate authorities, policy, audit log and recording SSH gateway.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Example:\n  mezhub quickstart -- uname -a"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Hub, node and user on this machine: log in and open a recorded session. No configuration, no root.
    #[command(
        after_help = "Examples:\n  mezhub quickstart\n  mezhub quickstart -- sh -c 'echo out; echo err >&2; exit 7'"
    )]
    Quickstart {
        /// Where everything is kept; a second run there goes on with the same cluster.
        #[arg(long, value_name = "D")]
        data_dir: Option<PathBuf>,
        /// Run this instead of a shell; its output and exit code are passed through.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Run the hub.
    #[command(
        after_help = "Examples:\n  mezhub start --config /etc/mezite/mezite.yaml\n  mezhub start --show-hardening -o json"
    )]
    Start {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
        config: PathBuf,
        /// Do not start: give up what the hub would give up, and print what this kernel made of it.
        #[arg(long)]
        show_hardening: bool,
        /// How that is printed.
        #[arg(
            short,
            long,
            value_enum,
            default_value = "table",
            requires = "show_hardening"
        )]
        output: Output,
    },
    /// Say whether the hub of this machine answers, and its database answers it. For health checks of containers.
    #[command(after_help = "Example:\n  mezhub health --config /etc/mezite/mezite.yaml")]
    Health {
        /// The configuration of the hub.
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Say whether the configuration is good, and what it means.
    #[command(after_help = "Example:\n  mezhub check-config --config mezite.yaml")]
    CheckConfig {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Write everything in the database to one file, while the hub runs or not. Recordings are files of their own.
    #[command(
        after_help = "Example:\n  mezhub backup /var/backups/mezite-2026-01-31.backup\n\nThe file holds what the database holds: sealed private keys and hashes of passwords. Keep it as you keep the database, \nand the sealing key elsewhere."
    )]
    Backup {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
        config: PathBuf,
        /// Where to; it must not be there yet.
        file: PathBuf,
    },
    /// Make the database from a backup. There must be none yet, and no hub may run.
    #[command(
        after_help = "Example:\n  mv /var/lib/mezite/mezhub.db /var/lib/mezite/mezhub.db.broken\n  mezhub restore /var/backups/mezite-2026-01-31.backup --log /var/log/mezite/audit.jsonl\n\nJoin tokens are not restored. With --log, what was administered after the backup is listed, so that it can be done again."
    )]
    Restore {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
        config: PathBuf,
        /// A copy of the log that knows more than the backup: what a `file` sink wrote, or `mezctl audit export`.
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
        /// The backup.
        file: PathBuf,
    },
    /// Write the manual pages and the completions for shells.
    #[command(hide = true, after_help = "Example:\n  mezhub pages ./out")]
    Pages {
        /// Where to; `man` and `completions` are made in it.
        directory: PathBuf,
    },
    /// Print the version.
    Version,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

fn main() -> ExitCode {
    // Private keys are in memory: no core dump, and no other process of this user looks into this one.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        eprintln!("mezhub: core dumps cannot be forbidden: {error}");
        return ExitCode::from(FAILED);
    }
    let command = Cli::parse().command;
    if let Err(error) = mezite_net::random::check() {
        eprintln!("mezhub: {error}");
        return ExitCode::from(FAILED);
    }
    let result = match command {
        Command::Quickstart { data_dir, command } => return quickstart::main(data_dir, &command),
        Command::Start {
            config,
            show_hardening: true,
            output,
        } => show_hardening(&config, output),
        Command::Start { config, .. } => start(&config),
        Command::Health { config } => health::check(&config).map(|answer| println!("{answer}")),
        Command::CheckConfig { config } => check_config(&config),
        Command::Backup { config, file } => backup::backup(&config, &file),
        Command::Restore { config, log, file } => backup::restore(&config, log.as_deref(), &file),
        Command::Pages { directory } => {
            let written = mezite_standalone::pages::write(&Cli::command(), &directory);
            written.map_err(|error| format!("cannot write to `{}`: {error}", directory.display()))
        }
        Command::Version => {
            println!("mezhub {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mezhub: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn environment() -> BTreeMap<String, String> {
    std::env::vars()
        .filter(|(name, _)| name.starts_with("MEZITE_"))
        .collect()
}

fn check_config(path: &Path) -> Result<(), String> {
    let config = Config::load(path, &environment()).map_err(|error| error.to_string())?;
    config.hardening.account()?;
    let settings = settings(&config);
    let runtime =
        tokio::runtime::Runtime::new().map_err(|error| format!("cannot start: {error}"))?;
    let database = runtime.block_on(store::check(&config.store, &config.data_dir))?;
    println!("{}: good", path.display());
    println!(
        "cluster {}, hub {}, data in {}",
        settings.cluster,
        settings.hub,
        config.data_dir.display()
    );
    println!("database: {database}");
    let recordings = vault::check(&config.recordings, &config.hub, &config.data_dir);
    println!("recordings: {}", runtime.block_on(recordings)?);
    println!(
        "people reach it at {} (ssh) and {} (https)",
        settings.gateway_address, settings.api_address
    );
    println!("agents reach it at {}", settings.tunnel_address);
    Ok(())
}

fn show_hardening(path: &Path, output: Output) -> Result<(), String> {
    let config = Config::load(path, &environment()).map_err(|error| error.to_string())?;
    let report = hardened::show(&config)?;
    match output {
        Output::Table => print!("{}", hardened::table(&report)),
        Output::Json => {
            let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
            println!("{text}");
        }
    }
    Ok(())
}

/// In one thread first what takes the rights that the hub was started with, then away with them, then everything else.
fn start(path: &Path) -> Result<(), String> {
    // The sockets listen before there is a runtime to hear signals: one that comes meanwhile waits until it can be obeyed in order.
    let stops = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    stops.thread_block().map_err(|error| error.to_string())?;
    let notifier = Notifier::from_environment()?;
    let inherited = mezite_hardening::inherited()?;
    let config = Config::load(path, &environment()).map_err(|error| error.to_string())?;
    log_to_stderr(&config.log.level, config.log.format)?;
    let previous = config.sealing_previous.as_ref().map(sealer).transpose()?;
    let sealer = sealer(&config.sealing)?;
    let sources = Sources::read(&config)?;
    let listeners = Listeners::open(&config.listen, inherited)?;
    let mut report = hardened::become_account(&config, &sources)?;
    let exports = config.audit.exports(&config.hub)?;
    // Asked now, because what says it cannot be read later.
    let threads = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    hardened::give_up_the_rest(&config, &sources.vault, &mut report)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let plan = Plan {
        settings: settings(&config),
        data_dir: config.data_dir.clone(),
        store: sources.store,
        sealer,
        previous,
        listeners,
        vault: sources.vault,
        recordings: config.recordings.clone(),
        exports,
        disk: Some(config.disk.plan()),
    };
    let store = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        let hub = Hub::start(plan).await?;
        stops.thread_unblock().map_err(|error| error.to_string())?;
        hardened::tell(&report);
        tracing::info!(
            cluster = %config.cluster,
            https = %config.listen.https,
            ssh = %config.listen.ssh,
            tunnel = %config.listen.tunnel,
            auth = %config.listen.auth,
            ca_pin = hub.auth.ca_pin(),
            socket = %hub.socket.display(),
            "ready"
        );
        let told = notifier.ready(&format!("hub {} of cluster {}", config.hub, config.cluster));
        told.map_err(|error| format!("the service manager cannot be told: {error}"))?;
        let reason = tokio::select! {
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "told to stop",
            () = hub.auth.displaced() => DISPLACED,
            never = stay_alive(&notifier, &hub.auth) => match never {},
        };
        notifier.stopping();
        Ok::<_, String>((hub.stop(reason).await, reason))
    })?;
    let (store, reason) = store;
    // The store's threads are joined here, where nothing else waits for them.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    drop(store);
    if reason == DISPLACED {
        return Err(format!(
            "another process took the name `{}` on this database: give each hub a data directory and a name of its own",
            config.hub
        ));
    }
    Ok(())
}

/// Tells the service manager that the hub lives, as long as its store takes writes and gives answers. Otherwise it lets nobody
/// in, and what the service manager does then (a restart) costs nothing more.
async fn stay_alive(notifier: &Notifier, auth: &Auth) -> Infallible {
    let Some(every) = notifier.watchdog() else {
        return std::future::pending().await;
    };
    loop {
        if auth.is_stale() {
            tracing::error!(
                "the store does not answer, so the service manager's watchdog is not fed"
            );
        } else if let Err(error) = notifier.alive() {
            tracing::error!(%error, "the service manager's watchdog cannot be fed");
        }
        tokio::time::sleep(every / 3).await;
    }
}

/// Why a hub stops that is not the only one of its name.
const DISPLACED: &str = "another process runs as this hub";

fn settings(config: &Config) -> Settings {
    let names = if config.names.is_empty() {
        vec![config.hub.clone()]
    } else {
        config.names.clone()
    };
    let first = names.first().cloned().unwrap_or_default();
    let advertised = |told: &Option<String>, port: u16| {
        told.clone().unwrap_or_else(|| format!("{first}:{port}"))
    };
    Settings {
        hub: config.hub.clone(),
        identity_ttl: config.identity.default_ttl,
        identity_ceiling: config.identity.max_ttl,
        api_address: advertised(&config.advertise.https, config.listen.https.port()),
        gateway_address: advertised(&config.advertise.ssh, config.listen.ssh.port()),
        tunnel_address: advertised(&config.advertise.tunnel, config.listen.tunnel.port()),
        gateway_names: names,
        egress: config.egress.clone(),
        retention: config.recordings.retention(),
        log_retention: config.audit.retention(),
        lock_staleness: config.lock_staleness,
        full_ends_sessions: config.disk.sessions == config::Sessions::End,
        ..Settings::new(config.cluster.clone())
    }
}

fn sealer(sealing: &Sealing) -> Result<Arc<dyn Sealer>, String> {
    match sealing {
        Sealing::KeyFile(path) => key_file(path),
        Sealing::SystemdCredential(name) => {
            key_file(&credential("sealing.systemd_credential", name)?)
        }
        Sealing::PassphraseFile(path) => {
            let text = String::from_utf8(read_secret("sealing key", path)?);
            let text = Secret::new(
                text.map_err(|_| format!("the passphrase in `{}` is not UTF-8", path.display()))?,
            );
            let passphrase = text.expose().trim_end_matches(['\r', '\n']).to_owned();
            Ok(Arc::new(Passphrase::new(Secret::new(passphrase))))
        }
    }
}

/// The file in which systemd hands over the credential `name`, which the setting `what` asks for.
pub(crate) fn credential(what: &str, name: &str) -> Result<PathBuf, String> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
        format!("{what} `{name}` needs a unit with LoadCredentialEncrypted={name}:…")
    })?;
    Ok(Path::new(&directory).join(name))
}

fn key_file(path: &Path) -> Result<Arc<dyn Sealer>, String> {
    let content = Secret::new(read_secret("sealing key", path)?);
    let key = KeyFile::parse(content.expose());
    Ok(Arc::new(key.map_err(|error| {
        format!(
            "the sealing key `{}` cannot be used: {error}",
            path.display()
        )
    })?))
}

/// Whether the file of a secret is there and its owner's alone.
fn check_secret_file(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let shown = path.display();
    let metadata =
        std::fs::metadata(path).map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(format!(
            "`{shown}` can be read by others: `chmod 600 {shown}`"
        ));
    }
    Ok(())
}

/// Reads a file that must be its owner's alone.
pub(crate) fn read_secret(what: &str, path: &Path) -> Result<Vec<u8>, String> {
    use std::os::unix::fs::PermissionsExt;
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| match what {
        "sealing key" => format!(
            "the sealing key `{shown}` cannot be read ({error}): put back the key this cluster was made with, or for a new \
             cluster make one with `(umask 077; openssl rand -hex 32 > {shown})`"
        ),
        _ => format!("the {what} in `{shown}` cannot be read: {error}"),
    })?;
    // A credential is the service manager's, which lets us read it by an access list: its mask shows as rights of a group.
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let handed_over = credentials.is_some_and(|directory| path.parent() == Some(&directory));
    let others = if handed_over { 0o007 } else { 0o077 };
    if metadata.permissions().mode() & others != 0 {
        return Err(format!(
            "the {what} `{shown}` can be read by others: `chmod 600 {shown}`"
        ));
    }
    std::fs::read(path).map_err(|error| format!("the {what} `{shown}` cannot be read: {error}"))
}

/// Lines on standard error, as `RUST_LOG` or the configured level says.
fn log_to_stderr(level: &str, format: LogFormat) -> Result<(), String> {
    use tracing_subscriber::EnvFilter;
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) => EnvFilter::try_new(filter),
        Err(_) => EnvFilter::try_new(level),
    };
    let filter = filter.map_err(|error| format!("log.level `{level}` is not one: {error}"))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    };
    installed.map_err(|error| error.to_string())
}
