//! A gateway among fakes: an authority that really decides and really signs, a node at the other end of a pipe, a sink
//! in memory. What reaches the world is written down in order; each thing can be made to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mezite_audit::Stamp;
use mezite_ca::verify::{self, Revocable, VerifiedIdentity, VerifyError};
use mezite_ca::{
    GatewayKey, IdentityKey, IdentityRequest, NodeKey, Permissions, SessionKey, SessionRequest,
    SoftwareKey, TrustBundle, openssh,
};
use mezite_core::{
    Clock, ClusterName, Login, NodeId, NodeName, Secret, Serial, SessionId, Span, UnixTime,
    UserName,
};
use mezite_net::ByteStream;
use mezite_net::clock::SystemClock;
use mezite_net::ssh::{
    Attempt, Authenticator, Channel, Client, Incoming, Message, Request, ServerIdentity, SshError,
    accept,
};
use mezite_proxy::authority::{
    Authority, FailedAttempt, Grant, Make, Node, Reach, Refusal, Unavailable,
};
use mezite_proxy::dial::{Dialer, Unreachable};
use mezite_proxy::gateway::{Gateway, Recordings};
use mezite_rbac::{
    Decision, NodeLabels, Obligations, Permit, PolicySet, Role, Subject, Traits, authorize,
};
use mezite_record::sink::conformance::{FaultySink, Obstacle, Step as SinkStep};
use mezite_record::{Identity, MemorySink, Part, Sink, sink::SinkError};
use ssh_key::{Certificate, PrivateKey, PublicKey};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::watch;

/// A step that can be made to fail, by its name in [`House::steps`].
pub(crate) type Step = &'static str;

/// What happened, in order, and which steps fail.
#[derive(Debug, Default)]
pub(crate) struct Book {
    steps: Mutex<Vec<String>>,
    failing: Mutex<BTreeSet<Step>>,
    hanging: Mutex<BTreeSet<Step>>,
    slow: Mutex<BTreeSet<Step>>,
}

