//! One hub, put together: store, auth service, gateway, tunnels, listeners. The only place that chooses parts.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mezite_audit::catalogue::SessionRecordingRecovered;
use mezite_auth::grpc::{self, Caller, Source};
use mezite_auth::{Auth, Export, RecordingSource, Settings};
use mezite_ca::seal::Sealer;
use mezite_ca::{PeerKind, Signer, SoftwareKey, openssh};
use mezite_core::store::Store;
use mezite_core::{Clock, SessionId, Span, UnixTime};
use mezite_net::clock::SystemClock;
use mezite_net::grpc::{Connection, Identified};
use mezite_net::tls::{Accept, Acceptor, Clients, Credentials, OwnIdentity, Protocol, TrustSource};
use mezite_net::tunnel::Registry;
use mezite_proxy::Gateway;
use mezite_proxy::dial::NodeDialer;
use mezite_proxy::gateway::Recordings;
use mezite_record::{Identity, Part, Sink, recover};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Request, Status};

use crate::authority::InProcess;
use crate::config;
use crate::disk::{self, Guard};
use crate::endings::Endings;
use crate::http;
use crate::listeners::Listeners;
use crate::proxied;
use crate::recordings::Recorded;
use crate::store::{self, Opened};
use crate::survey;
use crate::tunnel::{self, AgentHooks};
use crate::vault::{self, Vault};

/// Connections that may wait to be served by gRPC.
const QUEUE: usize = 128;

/// How long running sessions get to be closed and sealed when the hub stops.
const PATIENCE: Duration = Duration::from_secs(10);

/// How soon sessions of lost hubs are looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// How soon a renewal is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(10);

/// A failed `accept` is usually a lack of file descriptors, which others give back.
const BREATH: Duration = Duration::from_millis(100);

/// What a hub is made from.
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) data_dir: PathBuf,
    pub(crate) store: store::Source,
    pub(crate) sealer: Arc<dyn Sealer>,
    /// What sealed the keys before.
    pub(crate) previous: Option<Arc<dyn Sealer>>,
    pub(crate) listeners: Listeners,
    pub(crate) vault: vault::Source,
    /// Who can read recordings.
    pub(crate) recordings: config::Recordings,
    /// Who gets copies of the log.
    pub(crate) exports: Vec<Export>,
    /// What is reserved on the disk; none for a house that nobody depends on.
    pub(crate) disk: Option<disk::Plan>,
}

/// A running hub.
pub(crate) struct Hub {
    pub(crate) auth: Auth,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) vault: Vault,
    pub(crate) socket: PathBuf,
    gateway: Gateway,
    tasks: JoinSet<()>,
    _lock: Option<File>,
}

