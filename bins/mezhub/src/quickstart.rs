//! `mezhub quickstart`: hub, node and user in one process, on real parts: TLS, tunnels, certificates, SQLite.
//!
//! Node and user go the way that strangers go: a one-time token, a password over TLS, keys that are made on their side.

mod session;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mezite_api::v1::LoginRequest;
use mezite_api::v1::access_client::AccessClient;
use mezite_audit::checkpoint::{self, NoteKey};
use mezite_audit::verify::Verifier;
use mezite_auth::{Actor, Auth, Settings};
use mezite_ca::seal::{KeyFile, Sealer};
use mezite_ca::{Signer, SoftwareKey, openssh};
use mezite_core::store::{LogQuery, Order, Store};
use mezite_core::{Clock, ClusterName, Labels, Login, NodeName, SessionId, UserName};
use mezite_net::clock::SystemClock;
use mezite_net::grpc;
use mezite_net::tls::{Accept, Connector, Protocol};
use mezite_node::account::Account;
use mezite_node::agent::{self, Agent, Joining, Mode};
use mezite_node::state::{Directory, State, StateError};

use crate::config::{Listen, LogFormat};
use crate::hub::{Hub, Plan};
use crate::listeners::Listeners;
use session::Target;

/// The one node.
const NODE: &str = "node";

/// The one cluster.
const CLUSTER: &str = "quickstart";

/// How long the node has to come up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Exit status for what Mezite itself could not do, as ssh uses it.
const OWN_FAILURE: u8 = 255;

/// Runs everything and gives the session's exit code.
pub(crate) fn main(data_dir: Option<PathBuf>, command: &[String]) -> ExitCode {
    match run(data_dir, command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("mezhub: {error}");
            ExitCode::from(OWN_FAILURE)
        }
    }
}

fn run(data_dir: Option<PathBuf>, command: &[String]) -> Result<u8, String> {
    crate::log_to_stderr("warn", LogFormat::Text)?;
    let data_dir = data_dir.map_or_else(default_directory, Ok)?;
    let sealer = sealer(&data_dir)?;
    let account = Account::current().map_err(|error| error.to_string())?;
    let runtime =
        tokio::runtime::Runtime::new().map_err(|error| format!("cannot start: {error}"))?;
    let (outcome, store) = runtime.block_on(async {
        let (hub, listening) = start_hub(&data_dir, sealer).await?;
        let outcome = Box::pin(visit(&hub, &listening, &data_dir, &account, command)).await;
        let store = hub.stop("the quickstart is over").await;
        Ok::<_, String>((outcome?, store))
    })?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(store);
    let Outcome { code, closing } = outcome;
    for line in closing {
        eprintln!("{line}");
    }
    Ok(code)
}

/// How the visit went.
struct Outcome {
    code: u8,
    /// The last lines, stable for scripts.
    closing: [String; 4],
}

fn default_directory() -> Result<PathBuf, String> {
    let home =
        std::env::var_os("HOME").ok_or("HOME is not set: choose a directory with --data-dir")?;
    Ok(Path::new(&home).join(".local/share/mezite/quickstart"))
}

/// The key lies beside what it seals, which is good enough to try things out and refused everywhere else.
fn sealer(data_dir: &Path) -> Result<Arc<dyn Sealer>, String> {
    let failed = |error: std::io::Error| {
        format!(
            "cannot use the data directory `{}`: {error}",
            data_dir.display()
        )
    };
    let path = data_dir.join("sealing.key");
    if !path.exists() {
        std::fs::create_dir_all(data_dir).map_err(failed)?;
        if data_dir.join("mezhub.db").exists() {
            return Err(format!(
                "`{}` is missing, so what lies beside it cannot be opened: put it back",
                path.display()
            ));
        }
        let key = KeyFile::generate(&mut mezite_net::random::rng());
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        std::io::Write::write_all(&mut file, key.to_content().expose().as_bytes())
            .map_err(failed)?;
        file.sync_all().map_err(failed)?;
    }
    crate::key_file(&path)
}

/// Where the hub listens in this run.
struct Listening {
    https: String,
    ssh: String,
    tunnel: String,
}