impl Book {
    fn note(&self, step: impl Into<String>) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.push(step.into());
    }

    fn fails(&self, step: &str) -> bool {
        self.failing.lock().unwrap().contains(step)
    }

    /// Waits while the step hangs.
    async fn reach(&self, step: &str) {
        while self.hanging.lock().unwrap().contains(step) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if self.slow.lock().unwrap().contains(step) {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}

pub(crate) fn now() -> UnixTime {
    SystemClock.now()
}

fn cluster() -> ClusterName {
    "test".parse().unwrap()
}

pub(crate) fn software(number: u8) -> Arc<SoftwareKey> {
    Arc::new(SoftwareKey::from_seed(Secret::new([number; 32])))
}

pub(crate) fn private(number: u8) -> PrivateKey {
    let text = openssh::private_key(software(number).seed(), "").unwrap();
    PrivateKey::from_openssh(text.expose()).unwrap()
}

fn serial() -> Serial {
    Serial::from_u64(7)
}

fn node_id() -> NodeId {
    NodeId::new([1; 16])
}

/// What the hub issues to `user` over key `number`.
pub(crate) fn identity(user: &str, number: u8, ttl: Span) -> Certificate {
    let key = private(number);
    let request = IdentityRequest {
        cluster: &cluster(),
        user: &user.parse().unwrap(),
        public_key: key.public_key(),
        ttl,
        ceiling: Span::from_secs(3600),
    };
    IdentityKey::new(software(1))
        .issue(&request, serial(), now(), &mut rand::rng())
        .unwrap()
}

fn trust() -> TrustBundle {
    let mut trust = TrustBundle::empty(cluster());
    trust
        .identity
        .push(IdentityKey::new(software(1)).public_key());
    trust.node.push(NodeKey::new(software(2)).public_key());
    trust
        .session
        .push(SessionKey::new(software(4)).public_key());
    trust
        .gateway
        .push(GatewayKey::new(software(3)).public_key());
    trust
}

/// Decides by one role: `alice` may be `app` on `db1`.
#[derive(Debug)]
struct FakeAuthority {
    book: Arc<Book>,
    cluster: ClusterName,
    policy: PolicySet,
    changes: watch::Sender<u64>,
    ended: Arc<Mutex<Option<String>>>,
    clock: Arc<SetClock>,
    watchers: watch::Sender<BTreeSet<String>>,
}

/// The hub's clock: the system's, set forward or back.
#[derive(Debug, Default)]
struct SetClock(AtomicI64);

impl SetClock {
    fn now(&self) -> UnixTime {
        let seconds = self.0.load(Ordering::Relaxed);
        let by = Span::from_secs(seconds.unsigned_abs());
        if seconds < 0 {
            now().minus(by)
        } else {
            now().plus(by)
        }
    }
}

#[async_trait]
impl Authority for FakeAuthority {
    fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    fn now(&self) -> UnixTime {
        self.clock.now()
    }

    fn trust(&self) -> Arc<TrustBundle> {
        Arc::new(trust())
    }

    fn hub_names(&self) -> Vec<String> {
        vec![String::from("hub.test")]
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn verify(&self, certificate: &[u8], source: IpAddr) -> Result<VerifiedIdentity, VerifyError> {
        let trust = trust();
        let context = verify::Context {
            trust: &trust,
            now: self.now(),
            source: Some(source),
            revoked: &|_| false,
        };
        verify::identity(certificate, &context)
    }

    fn is_revoked(&self, _certificate: &Revocable<'_>) -> bool {
        false
    }

    async fn admit(&self, identity: &VerifiedIdentity, _source: IpAddr) -> Result<(), Refusal> {
        self.book.note(format!("admit {}", identity.user()));
        Ok(())
    }

    async fn report_attempt(&self, attempt: FailedAttempt<'_>) {
        self.book.note(format!("attempt {}", attempt.claimed_user));
        self.book.note(format!("error {}", attempt.error));
    }

    async fn gateway_identity(&self, names: &[String]) -> Result<ServerIdentity, Unavailable> {
        let key = private(11);
        let certificate = GatewayKey::new(software(3))
            .issue(names, key.public_key(), serial(), now(), &mut rand::rng())
            .unwrap();
        Ok(ServerIdentity { key, certificate })
    }

    async fn find_node(
        &self,
        _user: &UserName,
        name: &NodeName,
        _source: IpAddr,
    ) -> Result<Node, Refusal> {
        let facts = mezite_rbac::Node {
            id: node_id(),
            name: name.clone(),
            labels: NodeLabels::default(),
        };
        Ok(Node {
            facts,
            reach: Reach::Tunnel,
        })
    }

    async fn authorize(
        &self,
        identity: &VerifiedIdentity,
        node: &Node,
        login: &Login,
        source: IpAddr,
        session: SessionId,
    ) -> Result<Box<dyn Grant>, Refusal> {
        let subject = Subject {
            user: identity.user().clone(),
            roles: vec!["app".parse().unwrap()],
            internal: Traits::default(),
            external: Traits::default(),
        };
        let request = mezite_rbac::Request {
            subject: &subject,
            node: &node.facts,
            login,
            source: Some(source),
        };
        match authorize(&self.policy, &request) {
            Decision::Allow(permit) => {
                self.book.note("permit");
                Ok(Box::new(FakeGrant {
                    book: Arc::clone(&self.book),
                    permit,
                    session,
                    deadline: identity.valid_before(),
                    ended: Arc::clone(&self.ended),
                    watchers: self.watchers.subscribe(),
                }))
            }
            Decision::Deny(denial) => {
                self.book.note("denial");
                Err(Refusal {
                    message: format!("no: {}", denial.reason().as_str()),
                })
            }
        }
    }

    async fn report(&self, make: Make<'_>) -> Result<(), Unavailable> {
        let event = make(&Stamp {
            now: self.now(),
            random: [[1; 16], [2; 16]],
            cluster: &self.cluster,
        });
        if self.book.fails("report") {
            return Err(Unavailable(String::from("the disk is full")));
        }
        self.book.note(event.event_type);
        if let Some(action) = event.text("action") {
            self.book.note(format!("{} {action}", event.event_type));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FakeGrant {
    book: Arc<Book>,
    permit: Permit,
    session: SessionId,
    deadline: UnixTime,
    ended: Arc<Mutex<Option<String>>>,
    watchers: watch::Receiver<BTreeSet<String>>,
}

#[async_trait]
impl Grant for FakeGrant {
    fn permit(&self) -> &Permit {
        &self.permit
    }

    fn deadline(&self) -> UnixTime {
        self.deadline
    }

    async fn issue_session(&self, key: &PublicKey) -> Result<Certificate, Unavailable> {
        self.book.note("mint");
        let request = SessionRequest {
            session_id: self.session,
            user: &self.permit.subject().user,
            node_id: &node_id(),
            login: self.permit.login(),
            public_key: key,
            permissions: Permissions::default(),
            obligations: &[],
            source_addresses: &[],
        };
        let key = SessionKey::new(software(4));
        Ok(key
            .issue(&request, serial(), now(), &mut rand::rng())
            .unwrap())
    }

    async fn accepted(&self, _certificate: &Certificate) {}

    fn watchers(&self) -> watch::Receiver<BTreeSet<String>> {
        self.watchers.clone()
    }

    fn recheck(&self) -> Result<Obligations, String> {
        match &*self.ended.lock().unwrap() {
            None => Ok(self.permit.obligations().clone()),
            Some(words) => Err(words.clone()),
        }
    }
}

/// Gives one end of a pipe and puts a node at the other.
#[derive(Debug)]
struct FakeDialer(Arc<Book>);

#[async_trait]
impl Dialer for FakeDialer {
    async fn dial(&self, _node: &Node) -> Result<Box<dyn ByteStream>, Unreachable> {
        if self.0.fails("dial") {
            let address = String::from("db1:22");
            let error = std::io::ErrorKind::ConnectionRefused.into();
            return Err(Unreachable::Tcp { address, error });
        }
        let (near, far) = duplex(64 * 1024);
        tokio::spawn(serve_node(far, Arc::clone(&self.0)));
        Ok(Box::new(near))
    }

    fn is_online(&self, _node: &NodeId) -> bool {
        true
    }
}

/// Takes session certificates for `app` on this node.
struct NodeDoor;

#[async_trait]
impl Authenticator for NodeDoor {
    type Proof = ();

    async fn certificate(&mut self, user: &str, blob: &[u8]) -> Option<()> {
        let trust = trust();
        let context = verify::Context {
            trust: &trust,
            now: now(),
            source: None,
            revoked: &|_| false,
        };
        let login = user.parse().ok()?;
        verify::session(blob, &node_id(), &login, &context)
            .ok()
            .map(|_| ())
    }

    async fn refused(&mut self, _user: &str, _attempt: Attempt) {}
}

/// How much `flood` says.
pub(crate) const FLOOD: usize = 4 << 20;

/// `echo` says "hello" and ends with 0, `flood` says a lot and ends; whatever else runs says "running" and goes on until its
/// channel is closed.
async fn serve_node(stream: DuplexStream, book: Arc<Book>) {
    let key = private(12);
    let certificate = NodeKey::new(software(2))
        .issue(
            &node_id(),
            &cluster(),
            key.public_key(),
            serial(),
            now(),
            &mut rand::rng(),
        )
        .unwrap();
    let identity = ServerIdentity { key, certificate };
    let Ok(mut server) = accept(stream, identity, NodeDoor).await else {
        return;
    };
    book.note("node in");
    while let Some(Incoming::Open(pending)) = server.next().await {
        let book = Arc::clone(&book);
        let channel = pending.accept().await;
        tokio::spawn(async move { serve_command(channel, &book).await });
    }
    book.note("node out");
}

async fn serve_command(channel: Channel, book: &Book) {
    let Channel { mut reader, writer } = channel;
    while let Some(message) = reader.next().await {
        let Message::Request(Request::Exec(command)) = message else {
            continue;
        };
        let command = String::from_utf8_lossy(&command).into_owned();
        book.note(format!("ran {command}"));
        let mut answer = vec![Message::Success];
        match command.as_str() {
            "echo" => answer.push(Message::Data("hello".into())),
            "flood" => {
                // As many bytes in the recording as on the screen.
                for _ in 0..FLOOD / 32_768 {
                    let mut piece = vec![0; 32_768];
                    rand::fill(&mut piece[..]);
                    answer.push(Message::Data(piece.into()));
                }
            }
            _ => answer.push(Message::Data("running".into())),
        }
        if ["echo", "flood"].contains(&command.as_str()) {
            answer.push(Message::Request(Request::ExitStatus(0)));
            answer.extend([Message::Eof, Message::Close]);
        }
        for message in answer {
            drop(writer.send(message).await);
        }
    }
}

/// What stands in the way of the recordings: steps are noted, and can fail or hang.
#[derive(Debug)]
struct FakeDisk {
    book: Arc<Book>,
    /// How much of the journals would survive a power cut.
    synced: Mutex<BTreeMap<SessionId, u64>>,
}

#[async_trait]
impl Obstacle for FakeDisk {
    async fn meet(
        &self,
        id: &SessionId,
        step: SinkStep<'_>,
        kept: &MemorySink,
    ) -> Result<bool, SinkError> {
        let name = match step {
            SinkStep::Open => "open",
            SinkStep::Append(_) => "append",
            SinkStep::Sync => "sync",
            SinkStep::Stage | SinkStep::Finish => return Ok(true),
        };
        self.book.reach(name).await;
        if self.book.fails(name) {
            return Err(SinkError::Unavailable(String::from("no space left")));
        }
        if step == SinkStep::Open {
            self.book.note("recording opened");
        }
        if step == SinkStep::Sync {
            let length = kept.length(id, Part::Journal).await?;
            self.synced.lock().unwrap().insert(*id, length);
        }
        Ok(true)
    }
}

/// Signs the recordings.
fn signer() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[5; 32])
}

/// The gateway and what it stands among.
pub(crate) struct House {
    pub(crate) book: Arc<Book>,
    pub(crate) gateway: Gateway,
    authority: Arc<FakeAuthority>,
    sink: Arc<FaultySink<FakeDisk>>,
}

impl House {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// With these options of the role.
    pub(crate) fn with(options: &str) -> Self {
        let book = Arc::new(Book::default());
        let role = &format!(
            "kind: role\nversion: v1\nmetadata: {{ name: app }}\n\
             spec: {{ options: {{ {options} }}, allow: {{ node_labels: {{ \"*\": \"*\" }}, logins: [app] }} }}\n"
        );
        let authority = Arc::new(FakeAuthority {
            book: Arc::clone(&book),
            cluster: cluster(),
            policy: PolicySet::compile(Role::parse(role, "house").unwrap()).unwrap(),
            changes: watch::Sender::new(0),
            ended: Arc::default(),
            clock: Arc::default(),
            watchers: watch::Sender::default(),
        });
        let sink = Arc::new(FaultySink::new(FakeDisk {
            book: Arc::clone(&book),
            synced: Mutex::default(),
        }));
        let recordings = Recordings {
            sink: Arc::<FaultySink<FakeDisk>>::clone(&sink),
            recipients: vec![Identity::generate().recipient()],
            signer: Arc::new(signer()),
        };
        let dialer = Arc::new(FakeDialer(Arc::clone(&book)));
        let gateway = Gateway::new(Arc::<FakeAuthority>::clone(&authority), dialer, recordings);
        Self {
            book,
            gateway,
            authority,
            sink,
        }
    }

    pub(crate) fn fail(&self, step: Step) {
        self.book.failing.lock().unwrap().insert(step);
    }

    /// The step works again.
    pub(crate) fn heal(&self, step: Step) {
        self.book.failing.lock().unwrap().remove(step);
    }

    pub(crate) fn hang(&self, step: Step) {
        self.book.hanging.lock().unwrap().insert(step);
    }

    pub(crate) fn go_on(&self) {
        self.book.hanging.lock().unwrap().clear();
    }

    /// The step takes its time from now on.
    pub(crate) fn slow_down(&self, step: Step) {
        self.book.slow.lock().unwrap().insert(step);
    }

    /// How much the journals hold.
    pub(crate) async fn journalled(&self) -> u64 {
        let mut sum = 0;
        for id in self.sink.list(Part::Journal).await.unwrap() {
            // It may be sealed meanwhile.
            sum += self.sink.length(&id, Part::Journal).await.unwrap_or(0);
        }
        sum
    }

    /// How much of that would survive a power cut.
    pub(crate) fn synced(&self) -> u64 {
        self.sink.obstacle().synced.lock().unwrap().values().sum()
    }

    /// Every recording is sealed and verifies; how many there are.
    pub(crate) async fn sealed(&self) -> usize {
        assert_eq!(self.sink.list(Part::Journal).await.unwrap(), []);
        let all = self.sink.list(Part::Sealed).await.unwrap();
        for id in &all {
            let file = self.sink.read(id, Part::Sealed, 0, usize::MAX).await;
            let trusted = [signer().verifying_key().to_bytes()];
            mezite_record::verify(&file.unwrap()[..], &trusted).unwrap();
        }
        all.len()
    }

    /// As a lock or an edited role does.
    pub(crate) fn end_sessions(&self, words: &str) {
        *self.authority.ended.lock().unwrap() = Some(words.to_owned());
        self.authority
            .changes
            .send_modify(|revision| *revision += 1);
    }

    /// These watch every session from now on.
    pub(crate) fn watched_by(&self, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.authority.watchers.send_replace(names);
    }

    /// Sets the hub's clock, against the system's.
    pub(crate) fn set_clock(&self, seconds: i64) {
        self.authority.clock.0.store(seconds, Ordering::Relaxed);
    }

    pub(crate) fn steps(&self) -> Vec<String> {
        self.book.steps.lock().unwrap().clone()
    }

    /// Whether the step was taken.
    pub(crate) fn took(&self, step: &str) -> bool {
        self.steps().iter().any(|taken| taken == step)
    }

    /// Waits for a step, for ten seconds at most.
    #[track_caller]
    pub(crate) fn wait_for(&self, step: &'static str) -> impl Future<Output = ()> + '_ {
        let asked = std::panic::Location::caller();
        async move {
            for _ in 0..500 {
                if self.took(step) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("{asked}: no `{step}` in {:#?}", self.steps());
        }
    }

    /// `ssh LOGIN+db1@hub` as alice.
    pub(crate) async fn connect(&self, login: &str) -> Client {
        self.connect_for(login, Span::from_secs(3600))
            .await
            .unwrap()
    }

    /// The same with a certificate that ends in `ttl`.
    pub(crate) async fn connect_for(&self, login: &str, ttl: Span) -> Result<Client, SshError> {
        connect_over(self.dial(), login, ttl).await
    }

    /// A connection to the gateway on which nothing has been said.
    pub(crate) fn dial(&self) -> DuplexStream {
        self.dial_and_watch().0
    }

    /// The same, and what ends when the gateway is done with it.
    pub(crate) fn dial_and_watch(&self) -> (DuplexStream, tokio::task::JoinHandle<()>) {
        let (near, far) = duplex(1024 * 1024);
        let gateway = self.gateway.clone();
        let source = SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000));
        let served = tokio::spawn(async move { gateway.serve(far, source).await });
        (near, served)
    }
}

/// `ssh LOGIN+db1@hub` as alice over this connection.
pub(crate) async fn connect_over<S: ByteStream + 'static>(
    stream: S,
    login: &str,
    ttl: Span,
) -> Result<Client, SshError> {
    let key = Arc::new(private(10));
    let certificate = identity("alice", 10, ttl);
    let user = format!("{login}+db1");
    Client::connect(stream, Box::new(|_| Ok(())), &user, key, certificate).await
}

/// What a command showed, on which stream, and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) status: Option<u32>,
}

/// A command that was started and not waited for.
pub(crate) struct Started(Channel);

impl Started {
    pub(crate) async fn new(client: &Client, command: &str) -> Self {
        Self::attempt(client, command).await.unwrap()
    }

    /// A channel may be refused.
    pub(crate) async fn attempt(client: &Client, command: &str) -> Result<Self, SshError> {
        let channel = client.open_session().await?;
        let exec = Message::Request(Request::Exec(command.to_owned().into()));
        channel.writer.send(exec).await?;
        Ok(Self(channel))
    }

    /// Whether it says `words` on standard error, in time.
    pub(crate) async fn err_until(&mut self, words: &str) -> bool {
        let mut err = String::new();
        let reading = async {
            while let Some(message) = self.0.reader.next().await {
                if let Message::ExtendedData(_, data) = message {
                    err += &String::from_utf8_lossy(&data);
                }
                if err.contains(words) {
                    return true;
                }
            }
            false
        };
        tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .unwrap_or(false)
    }

    /// What comes next; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        self.0.reader.next().await
    }

    /// Until its channel is closed.
    pub(crate) async fn shown(mut self) -> Shown {
        let mut shown = Shown::default();
        let reading = async {
            while let Some(message) = self.0.reader.next().await {
                match message {
                    Message::Data(data) => shown.out += &String::from_utf8_lossy(&data),
                    Message::ExtendedData(_, data) => shown.err += &String::from_utf8_lossy(&data),
                    Message::Request(Request::ExitStatus(status)) => shown.status = Some(status),
                    Message::Eof
                    | Message::Close
                    | Message::Request(_)
                    | Message::Success
                    | Message::Failure => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .expect("the channel is not closed");
        shown
    }
}

pub(crate) async fn run(client: &Client, command: &str) -> Shown {
    Started::new(client, command).await.shown().await
}