impl Hub {
    /// Opens the data directory and starts every service.
    ///
    /// # Errors
    /// One sentence: what is wrong and what to do.
    pub(crate) async fn start(mut plan: Plan) -> Result<Self, String> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        prepare_directory(&plan.data_dir)?;
        // Before the first write: on a full disk this makes room for it.
        let guard = plan
            .disk
            .map(|disk| Guard::new(&plan.data_dir, disk))
            .transpose()?;
        plan.settings.installation = store::installation(&plan.store, &plan.data_dir)?;
        let Opened { store, lock } = store::open(plan.store, &plan.data_dir).await?;
        if let Some(previous) = &plan.previous {
            reseal(
                &*store,
                &*clock,
                &plan.settings,
                [&**previous, &*plan.sealer],
            )
            .await?;
        }
        let auth = Auth::open(
            Arc::clone(&store),
            Arc::clone(&clock),
            plan.sealer,
            plan.settings,
        );
        let auth = auth.await.map_err(|error| error.to_string())?;
        let vault = Vault::open(plan.vault).await?;
        let sink = vault.sink();
        let signer = Arc::new(AuditSigner(auth.clone()));
        match vault.unfinished().await {
            Ok(left) => recover_recordings(&auth, &*sink, left, &*signer).await,
            Err(error) => tracing::error!(%error, "unfinished recordings could not be listed"),
        }
        let identity =
            Identity::from_secret(auth.recording_secret()).map_err(|error| error.to_string())?;
        let lost = recover_lost(auth.clone(), vault.clone(), Arc::clone(&signer));
        let recordings = Recordings {
            sink: vault.for_sessions(),
            recipients: plan.recordings.recipients(&identity.recipient()),
            signer,
        };
        let registry = Arc::new(Registry::new());
        let endings = Endings::open(&plan.data_dir.join("sessions"));
        let endings = endings.map_err(|error| format!("cannot keep sessions in mind: {error}"))?;
        endings.settle(&auth, &*store, &*sink).await;
        let authority = InProcess::new(auth.clone(), Arc::clone(&endings), Arc::clone(&clock));
        let authority = Arc::new(authority);
        let dialer = Arc::new(NodeDialer::new(Arc::clone(&registry)));
        let survey = survey::run(auth.clone(), dialer.clone(), Arc::clone(&clock));
        let gateway = Gateway::new(authority, dialer, recordings);
        let recorded = Arc::new(Recorded::new(Arc::clone(&sink), identity));
        let socket = plan.data_dir.join("mezctl.sock");
        let mut hub = Self {
            auth,
            store,
            vault,
            socket,
            gateway,
            tasks: JoinSet::new(),
            _lock: lock,
        };
        hub.tasks.spawn(survey);
        hub.tasks
            .spawn(endings.run(hub.auth.clone(), Arc::clone(&hub.store), sink));
        hub.tasks.spawn(lost);
        hub.keep_recordings(&recorded);
        hub.listen(plan.listeners, recorded, &registry, &clock)
            .await?;
        hub.keep(plan.exports, guard).await?;
        Ok(hub)
    }

    /// What is done to recordings in the background: search indexes are built, old ones swept.
    fn keep_recordings(&mut self, recorded: &Arc<Recorded>) {
        let source = Arc::clone(recorded);
        self.tasks.spawn(async move { source.keep_indexed().await });
        let (auth, source) = (self.auth.clone(), Arc::clone(recorded));
        self.tasks
            .spawn(async move { auth.run_retention(source).await });
    }

    async fn listen(
        &mut self,
        listeners: Listeners,
        recorded: Arc<dyn RecordingSource>,
        registry: &Arc<Registry>,
        clock: &Arc<dyn Clock>,
    ) -> Result<(), String> {
        let (credentials, first) = hub_credentials(&self.auth, clock.as_ref()).await?;
        let own = OwnIdentity::new(&credentials).map_err(|error| error.to_string())?;
        self.tasks.spawn(renew_tls(
            self.auth.clone(),
            own.clone(),
            Arc::clone(clock),
            first,
        ));
        // Asked at each handshake, so that new authorities are trusted, and old ones no more, from one moment to the next.
        let auth = self.auth.clone();
        let trust: TrustSource = Arc::new(move || auth.trust());
        let accept = |kinds| Accept::Kinds(Arc::clone(&trust), kinds);
        let acceptor = |kinds, clients, protocols: &[Protocol]| {
            let auth = self.auth.clone();
            Acceptor::new(
                own.clone(),
                accept(kinds),
                clients,
                Arc::new(move |peer| auth.is_peer_revoked(peer)),
                protocols,
                Arc::clone(clock),
            )
            .map_err(|error| error.to_string())
        };
        let people = &[PeerKind::User, PeerKind::Bot, PeerKind::Node, PeerKind::Hub];
        // The first that a client speaks too is taken: one that can do both asks for a list, not for gRPC.
        let https = acceptor(
            people,
            Clients::Optional,
            &[Protocol::Http, Protocol::Grpc, Protocol::Ssh],
        )?;
        let internal = acceptor(people, Clients::Required, &[Protocol::Grpc])?;
        let agents = acceptor(
            &[PeerKind::Node],
            Clients::Required,
            &[Protocol::TunnelControl, Protocol::TunnelSession],
        )?;

        let (incoming, queue) = mpsc::channel(QUEUE);
        self.tasks
            .spawn(serve_grpc(self.auth.clone(), recorded, queue));
        self.tasks.spawn(accept_tls(
            ours(listeners.https)?,
            https,
            incoming.clone(),
            self.auth.clone(),
            self.gateway.clone(),
        ));
        self.tasks.spawn(accept_tls(
            ours(listeners.auth)?,
            internal,
            incoming.clone(),
            self.auth.clone(),
            self.gateway.clone(),
        ));
        self.tasks
            .spawn(accept_local(self.bind_socket()?, incoming));
        self.tasks
            .spawn(accept_ssh(ours(listeners.ssh)?, self.gateway.clone()));
        self.tasks
            .spawn(tunnel::spread_hubs(Arc::clone(registry), self.auth.clone()));
        let hooks = Arc::new(AgentHooks::new(self.auth.clone(), Arc::clone(clock)));
        self.tasks.spawn(tunnel::spread_trust(
            Arc::clone(registry),
            Arc::clone(&hooks),
        ));
        self.tasks.spawn(tunnel::serve(
            ours(listeners.tunnel)?,
            agents,
            Arc::clone(registry),
            hooks,
        ));
        Ok(())
    }

    /// What goes on beside the services: the log's keeper, its receivers and its retention, the room on the disk.
    async fn keep(&mut self, exports: Vec<Export>, guard: Option<Guard>) -> Result<(), String> {
        let named = self.auth.name_sinks(&exports).await;
        named.map_err(|error| error.to_string())?;
        for export in exports {
            let auth = self.auth.clone();
            self.tasks.spawn(async move { auth.run_sink(export).await });
        }
        if let Some(guard) = guard {
            self.tasks.spawn(guard.watch(self.auth.clone()));
        }
        let (keeper, retention, bursts) = (self.auth.clone(), self.auth.clone(), self.auth.clone());
        self.tasks.spawn(async move { keeper.run_keeper().await });
        self.tasks
            .spawn(async move { retention.run_log_retention().await });
        self.tasks.spawn(async move { bursts.run_bursts().await });
        Ok(())
    }

    /// The administrators' socket. The lock on the data directory is ours, so one that is there already is a leftover.
    fn bind_socket(&self) -> Result<UnixListener, String> {
        let failed = |error: std::io::Error| {
            format!("cannot listen on `{}`: {error}", self.socket.display())
        };
        match std::fs::remove_file(&self.socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&self.socket).map_err(failed)?;
        std::fs::set_permissions(&self.socket, std::fs::Permissions::from_mode(0o600))
            .map_err(failed)?;
        Ok(listener)
    }

    /// Ends the sessions, seals the log, stops listening. Gives the store back, to be dropped outside the runtime.
    pub(crate) async fn stop(mut self, reason: &str) -> Arc<dyn Store> {
        self.gateway.shutdown(PATIENCE).await;
        if let Err(error) = self.auth.stop(reason).await {
            tracing::error!(%error, "the hub's stop could not be recorded");
        }
        if let Err(error) = self.auth.keep_log().await {
            tracing::error!(%error, "the last events are not sealed yet; the next start seals them");
        }
        self.vault.drain(PATIENCE).await;
        self.tasks.shutdown().await;
        // Nobody else listens there any more.
        drop(std::fs::remove_file(&self.socket));
        self.store
    }
}