async fn start_hub(data_dir: &Path, sealer: Arc<dyn Sealer>) -> Result<(Hub, Listening), String> {
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let listen = Listen {
        https: free,
        ssh: free,
        tunnel: free,
        auth: free,
    };
    let listeners = Listeners::open(&listen, Vec::new())?;
    let address = |listener: &std::net::TcpListener| {
        listener
            .local_addr()
            .map(|address| address.to_string())
            .map_err(|error| error.to_string())
    };
    let listening = Listening {
        https: address(&listeners.https)?,
        ssh: address(&listeners.ssh)?,
        tunnel: address(&listeners.tunnel)?,
    };
    let cluster: ClusterName = parsed(CLUSTER)?;
    let settings = Settings {
        hub: String::from("quickstart"),
        gateway_names: vec![String::from("localhost"), String::from("127.0.0.1")],
        api_address: listening.https.clone(),
        gateway_address: listening.ssh.clone(),
        tunnel_address: listening.tunnel.clone(),
        ..Settings::new(cluster)
    };
    let plan = Plan {
        settings,
        data_dir: data_dir.to_owned(),
        store: crate::store::Source::Sqlite,
        sealer,
        previous: None,
        listeners,
        vault: crate::vault::Source::Directory(data_dir.join("recordings")),
        recordings: crate::config::Recordings::default(),
        exports: Vec::new(),
        disk: None,
    };
    Ok((Hub::start(plan).await?, listening))
}

/// Joins or resumes the node, logs the user in, runs the session.
async fn visit(
    hub: &Hub,
    listening: &Listening,
    data_dir: &Path,
    account: &Account,
    command: &[String],
) -> Result<Outcome, String> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let login: Login = account
        .name()
        .parse()
        .map_err(|error: mezite_core::name::NameError| error.to_string())?;
    let user: UserName = account.name().parse().or_else(|_| parsed("me"))?;
    let actor = Actor::local(nix::unistd::geteuid().as_raw()).map_err(|error| error.to_string())?;
    let node = start_node(hub, &actor, listening, data_dir, &clock).await?;
    let password = user_with_password(&hub.auth, &actor, &user, &login).await?;
    let target = log_in(hub, listening, data_dir, &clock, &user, &login, &password).await?;
    if command.is_empty() && std::io::stdin().is_terminal() {
        eprintln!("mezite: a recorded session on `{NODE}` as `{login}`; end it with `exit`");
        eprintln!(
            "mezite: while it runs, come in again with: ssh -F {} {login}@{NODE}",
            target.ssh_config.display()
        );
    }
    let before = last_sequence(hub.store.as_ref()).await?;
    let code = session::run(&target, &remote_command(command)).await;
    node.abort();
    let session = session_after(hub, before).await;
    let (code, session) = (code?, session?);
    let recording = hub.vault.file(&session).unwrap_or_default();
    if !recording.exists() {
        return Err(format!(
            "the recording `{}` is missing",
            recording.display()
        ));
    }
    hub.auth
        .keep_log()
        .await
        .map_err(|error| error.to_string())?;
    let closing = [
        format!("session: {session}"),
        format!("recording: {}", recording.display()),
        format!("events: {}", verify_audit(hub).await?),
        String::from("audit: verified"),
    ];
    Ok(Outcome { code, closing })
}

/// Every event against the newest signed checkpoint; gives their number.
async fn verify_audit(hub: &Hub) -> Result<u64, String> {
    let text = |error: &dyn std::fmt::Display| format!("the audit log does not verify: {error}");
    let key = NoteKey::new(hub.auth.log_origin(), &hub.auth.audit_signer().public_key())
        .map_err(|error| text(&error))?;
    let note = hub
        .auth
        .checkpoint()
        .await
        .map_err(|error| text(&error))?
        .ok_or_else(|| text(&"no checkpoint"))?;
    let checkpoint = checkpoint::open(&note, &key).map_err(|error| text(&error))?;
    let mut verifier = Verifier::new([checkpoint]).map_err(|error| text(&error))?;
    let mut after = 0;
    loop {
        let events = hub
            .store
            .log(&LogQuery::after(after, 1000))
            .await
            .map_err(|error| text(&error))?;
        let Some(last) = events.last() else { break };
        after = last.sequence;
        for event in &events {
            verifier.push(event).map_err(|error| text(&error))?;
        }
    }
    Ok(verifier.finish().map_err(|error| text(&error))?.size)
}

