//! The agent: joins a cluster once, then keeps a control connection to every hub, dials back for each session and renews
//! its certificates. It listens nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use mezite_api::v1::JoinRequest;
use mezite_api::v1::access_client::AccessClient;
use mezite_ca::{GenerationState, KeyKind, PeerKind, Signer, TrustBundle, openssh};
use mezite_core::{Clock, Labels, NodeName, Span, UnixTime};
use mezite_net::tls::{Accept, Connector, OwnIdentity, Protocol, TlsError};
use mezite_net::tunnel::{
    ControlError, ControlReader, ControlWriter, Renewed, ToAgent, ToHub, split,
};
use mezite_net::{ByteStream, grpc};
use rand::RngExt;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::break_glass::Spool;
use crate::serve::Serving;
use crate::state::{Directory, Keys, Node, State, StateError};

/// How often the agent says that it is alive.
const ALIVE: Duration = Duration::from_secs(15);

/// A hub that says nothing for so long after being asked is taken for gone.
const GREETING: Duration = Duration::from_secs(10);

/// Reconnection starts here and doubles, with jitter, up to [`SLOWEST`].
const FASTEST: Duration = Duration::from_millis(250);

/// The longest pause between two attempts to reach the hub.
const SLOWEST: Duration = Duration::from_secs(15);

/// How often uses of break-glass that are not acknowledged are told.
const SPOOLED: Duration = Duration::from_secs(2);

/// Most of them at a time: the hub answers each.
const MOST_USES: usize = 16;

/// Most connections at the break-glass door. Few people hold a key; others are held off by their number.
const MOST_BREAK_GLASS: usize = 32;

/// How logins are served.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the two modes of the design")]
pub enum Mode {
    /// The agent is the SSH server.
    Builtin,
    /// The stream is carried to the sshd at this `host:port` on the same machine.
    Openssh(String),
}

/// What a newcomer needs to join.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "what the command line gives")]
pub struct Joining {
    /// `host:port` of the hub's HTTPS port.
    pub hub: String,
    /// The one-time token.
    pub token: String,
    /// `sha256:…` of the hub's authority.
    pub ca_pin: String,
    /// The wanted name.
    pub name: NodeName,
    /// Labels the node says of itself.
    pub labels: Labels,
}