/// A socket that was bound before there was a runtime.
fn ours(listener: std::net::TcpListener) -> Result<TcpListener, String> {
    TcpListener::from_std(listener)
        .map_err(|error| format!("a socket cannot be waited for: {error}"))
}

/// Moves the keys at rest to the sealing key of today.
async fn reseal(
    store: &dyn Store,
    clock: &dyn Clock,
    settings: &Settings,
    [previous, sealer]: [&dyn Sealer; 2],
) -> Result<(), String> {
    let moved = mezite_auth::reseal(store, clock, settings, previous, sealer);
    let moved = moved.await.map_err(|error| error.to_string())?;
    tracing::warn!(
        keys = moved,
        "every key at rest is sealed with `sealing` now: remove `sealing_previous` from the configuration, and destroy the old key when no backup needs it"
    );
    Ok(())
}

pub(crate) fn prepare_directory(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |error: std::io::Error| {
        format!(
            "cannot use the data directory `{}`: {error}",
            path.display()
        )
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// Closes journals that a killed hub left behind.
async fn recover_recordings(
    auth: &Auth,
    sink: &dyn Sink,
    journals: Vec<SessionId>,
    signer: &dyn mezite_record::Signer,
) {
    for id in journals {
        let start = sink
            .read(&id, Part::Journal, 0, 128 * 1024)
            .await
            .unwrap_or_default();
        let facts = mezite_record::decode::facts(&start).ok();
        let summary = match recover(sink, id, signer).await {
            Ok(summary) => summary,
            Err(error) => {
                tracing::error!(session = %id, %error, "a recording could not be recovered; its journal stays");
                continue;
            }
        };
        let reported = auth.report(|stamp| {
            SessionRecordingRecovered {
                user_name: facts.as_ref().map(|facts| facts.user.as_str()),
                session_id: id,
                server_id: facts.as_ref().map(|facts| &facts.node_id),
                server_hostname: facts.as_ref().map(|facts| facts.node.as_str()),
                login: facts.as_ref().map(|facts| facts.login.as_str()),
                recording_sha256: &summary.digest,
                recording_bytes: summary.bytes,
            }
            .event(stamp)
        });
        match reported.await {
            Ok(_) => tracing::warn!(session = %id, "a recording was recovered"),
            Err(error) => {
                tracing::error!(session = %id, %error, "a recovered recording could not be reported")
            }
        }
    }
}

/// Closes what hubs with lost disks had uploaded, as soon as the bucket says what that is.
async fn recover_lost(auth: Auth, vault: Vault, signer: Arc<AuditSigner>) {
    loop {
        match vault.fetch_lost().await {
            Ok(lost) => return recover_recordings(&auth, &*vault.sink(), lost, &*signer).await,
            Err(error) => {
                tracing::error!(%error, "sessions of lost hubs cannot be looked for; trying again");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}

/// Signs recordings with the audit key. The format puts its own label before what is signed, so that a signature over a
/// recording is none over a checkpoint.
#[derive(Debug)]
struct AuditSigner(Auth);

impl mezite_record::Signer for AuditSigner {
    fn public_key(&self) -> [u8; 32] {
        self.0.audit_signer().public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], mezite_record::SignError> {
        let signed = self.0.audit_signer().sign(message);
        signed.map_err(|error| mezite_record::SignError(error.to_string()))
    }
}

/// The certificates that the hub shows, and when it is time for others.
struct OwnChain {
    /// DER, leaf first.
    chain: Vec<Vec<u8>>,
    renew_at: UnixTime,
}

async fn hub_credentials(
    auth: &Auth,
    clock: &dyn Clock,
) -> Result<(Credentials, OwnChain), String> {
    let key = SoftwareKey::generate(&mut mezite_net::random::rng());
    let (chain, until) = auth
        .hub_tls(key.public_key())
        .await
        .map_err(|error| error.to_string())?;
    let now = clock.now();
    let two_thirds = Span::from_millis(until.since(now).as_millis() / 3 * 2);
    let credentials = Credentials {
        chain: chain.clone(),
        pkcs8: openssh::pkcs8(key.seed()),
    };
    let renew_at = now.plus(two_thirds);
    Ok((credentials, OwnChain { chain, renew_at }))
}

/// Keeps the hub's TLS certificate fresh: a new key and certificate at two thirds of the old one's life, and at once when
/// another authority's key signs. What the hub shows is noted, because a rotation waits for it.
async fn renew_tls(auth: Auth, own: OwnIdentity, clock: Arc<dyn Clock>, first: OwnChain) {
    let mut changes = auth.trust_changes();
    let mut shown = first;
    loop {
        let stale =
            |shown: &OwnChain| !auth.is_signed_now(&shown.chain) || clock.now() >= shown.renew_at;
        if stale(&shown) {
            match hub_credentials(&auth, clock.as_ref()).await {
                Ok((credentials, chain)) if own.replace(&credentials).is_ok() => shown = chain,
                Ok(_) => tracing::error!("the hub's new TLS certificate cannot be used"),
                Err(error) => tracing::error!(
                    error,
                    "the hub's TLS certificate could not be renewed; trying again"
                ),
            }
        }
        let noted = auth.hub_shows(&shown.chain).await;
        if let Err(error) = &noted {
            tracing::error!(%error, "what this hub shows could not be recorded; trying again");
        }
        let pause = if noted.is_err() || stale(&shown) {
            RENEW_AGAIN
        } else {
            shown.renew_at.since(clock.now()).as_duration()
        };
        tokio::select! {
            changed = changes.changed() => if !changed {
                return;
            },
            () = tokio::time::sleep(pause.max(BREATH)) => {}
        }
    }
}

/// Tells of a failed `accept` and lets others finish.
pub(crate) async fn accept_failed(error: &std::io::Error) {
    tracing::error!(%error, "a connection could not be accepted");
    tokio::time::sleep(BREATH).await;
}

async fn accept_ssh(listener: TcpListener, gateway: Gateway) {
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                let gateway = gateway.clone();
                tokio::spawn(async move {
                    if stream.set_nodelay(true).is_ok() {
                        gateway.serve(stream, source).await;
                    }
                });
            }
            Err(error) => accept_failed(&error).await,
        }
    }
}

async fn accept_tls(
    listener: TcpListener,
    acceptor: Acceptor,
    incoming: Incoming,
    auth: Auth,
    gateway: Gateway,
) {
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                let (acceptor, incoming) = (acceptor.clone(), incoming.clone());
                let (auth, gateway) = (auth.clone(), gateway.clone());
                tokio::spawn(async move {
                    take_tls(stream, source, &acceptor, &incoming, auth, &gateway).await
                });
            }
            Err(error) => accept_failed(&error).await,
        }
    }
}

