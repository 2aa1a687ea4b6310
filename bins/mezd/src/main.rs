//! `mezd`: the node agent. Joins a cluster once, then dials out to the hub and serves sessions.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people and scripts"
)]

use std::io::{IsTerminal, Read};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use mezite_core::{Clock, Labels, NodeName};
use mezite_hardening::{Files, HardeningError, Notifier, State, confine, give, lower, names};
use mezite_net::clock::SystemClock;
use mezite_node::agent::{self, Agent, JoinError, Joining, Mode};
use mezite_node::break_glass::{self, Spool};
use mezite_node::state::Directory;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Where the node keeps itself.
const DATA_DIR: &str = "/var/lib/mezite-node";

/// The Mezite node agent.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Example:\n  mezd join --hub hub.example.com:3080 --token T --ca-pin sha256:…\n  mezd start"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Become a node of a cluster with a one-time token. Keys are made here and stay here.
    #[command(
        after_help = "Example:\n  mezd join --hub hub.example.com:3080 --token T --ca-pin sha256:… --name db1 --label env=prod"
    )]
    Join {
        /// The hub's HTTPS address.
        #[arg(long, value_name = "HOST:PORT")]
        hub: String,
        /// The one-time token, as `mezctl tokens add` printed it; `-` reads it from standard input.
        #[arg(long, env = "MEZITE_TOKEN", hide_env_values = true)]
        token: String,
        /// The pin of the hub's authority, as `mezctl tokens add` printed it.
        #[arg(long, value_name = "PIN")]
        ca_pin: String,
        /// The node's name. Default: the first label of this machine's host name.
        #[arg(long)]
        name: Option<String>,
        /// A label that the node says of itself; may be repeated.
        #[arg(long = "label", value_name = "K=V")]
        labels: Vec<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Run the agent.
    #[command(
        after_help = "Examples:\n  mezd start\n  mezd start --mode openssh --sshd 127.0.0.1:22"
    )]
    Start {
        /// Who serves logins: this program, or the sshd of this machine.
        #[arg(long, value_enum, default_value = "builtin")]
        mode: ModeName,
        /// Address of the sshd in mode `openssh`.
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:22")]
        sshd: String,
        /// A hub's tunnel address, if it is not the one learned when joining; may be repeated. One hub is enough: it tells
        /// of the others.
        #[arg(long = "hub", value_name = "HOST:PORT")]
        hubs: Vec<String>,
        /// Listen here for break-glass certificates, so that somebody gets in while the hub is down. Without it the node
        /// listens nowhere. In mode `openssh` the sshd does it.
        #[arg(long, value_name = "ADDR:PORT")]
        break_glass_listen: Option<SocketAddr>,
        /// A label that the node says of itself; may be repeated.
        #[arg(long = "label", value_name = "K=V")]
        labels: Vec<String>,
        #[command(flatten)]
        place: Place,
    },
    /// For the AuthorizedPrincipalsCommand of an sshd in mode `openssh`: print with which principal a certificate may log
    /// in. A break-glass certificate is checked first, and its use written down for the hub.
    #[command(after_help = "Example:\n  mezd principals root AAAAIHNzaC1lZDI1NTE5LWNlcnQt…")]
    Principals {
        /// The login, sshd's %u.
        login: String,
        /// The certificate in base64, sshd's %k.
        certificate: String,
        #[command(flatten)]
        place: Place,
    },
    /// Say who this node is and until when its certificates are good.
    #[command(after_help = "Example:\n  mezd status")]
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// Write the manual pages and the completions for shells.
    #[command(hide = true, after_help = "Example:\n  mezd pages ./out")]
    Pages {
        /// Where to; `man` and `completions` are made in it.
        directory: PathBuf,
    },
    /// Print the version.
    Version,
}

#[derive(clap::Args)]
struct Place {
    /// Where the node keeps its identity.
    #[arg(long, value_name = "DIR", env = "MEZITE_NODE_DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeName {
    /// This program is the SSH server.
    Builtin,
    /// The stream is carried to the local sshd, whose sshd_config includes sshd/mezite.conf of the data directory.
    Openssh,
}