async fn start_node(
    hub: &Hub,
    actor: &Actor,
    listening: &Listening,
    data_dir: &Path,
    clock: &Arc<dyn Clock>,
) -> Result<tokio::task::JoinHandle<String>, String> {
    let directory = Directory::open(&data_dir.join("node")).map_err(|error| error.to_string())?;
    let now = clock.now();
    match directory.load() {
        // A rotation may have ended without the node.
        Ok(state) if state.node.valid_before > now && knows(&hub.auth, &state) => {}
        Ok(_) | Err(StateError::NotJoined(_)) => {
            directory.clear().map_err(|error| error.to_string())?;
            join_node(hub, actor, listening, &directory, clock).await?;
        }
        Err(error) => return Err(error.to_string()),
    }
    let hub_address = vec![listening.tunnel.clone()];
    let agent = Agent::open(
        directory,
        Labels::default(),
        Mode::Builtin,
        hub_address,
        Arc::clone(clock),
    );
    let agent = agent.map_err(|error| error.to_string())?;
    let (up, mut connected) = tokio::sync::watch::channel(false);
    let up = Arc::new(up);
    let mut running = tokio::spawn(agent.run(move |_| {
        up.send_replace(true);
    }));
    tokio::select! {
        _ = connected.wait_for(|up| *up) => Ok(running),
        refused = &mut running => Err(format!("the node was refused: {}", refused.unwrap_or_default())),
        () = tokio::time::sleep(PATIENCE) => Err(String::from("the node did not connect in time")),
    }
}

/// Whether the node still trusts the hub, and the hub what the node holds.
fn knows(auth: &Auth, state: &State) -> bool {
    let trust = auth.trust();
    let known = &state.node.trust.host_tls;
    // The hub shows what the first one signed.
    trust
        .host_tls
        .first()
        .is_some_and(|signing| known.contains(signing))
        && state
            .signers()
            .into_iter()
            .all(|(kind, by)| trust.fingerprints(kind).contains(&by))
}

async fn join_node(
    hub: &Hub,
    actor: &Actor,
    listening: &Listening,
    directory: &Directory,
    clock: &Arc<dyn Clock>,
) -> Result<(), String> {
    let name: NodeName = parsed(NODE)?;
    if hub.auth.snapshot().node_named(&name).is_some() {
        // Its certificates ran out while nothing ran here.
        hub.auth
            .remove(actor, "node", NODE)
            .await
            .map_err(|error| error.to_string())?;
    }
    let wanted = mezite_api::request::CreateToken::new(None, Labels::default(), Some(name.clone()));
    let token = hub
        .auth
        .create_token(actor, wanted)
        .await
        .map_err(|error| error.to_string())?;
    let joining = Joining {
        hub: listening.https.clone(),
        token: token.token.expose().clone(),
        ca_pin: hub.auth.ca_pin(),
        name,
        labels: Labels::default(),
    };
    agent::join(directory, joining, Arc::clone(clock))
        .await
        .map_err(|error| error.to_string())?;
    Ok(())
}

/// A user with a fresh random password, which nobody keeps.
async fn user_with_password(
    auth: &Auth,
    actor: &Actor,
    user: &UserName,
    login: &Login,
) -> Result<mezite_core::Secret<String>, String> {
    use mezite_api::request::{CreateUser, SetPassword};
    if auth.snapshot().subject(user).is_some() {
        let changed = auth
            .set_password(actor, SetPassword::new(user.clone(), None))
            .await;
        let made = changed.map_err(|error| error.to_string())?;
        return made.ok_or_else(|| String::from("no password was made"));
    }
    let roles = ["access", "auditor"]
        .into_iter()
        .map(parsed)
        .collect::<Result<_, _>>()?;
    let traits = BTreeMap::from([(String::from("logins"), vec![login.to_string()])]);
    let wanted = CreateUser::new(user.clone(), roles, traits);
    auth.create_user(actor, wanted)
        .await
        .map_err(|error| error.to_string())
}