type Incoming = mpsc::Sender<std::io::Result<Identified>>;

async fn take_tls(
    stream: TcpStream,
    source: SocketAddr,
    acceptor: &Acceptor,
    incoming: &Incoming,
    auth: Auth,
    gateway: &Gateway,
) {
    let (tls, peer) = match acceptor.accept(stream, &source.to_string()).await {
        Ok(accepted) => accepted,
        Err(error) => return tracing::debug!(%error, "a TLS connection was not let in"),
    };
    if peer.protocol == Protocol::Http {
        return http::serve(tls, auth).await;
    }
    if peer.protocol == Protocol::Ssh {
        return proxied::serve(tls, peer.identity.as_deref(), source, gateway).await;
    }
    let connection = Connection::Remote {
        address: source,
        peer: peer.identity,
    };
    // The server is gone only when the hub stops.
    drop(incoming.send(Ok(Identified::new(tls, connection))).await);
}

/// Only root and the hub's own user may administer through the socket, whatever its mode was changed to.
async fn accept_local(listener: UnixListener, incoming: Incoming) {
    let own = nix::unistd::geteuid().as_raw();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match stream.peer_cred().map(|peer| peer.uid()) {
                Ok(uid) if uid == own || uid == 0 => {
                    let identified = Identified::new(stream, Connection::Local { uid });
                    drop(incoming.send(Ok(identified)).await);
                }
                Ok(uid) => tracing::warn!(
                    uid,
                    "a user without the right to it used the administrators' socket"
                ),
                Err(error) => {
                    tracing::warn!(%error, "an unknown process used the administrators' socket")
                }
            },
            Err(error) => accept_failed(&error).await,
        }
    }
}