/// What went wrong, and the exit code that says so: 1 failed, 2 usage, 3 denied, 4 unavailable.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "errors are handed over by `map_err`"
    )]
    fn new(code: u8, message: impl ToString) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }
}

fn main() -> ExitCode {
    // Private keys are in memory: no core dump, and no other process of this user looks into this one. What a session
    // runs is a new program, for which this does not hold.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        eprintln!("mezd: core dumps cannot be forbidden: {error}");
        return ExitCode::from(1);
    }
    let command = Cli::parse().command;
    if let Err(error) = mezite_net::random::check() {
        eprintln!("mezd: {error}");
        return ExitCode::from(1);
    }
    let result = match command {
        Command::Join {
            hub,
            token,
            ca_pin,
            name,
            labels,
            place,
        } => join(hub, token, ca_pin, name, &labels, &place),
        Command::Start {
            mode,
            sshd,
            hubs,
            break_glass_listen,
            labels,
            place,
        } => {
            let mode = match mode {
                ModeName::Builtin => Mode::Builtin,
                ModeName::Openssh => Mode::Openssh(sshd),
            };
            start(mode, hubs, break_glass_listen, &labels, &place.data_dir)
        }
        Command::Principals {
            login,
            certificate,
            place,
        } => principals(&login, &certificate, &place.data_dir),
        Command::Status { place } => status(&place.data_dir),
        Command::Pages { directory } => {
            let written = mezite_standalone::pages::write(&Cli::command(), &directory);
            written.map_err(|error| {
                Failure::new(
                    1,
                    format!("cannot write to `{}`: {error}", directory.display()),
                )
            })
        }
        Command::Version => {
            println!("mezd {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("mezd: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn join(
    hub: String,
    token: String,
    ca_pin: String,
    name: Option<String>,
    labels: &[String],
    place: &Place,
) -> Result<(), Failure> {
    let name = name.map_or_else(host_name, Ok)?;
    let name: NodeName = name.parse().map_err(|error| Failure::new(2, error))?;
    let joining = Joining {
        hub,
        token: token_text(token)?,
        ca_pin,
        name,
        labels: parse_labels(labels)?,
    };
    let directory = Directory::open(&place.data_dir).map_err(|error| Failure::new(1, error))?;
    let joined = runtime()?.block_on(agent::join(&directory, joining, clock()));
    let node = joined.map_err(|error| {
        let code = match &error {
            JoinError::Connect(_) | JoinError::Unavailable(_) => 4,
            JoinError::Refused(_) => 3,
            JoinError::Answer(_) | JoinError::State(_) | _ => 1,
        };
        Failure::new(code, error)
    })?;
    println!(
        "joined cluster {} as node {} ({})",
        node.cluster, node.name, node.id
    );
    println!("next: mezd start --data-dir {}", place.data_dir.display());
    Ok(())
}

/// A token on the command line can be seen by others on this machine; `-` and the variable cannot.
fn token_text(token: String) -> Result<String, Failure> {
    if token != "-" {
        return Ok(token);
    }
    let mut text = String::new();
    let read = std::io::stdin().take(4096).read_to_string(&mut text);
    read.map_err(|error| {
        Failure::new(
            1,
            format!("cannot read the token from standard input: {error}"),
        )
    })?;
    Ok(text.trim().to_owned())
}

fn host_name() -> Result<String, Failure> {
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    let name =
        name.ok_or_else(|| Failure::new(2, "this machine has no host name: give one with --name"))?;
    Ok(name
        .split('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase())
}

fn start(
    mode: Mode,
    hubs: Vec<String>,
    break_glass: Option<SocketAddr>,
    labels: &[String],
    data_dir: &Path,
) -> Result<(), Failure> {
    if break_glass.is_some() && mode != Mode::Builtin {
        return Err(Failure::new(
            2,
            "--break-glass-listen is for mode builtin: in mode openssh people reach the sshd itself",
        ));
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let notifier = Notifier::from_environment().map_err(|error| Failure::new(1, error))?;
    let serves_sessions = mode == Mode::Builtin;
    let labels = parse_labels(labels)?;
    let directory = Directory::open(data_dir).map_err(|error| Failure::new(1, error))?;
    let agent = Agent::open(directory, labels, mode, hubs, clock())
        .map_err(|error| Failure::new(1, error))?;
    let node = agent.node();
    if let Some(include) = agent
        .prepare_sshd()
        .map_err(|error| Failure::new(1, error))?
    {
        tracing::info!(
            "sshd_config needs the line `Include {}`, and sshd a reload now and when certificates are renewed",
            include.display()
        );
    }
    tracing::info!(cluster = %node.cluster, node = %node.name, id = %node.id, hubs = agent.hubs().join(", "), "starting");
    let threads = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    if !serves_sessions {
        harden(data_dir)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(1, format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let failed = |error: std::io::Error| Failure::new(1, error);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let listener = match break_glass {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let told = notifier.ready(&format!("node {} of cluster {}", node.name, node.cluster));
        told.map_err(|error| {
            Failure::new(1, format!("the service manager cannot be told: {error}"))
        })?;
        let door = Arc::clone(&agent);
        tokio::select! {
            never = async {
                match listener {
                    Some(listener) => door.serve_break_glass(listener).await,
                    None => std::future::pending().await,
                }
            } => match never {},
            reason = agent.run(|hub| tracing::info!(hub, "connected to the hub")) => {
                Err(Failure::new(3, format!("the hub refused this node: {reason}")))
            }
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    })
}

/// Before a local sshd the agent starts nothing and writes nothing but its own directory. Sessions of its own inherit whatever it
/// gives up, so then it gives up nothing.
fn harden(data_dir: &Path) -> Result<(), Failure> {
    let failed = |error: HardeningError| Failure::new(1, error);
    give("data directory", data_dir, None).map_err(|error| Failure::new(1, error))?;
    let mut report = lower(None).map_err(failed)?;
    // Who it is stands in the lines for sshd, which are written anew with each certificate.
    let accounts = ["/etc/passwd", "/etc/group"].map(PathBuf::from);
    let files = Files {
        read: names().chain(accounts).collect(),
        write: vec![data_dir.to_owned()],
    };
    confine(&files, &[], false, &mut report).map_err(failed)?;
    let (in_force, lacks) = (
        report.names(State::InForce),
        report.names(State::NotSupported),
    );
    if lacks.is_empty() {
        tracing::info!(in_force, "hardened");
    } else {
        tracing::warn!(in_force, this_kernel_lacks = lacks, "hardened in part");
    }
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(address).await;
    let listener = bound.map_err(|error| {
        Failure::new(
            1,
            format!("cannot listen on {address} (--break-glass-listen): {error}"),
        )
    })?;
    tracing::warn!(%address, "listening for break-glass certificates");
    Ok(listener)
}

/// sshd takes each line of the output as a principal, and no output as a refusal.
fn principals(login: &str, certificate: &str, data_dir: &Path) -> Result<(), Failure> {
    let directory = Directory::open(data_dir).map_err(|error| Failure::new(1, error))?;
    let principal = break_glass::principal(&directory, login, certificate, SystemClock.now());
    println!("{}", principal.map_err(|error| Failure::new(3, error))?);
    Ok(())
}

fn status(data_dir: &Path) -> Result<(), Failure> {
    let directory = Directory::open(data_dir).map_err(|error| Failure::new(1, error))?;
    let node = directory
        .load()
        .map_err(|error| Failure::new(1, error))?
        .node;
    println!("node:         {} ({})", node.name, node.id);
    println!("cluster:      {}", node.cluster);
    let mut hubs = vec![node.tunnel];
    hubs.extend(node.hubs);
    hubs.dedup();
    println!("hubs:         {}", hubs.join(", "));
    let state = if node.valid_before > SystemClock.now() {
        "good"
    } else {
        "expired"
    };
    println!("certificates: {state}, until {}", node.valid_before);
    let waiting = Spool::new(directory)
        .waiting()
        .map_err(|error| Failure::new(1, error))?
        .len();
    if waiting > 0 {
        println!("break-glass:  {waiting} uses are not in the hub's log yet");
    }
    Ok(())
}

fn parse_labels(labels: &[String]) -> Result<Labels, Failure> {
    Labels::parse(labels.iter().map(String::as_str)).map_err(|error| Failure::new(2, error))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Runtime::new()
        .map_err(|error| Failure::new(1, format!("cannot start: {error}")))
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}