/// The client's side: makes the keys, sends the password over TLS, keeps what comes back as files for stock ssh.
async fn log_in(
    hub: &Hub,
    listening: &Listening,
    data_dir: &Path,
    clock: &Arc<dyn Clock>,
    user: &UserName,
    login: &Login,
    password: &mezite_core::Secret<String>,
) -> Result<Target, String> {
    let (key, tls_key) = (
        SoftwareKey::generate(&mut mezite_net::random::rng()),
        SoftwareKey::generate(&mut mezite_net::random::rng()),
    );
    let accept = Accept::PinnedHub(hub.auth.ca_pin());
    let connector = Connector::new(None, accept, Protocol::Grpc, Arc::clone(clock))
        .map_err(|error| error.to_string())?;
    let channel = grpc::connect(connector, &listening.https)
        .await
        .map_err(|error| error.to_string())?;
    let request = LoginRequest {
        user: user.to_string(),
        password: password.expose().clone(),
        ttl_seconds: 0,
        ssh_public_key: openssh::public_key(key.public_key())
            .to_openssh()
            .map_err(|error| error.to_string())?,
        tls_public_key: tls_key.public_key().to_vec(),
        client_time_ms: clock.now().as_millis(),
    };
    let response = AccessClient::new(channel).login(request).await;
    let response = response
        .map_err(|status| format!("login refused: {}", status.message()))?
        .into_inner();
    let private_key =
        openssh::private_key(key.seed(), user.as_str()).map_err(|error| error.to_string())?;
    let client = data_dir.join("client");
    let files = [
        ("id", private_key.expose().as_str()),
        ("id-cert.pub", response.ssh_certificate.as_str()),
        ("known_hosts", response.known_hosts.as_str()),
        ("ssh_config", &ssh_config(&client, &listening.ssh, user)?),
    ];
    for (name, content) in files {
        write_private(&client, name, content)?;
    }
    Ok(Target {
        gateway: listening.ssh.clone(),
        user: user.clone(),
        login: login.clone(),
        node: String::from(NODE),
        key: ssh_key::PrivateKey::from_openssh(private_key.expose())
            .map_err(|error| error.to_string())?,
        certificate: ssh_key::Certificate::from_openssh(&response.ssh_certificate)
            .map_err(|error| error.to_string())?,
        trust: serde_json::from_str(&response.trust).map_err(|error| error.to_string())?,
        ssh_config: client.join("ssh_config"),
    })
}

fn ssh_config(client: &Path, gateway: &str, user: &UserName) -> Result<String, String> {
    let port = gateway
        .rsplit_once(':')
        .map(|(_, port)| port)
        .ok_or("the gateway has no port")?;
    let at = |name: &str| client.join(name).display().to_string();
    let common = format!(
        "  IdentityFile \"{}\"\n  CertificateFile \"{}\"\n  IdentitiesOnly yes\n  UserKnownHostsFile \"{}\"\n  \
         StrictHostKeyChecking yes\n",
        at("id"),
        at("id-cert.pub"),
        at("known_hosts")
    );
    Ok(format!(
        "Host mezite-hub\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n{common}\
         Host {NODE} {NODE}.{CLUSTER}\n  HostName {NODE}.{CLUSTER}\n  ProxyJump mezite-hub\n{common}"
    ))
}

fn write_private(directory: &Path, name: &str, content: &str) -> Result<(), String> {
    let path = directory.join(name);
    let failed = |error: std::io::Error| format!("cannot write `{}`: {error}", path.display());
    std::fs::create_dir_all(directory).map_err(failed)?;
    let temporary = directory.join(format!("{name}.new"));
    drop(std::fs::remove_file(&temporary));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    std::io::Write::write_all(&mut file, content.as_bytes()).map_err(failed)?;
    std::io::Write::write_all(&mut file, if content.ends_with('\n') { b"" } else { b"\n" })
        .map_err(failed)?;
    std::fs::rename(&temporary, &path).map_err(failed)
}

/// One line for the login shell, each word quoted: the words arrive as they were given.
fn remote_command(words: &[String]) -> String {
    let quoted = words
        .iter()
        .map(|word| format!("'{}'", word.replace('\'', "'\\''")));
    quoted.collect::<Vec<_>>().join(" ")
}

async fn last_sequence(store: &dyn Store) -> Result<u64, String> {
    let query = LogQuery {
        limit: 1,
        order: Order::NewestFirst,
        ..LogQuery::default()
    };
    let found = store.log(&query).await.map_err(|error| error.to_string())?;
    Ok(found.first().map_or(0, |event| event.sequence))
}

/// The session that started after `before`, once it is sealed.
async fn session_after(hub: &Hub, before: u64) -> Result<SessionId, String> {
    let query = LogQuery {
        event_type: Some(String::from("session.end")),
        limit: 1,
        ..LogQuery::after(before, 1)
    };
    let ended = async {
        loop {
            let found = hub
                .store
                .log(&query)
                .await
                .map_err(|error| error.to_string())?;
            if let Some(event) = found.first() {
                let body: serde_json::Value =
                    serde_json::from_slice(&event.body).map_err(|error| error.to_string())?;
                let id = body
                    .get("session_id")
                    .and_then(serde_json::Value::as_str)
                    .unwrap_or_default();
                return id.parse::<SessionId>().map_err(|error| error.to_string());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    ended.unwrap_or_else(|_| Err(String::from("the session was not closed in time")))
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}