async fn serve_grpc(
    auth: Auth,
    recorded: Arc<dyn RecordingSource>,
    queue: mpsc::Receiver<std::io::Result<Identified>>,
) {
    let server = Server::builder()
        .max_concurrent_streams(Some(64))
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(InterceptedService::new(
            grpc::access(auth.clone()),
            identify,
        ))
        .add_service(InterceptedService::new(grpc::hub(auth, recorded), identify));
    if let Err(error) = server.serve_with_incoming(ReceiverStream::new(queue)).await {
        tracing::error!(%error, "the API stopped");
    }
}

/// Puts who called into the request, from what TLS or the kernel has proven.
fn identify(mut request: Request<()>) -> Result<Request<()>, Status> {
    let caller = match request.extensions().get::<Connection>() {
        Some(Connection::Local { uid }) => (Caller::Local { uid: *uid }, None),
        Some(Connection::Remote {
            address,
            peer: None,
        }) => (Caller::Anonymous, Some(address.ip())),
        Some(Connection::Remote {
            address,
            peer: Some(peer),
        }) => (Caller::Peer(peer.as_ref().clone()), Some(address.ip())),
        None => (Caller::Anonymous, None),
    };
    let (caller, source) = caller;
    request.extensions_mut().insert(caller);
    if let Some(source) = source {
        request.extensions_mut().insert(Source(source));
    }
    Ok(request)
}