/// Why the node is not joined.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The hub cannot be reached, or is not the pinned one.
    #[error("{0}; is the address right, and does --ca-pin fit this hub?")]
    Connect(#[from] TlsError),
    /// The hub said no, with these words.
    #[error("the hub refused: {0}")]
    Refused(String),
    /// The hub cannot take nodes now.
    #[error("the hub cannot answer now: {0}; try again later")]
    Unavailable(String),
    /// What the hub sent cannot be used.
    #[error("the hub's answer cannot be used: {0}")]
    Answer(String),
    /// The state cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Uses a token to become a node of the hub's cluster, and keeps what that gives in `directory`.
///
/// # Errors
/// [`JoinError`]; then nothing is left behind in the directory.
pub async fn join(
    directory: &Directory,
    joining: Joining,
    clock: Arc<dyn Clock>,
) -> Result<Node, JoinError> {
    directory.must_be_empty()?;
    let connector = Connector::new(
        None,
        Accept::PinnedHub(joining.ca_pin),
        Protocol::Grpc,
        Arc::clone(&clock),
    )?;
    let channel = grpc::connect(connector, &joining.hub).await?;
    let keys = Keys::generate();
    let host_key = openssh::public_key(keys.host.public_key());
    let request = JoinRequest {
        token: joining.token,
        node_name: joining.name.to_string(),
        labels: BTreeMap::from(joining.labels).into_iter().collect(),
        host_public_key: host_key
            .to_openssh()
            .map_err(|error| JoinError::Answer(error.to_string()))?,
        tls_public_key: keys.tls.public_key().to_vec(),
        client_time_ms: clock.now().as_millis(),
    };
    let refused = |status: tonic::Status| {
        let words = status.message().to_owned();
        if status.code() == tonic::Code::Unavailable {
            JoinError::Unavailable(words)
        } else {
            JoinError::Refused(words)
        }
    };
    let joined = AccessClient::new(channel)
        .join(request)
        .await
        .map_err(refused)?
        .into_inner();
    let unusable = |error: &dyn fmt::Display| JoinError::Answer(error.to_string());
    let node = Node {
        version: 0,
        id: joined.node_id.parse().map_err(|error| unusable(&error))?,
        name: joined.node_name.parse().map_err(|error| unusable(&error))?,
        cluster: joined.cluster.parse().map_err(|error| unusable(&error))?,
        tunnel: joined.tunnel_address,
        hubs: Vec::new(),
        host_certificate: joined.host_certificate,
        tls_chain: joined
            .tls_chain
            .iter()
            .map(|der| data_encoding::HEXLOWER.encode(der))
            .collect(),
        valid_before: UnixTime::from_millis(joined.valid_before_ms),
        issued: clock.now(),
        trust: serde_json::from_str(&joined.trust).map_err(|error| unusable(&error))?,
    };
    let state = State { node, keys };
    state.server_identity().map_err(JoinError::Answer)?;
    directory.save(&state)?;
    Ok(state.node)
}

/// A running agent.
pub struct Agent {
    directory: Directory,
    spool: Spool,
    clock: Arc<dyn Clock>,
    mode: Mode,
    labels: Labels,
    serving: Arc<Serving>,
    own: OwnIdentity,
    trust: Arc<RwLock<Arc<TrustBundle>>>,
    state: Mutex<State>,
    /// Hubs that the operator or the joining named: they stay, whatever the hubs tell.
    named: BTreeSet<String>,
    /// These, and those that the hubs tell of.
    hubs: watch::Sender<BTreeSet<String>>,
    /// One renewal at a time, though each hub could give it.
    renewing: Arc<Semaphore>,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("serving", &self.serving)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Why the agent cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// A key or certificate in it cannot be used.
    #[error("the node's keys cannot be used: {0}")]
    Keys(String),
    /// The certificates ran out while the agent was off.
    #[error("the node's certificates expired at {0}: remove the node at the hub and join it anew")]
    Expired(UnixTime),
}

impl Agent {
    /// Reads the node's state from `directory`. `hubs` are tunnel addresses to use instead of the one learned when the
    /// node joined; a hub tells of the others.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn open(
        directory: Directory,
        labels: Labels,
        mode: Mode,
        hubs: Vec<String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, AgentError> {
        let state = directory.load()?;
        if state.node.valid_before <= clock.now() {
            return Err(AgentError::Expired(state.node.valid_before));
        }
        let identity = state.server_identity().map_err(AgentError::Keys)?;
        let credentials = state.credentials().map_err(AgentError::Keys)?;
        let own =
            OwnIdentity::new(&credentials).map_err(|error| AgentError::Keys(error.to_string()))?;
        let named = match hubs.as_slice() {
            [] => BTreeSet::from([state.node.tunnel.clone()]),
            _ => BTreeSet::from_iter(hubs),
        };
        let known = named.iter().chain(&state.node.hubs).cloned().collect();
        let trust = state.node.trust.clone();
        let serving = Serving::new(
            state.node.id.clone(),
            identity,
            trust.clone(),
            Arc::clone(&clock),
        );
        Ok(Arc::new(Self {
            spool: Spool::new(directory.clone()),
            directory,
            clock,
            mode,
            labels,
            serving: Arc::new(serving),
            own,
            trust: Arc::new(RwLock::new(Arc::new(trust))),
            state: Mutex::new(state),
            named,
            hubs: watch::Sender::new(known),
            renewing: Arc::new(Semaphore::new(1)),
        }))
    }

    /// In mode `openssh`, writes what the local sshd needs to be this node; gives the file to include in its
    /// `sshd_config`.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn prepare_sshd(&self) -> Result<Option<PathBuf>, StateError> {
        if self.mode == Mode::Builtin {
            return Ok(None);
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.directory.write_sshd(&state).map(Some)
    }

    /// Who this node is.
    #[must_use]
    pub fn node(&self) -> Node {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .node
            .clone()
    }

    /// The tunnel addresses of the hubs that it keeps a connection to.
    #[must_use]
    pub fn hubs(&self) -> Vec<String> {
        self.hubs.borrow().iter().cloned().collect()
    }

    /// Keeps a control connection to every hub it knows of, until one refuses the node for good, and says with which words.
    /// `connected` is called with its address each time a hub has greeted the agent.
    pub async fn run(
        self: Arc<Self>,
        connected: impl Fn(&str) + Clone + Send + Sync + 'static,
    ) -> String {
        let mut hubs = self.hubs.subscribe();
        let mut running: BTreeMap<String, AbortHandle> = BTreeMap::new();
        // Dropped, it ends them all.
        let mut connections = JoinSet::new();
        loop {
            let wanted = hubs.borrow_and_update().clone();
            running.retain(|hub, connection| {
                let stays = wanted.contains(hub);
                if !stays {
                    connection.abort();
                }
                stays
            });
            for hub in wanted {
                running.entry(hub).or_insert_with_key(|hub| {
                    connections.spawn(Arc::clone(&self).keep(hub.clone(), connected.clone()))
                });
            }
            tokio::select! {
                ended = connections.join_next(), if !connections.is_empty() => {
                    // Those that were aborted have nothing to say.
                    if let Some(Ok(reason)) = ended {
                        return reason;
                    }
                }
                _ = hubs.changed() => {}
            }
        }
    }

    /// Keeps the control connection to one hub.
    async fn keep(
        self: Arc<Self>,
        hub: String,
        connected: impl Fn(&str) + Clone + Send + Sync + 'static,
    ) -> String {
        let mut pause = FASTEST;
        loop {
            match self.connection(&hub, &connected).await {
                Ended::Refused(reason) => return reason,
                Ended::Lost { error, greeted } => {
                    if greeted {
                        pause = FASTEST;
                    }
                    tracing::warn!(
                        hub,
                        error,
                        retry_ms = pause.as_millis(),
                        "no control connection to the hub"
                    );
                }
            }
            let jitter = mezite_net::random::rng().random_range(0.5..1.0);
            tokio::time::sleep(pause.mul_f64(jitter)).await;
            pause = (pause * 2).min(SLOWEST);
        }
    }

    async fn connection(
        self: &Arc<Self>,
        hub: &str,
        connected: &(impl Fn(&str) + Send + Sync),
    ) -> Ended {
        let lost = |error: &dyn fmt::Display, greeted| Ended::Lost {
            error: error.to_string(),
            greeted,
        };
        let stream = match self.connect(hub, Protocol::TunnelControl).await {
            Ok(stream) => stream,
            Err(error) => return lost(&error, false),
        };
        let (mut reader, mut writer) = split(stream);
        match self.greet(&mut reader, &mut writer).await {
            Ok(None) => connected(hub),
            Ok(Some(reason)) => return Ended::Refused(reason),
            Err(error) => return lost(&error, false),
        }
        if let Err(error) = writer.send(&self.report()).await {
            return lost(&error, true);
        }
        let (failures, mut failed) = mpsc::channel::<ToHub>(16);
        let mut renewal: Option<Renewal> = None;
        // Reading is not cancel-safe, so it gets a task's worth of its own future and a queue.
        let (messages, mut received) = mpsc::channel(16);
        let reading = async {
            loop {
                let message = reader.next::<ToAgent>().await?;
                if messages.send(message).await.is_err() {
                    return Ok::<(), ControlError>(());
                }
            }
        };
        tokio::pin!(reading);
        let mut alive = tokio::time::interval(ALIVE);
        let mut spooled = tokio::time::interval(SPOOLED);
        loop {
            let next = tokio::select! {
                ended = &mut reading => return match ended {
                    Ok(()) => lost(&"closed", true),
                    Err(error) => lost(&error, true),
                },
                Some(message) = received.recv() => self.take(hub, message, &failures, &mut renewal),
                Some(failure) = failed.recv() => Some(failure),
                _ = spooled.tick() => match self.tell_uses(&mut writer).await {
                    Ok(()) => None,
                    Err(error) => return lost(&error, true),
                },
                // While keys are replaced, what was adopted is told again and again: a hub may have failed to keep it.
                _ = alive.tick() => Some(if self.keys_are_replaced() { self.report() } else { ToHub::Alive }),
            };
            let Some(next) = next else { continue };
            let mut sent = writer.send(&next).await;
            let may_renew = matches!(next, ToHub::Alive | ToHub::Adopted { .. });
            if sent.is_ok()
                && may_renew
                && let Some((asked, request)) = self.renewal(renewal.is_some())
            {
                renewal = Some(asked);
                sent = writer.send(&request).await;
            }
            if let Err(error) = sent {
                return lost(&error, true);
            }
        }
    }

    /// Does what the hub says, and gives what it is to be told.
    fn take(
        self: &Arc<Self>,
        hub: &str,
        message: ToAgent,
        failures: &mpsc::Sender<ToHub>,
        renewal: &mut Option<Renewal>,
    ) -> Option<ToHub> {
        match message {
            ToAgent::Dial { id } => self.dial_back(hub, id, failures.clone()),
            ToAgent::Hubs { addresses } => self.take_hubs(addresses),
            ToAgent::Renewed(renewed) => {
                self.take_renewed(renewed, renewal.take());
                return Some(self.report());
            }
            ToAgent::Refused { reason } => {
                // The keys that the request was for are of no use, and the next tick asks again.
                *renewal = None;
                tracing::error!(hub, reason, "the hub refused a request");
            }
            ToAgent::Trust { trust } | ToAgent::Welcome { trust } => {
                self.take_trust(&trust);
                return Some(self.report());
            }
            ToAgent::BreakGlassNoted { id } => self.spool.acknowledged(&id),
            _ => tracing::warn!("the hub sent a message that this agent does not know"),
        }
        None
    }

    /// Which keys this node trusts and has on its disk, and which signed what it holds.
    fn report(&self) -> ToHub {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let node = &state.node;
        let trusts = [KeyKind::HostTls, KeyKind::Session]
            .map(|kind| (kind.to_string(), node.trust.fingerprints(kind)));
        let holds = state.signers().into_iter().filter(|(kind, _)| {
            // What the sshd beside us shows is not what we have given it until it is reloaded: the hub looks.
            self.mode == Mode::Builtin || *kind != KeyKind::Node
        });
        ToHub::Adopted {
            trusts: trusts.into(),
            holds: holds.map(|(kind, by)| (kind.to_string(), by)).collect(),
        }
    }

    fn keys_are_replaced(&self) -> bool {
        !self.node().trust.generations.is_empty()
    }

    /// Tells every break-glass use that no hub has acknowledged, each time anew.
    async fn tell_uses<S: ByteStream>(
        &self,
        writer: &mut ControlWriter<S>,
    ) -> Result<(), ControlError> {
        match self.spool.waiting() {
            Ok(waiting) => {
                for used in waiting.into_iter().take(MOST_USES) {
                    writer.send(&ToHub::BreakGlassUsed(used)).await?;
                }
            }
            Err(error) => tracing::error!(%error, "uses of break-glass cannot be read"),
        }
        Ok(())
    }

    /// Lets people in who show a break-glass certificate, as long as the agent runs.
    pub async fn serve_break_glass(self: Arc<Self>, listener: TcpListener) -> Infallible {
        let doors = Arc::new(Semaphore::new(MOST_BREAK_GLASS));
        loop {
            let (stream, source) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::error!(%error, "a connection could not be accepted");
                    tokio::time::sleep(FASTEST).await;
                    continue;
                }
            };
            let Ok(door) = Arc::clone(&doors).try_acquire_owned() else {
                tracing::warn!(%source, "too many connections with break-glass at once");
                continue;
            };
            let (serving, spool) = (Arc::clone(&self.serving), self.spool.clone());
            tokio::spawn(async move {
                if stream.set_nodelay(true).is_ok() {
                    serving.serve_break_glass(stream, source.ip(), spool).await;
                }
                drop(door);
            });
        }
    }

    /// `Some` is the reason of a refusal.
    async fn greet<S: ByteStream>(
        &self,
        reader: &mut ControlReader<S>,
        writer: &mut ControlWriter<S>,
    ) -> Result<Option<String>, ControlError> {
        let labels = BTreeMap::from(self.labels.clone());
        writer
            .send(&ToHub::Hello {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                labels,
            })
            .await?;
        let greeting = tokio::time::timeout(GREETING, reader.next::<ToAgent>()).await;
        match greeting.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?? {
            ToAgent::Welcome { trust } => {
                self.take_trust(&trust);
                Ok(None)
            }
            ToAgent::Refused { reason } => Ok(Some(reason)),
            ToAgent::Dial { .. } | ToAgent::Renewed(_) | _ => {
                Err(ControlError::Unreadable(String::from("no greeting")))
            }
        }
    }

    async fn connect(
        &self,
        hub: &str,
        protocol: Protocol,
    ) -> Result<impl ByteStream + use<>, TlsError> {
        let trust = Arc::clone(&self.trust);
        let source = move || Arc::clone(&trust.read().unwrap_or_else(PoisonError::into_inner));
        let accept = Accept::Kinds(Arc::new(source), &[PeerKind::Hub]);
        let connector = Connector::new(
            Some(self.own.clone()),
            accept,
            protocol,
            Arc::clone(&self.clock),
        )?;
        connector.connect(hub).await
    }

    fn dial_back(self: &Arc<Self>, hub: &str, id: String, failures: mpsc::Sender<ToHub>) {
        let (agent, hub) = (Arc::clone(self), hub.to_owned());
        tokio::spawn(async move {
            if let Err(error) = agent.serve_session(&hub, &id).await {
                tracing::warn!(error, "could not dial back");
                // If the control connection is gone too, the hub's own deadline tells it.
                drop(failures.send(ToHub::DialFailed { id, error }).await);
            }
        });
    }

    async fn serve_session(&self, hub: &str, id: &str) -> Result<(), String> {
        let id = data_encoding::HEXLOWER
            .decode(id.as_bytes())
            .map_err(|error| error.to_string())?;
        // The local sshd first: if it is not there, the hub learns why.
        let local = match &self.mode {
            Mode::Builtin => None,
            Mode::Openssh(address) => {
                let stream = TcpStream::connect(address).await;
                let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
                Some(
                    stream.map_err(|error| {
                        format!("the sshd at {address} does not answer: {error}")
                    })?,
                )
            }
        };
        let mut stream = self
            .connect(hub, Protocol::TunnelSession)
            .await
            .map_err(|error| error.to_string())?;
        stream
            .write_all(&id)
            .await
            .map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        match local {
            None => Arc::clone(&self.serving).serve(stream).await,
            Some(mut local) => {
                // Either side may go first; both are closed then.
                drop(
                    tokio::io::copy_bidirectional_with_sizes(
                        &mut stream,
                        &mut local,
                        65_536,
                        65_536,
                    )
                    .await,
                );
            }
        }
        Ok(())
    }

    /// At two thirds of the certificates' life, or when a key that signed one of them is on its way out.
    fn renewal_is_due(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let node = &state.node;
        let life = node.valid_before.since(node.issued).as_millis();
        let retiring = |(kind, by): &(KeyKind, String)| {
            let mut notes = node.trust.generations.iter();
            notes.any(|note| {
                note.kind == *kind
                    && note.fingerprint == *by
                    && note.state == GenerationState::Retiring
            })
        };
        self.clock.now() >= node.issued.plus(Span::from_millis(life / 3 * 2))
            || state.signers().iter().any(retiring)
    }

    /// A request for fresh certificates, if they are due and no other hub is being asked.
    fn renewal(&self, asked: bool) -> Option<(Renewal, ToHub)> {
        if asked || !self.renewal_is_due() {
            return None;
        }
        let turn = Arc::clone(&self.renewing).try_acquire_owned().ok()?;
        let (keys, request) = renewal_request();
        Some((Renewal { keys, _turn: turn }, request))
    }

    /// Kept on disk, so that a node that starts again finds the cluster though the hub it knew is gone.
    fn take_hubs(&self, addresses: Vec<String>) {
        let known: BTreeSet<String> = self.named.iter().chain(&addresses).cloned().collect();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.node.hubs != addresses {
            state.node.hubs = addresses;
            if let Err(error) = self.directory.save_node(&state.node) {
                tracing::error!(%error, "the hubs' addresses cannot be kept");
            }
        }
        drop(state);
        self.hubs.send_if_modified(|hubs| {
            let changed = *hubs != known;
            *hubs = known;
            changed
        });
    }

    fn take_trust(&self, text: &str) {
        match serde_json::from_str::<TrustBundle>(text) {
            Ok(trust) if trust.cluster == self.node().cluster => self.trust_now(trust),
            Ok(trust) => {
                tracing::error!(cluster = %trust.cluster, "the hub sent another cluster's trust")
            }
            Err(error) => tracing::error!(%error, "the hub sent an unreadable trust bundle"),
        }
    }

    /// Kept on disk first: what a restart would forget is not reported as adopted.
    fn trust_now(&self, trust: TrustBundle) {
        self.use_trust(&trust);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.node.trust == trust {
            return;
        }
        let before = std::mem::replace(&mut state.node.trust, trust);
        let kept = self
            .directory
            .save_node(&state.node)
            .and_then(|()| match self.mode {
                Mode::Builtin => Ok(()),
                Mode::Openssh(_) => self.directory.write_sshd(&state).map(|_| ()),
            });
        match kept {
            Ok(()) => tracing::info!("the hub's authorities have changed"),
            Err(error) => {
                state.node.trust = before;
                tracing::error!(%error, "the hub's authorities have changed and cannot be kept");
            }
        }
    }

    fn use_trust(&self, trust: &TrustBundle) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust.clone());
        self.serving.trust_now(trust.clone());
    }

    fn take_renewed(&self, renewed: Renewed, renewal: Option<Renewal>) {
        let Some(Renewal { keys, _turn }) = renewal else {
            return tracing::warn!("the hub sent certificates that nobody asked for");
        };
        match self.renew(renewed, keys) {
            Ok(until) => tracing::info!(%until, "certificates renewed"),
            Err(error) => {
                return tracing::error!(error, "renewed certificates cannot be used");
            }
        }
        match self.prepare_sshd() {
            Ok(None) => {}
            Ok(Some(_)) => tracing::warn!("the local sshd has a new host key: reload it"),
            Err(error) => {
                tracing::error!(%error, "the new host key cannot be given to the local sshd")
            }
        }
    }

    /// Kept on disk first, then used.
    fn renew(&self, renewed: Renewed, keys: Keys) -> Result<UnixTime, String> {
        let certificate = ssh_key::Certificate::from_openssh(&renewed.host_certificate);
        let until = UnixTime::from_secs(
            certificate
                .map_err(|error| error.to_string())?
                .valid_before(),
        );
        let trust: TrustBundle =
            serde_json::from_str(&renewed.trust).map_err(|error| error.to_string())?;
        let node = Node {
            host_certificate: renewed.host_certificate,
            tls_chain: renewed.tls_chain,
            valid_before: until,
            issued: self.clock.now(),
            trust,
            ..self.node()
        };
        let state = State { node, keys };
        let (identity, credentials) = (state.server_identity()?, state.credentials()?);
        self.directory
            .save(&state)
            .map_err(|error| error.to_string())?;
        self.own
            .replace(&credentials)
            .map_err(|error| error.to_string())?;
        self.serving.renew(identity, state.node.trust.clone());
        self.use_trust(&state.node.trust);
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(until)
    }
}

/// A renewal that was asked for: the keys it is for, and the turn, which nobody else has meanwhile.
struct Renewal {
    keys: Keys,
    _turn: OwnedSemaphorePermit,
}

/// How a control connection ended.
enum Ended {
    /// The hub will not serve this node.
    Refused(String),
    /// Worth another try.
    Lost { error: String, greeted: bool },
}

fn renewal_request() -> (Keys, ToHub) {
    let keys = Keys::generate();
    let host_key = openssh::public_key(keys.host.public_key())
        .to_openssh()
        .unwrap_or_default();
    let tls_key = data_encoding::HEXLOWER.encode(&keys.tls.public_key());
    (keys, ToHub::Renew { host_key, tls_key })
}
