//! `mode: builtin`: the SSH server on the node. Its only clients are hubs, its only key to a login is a session
//! certificate, each good for one connection.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use mezite_ca::TrustBundle;
use mezite_ca::verify::{self, VerifiedBreakGlass, VerifiedSession};
use mezite_core::{Clock, Login, NodeId, Serial, SessionId, UnixTime, UserName};
use mezite_net::ByteStream;
use mezite_net::ssh::{
    Attempt, Authenticator, Channel, ChannelKind, ChannelReader, ChannelWriter, Incoming, Message,
    OpenFailure, Opener, Request, ServerIdentity, SshError, WindowSize, accept,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::account::{Account, AccountError};
use crate::break_glass::{self, Spool};
use crate::environment::Environment;
use crate::forward;
use crate::forward::listen::{AgentSocket, Listeners};
use crate::process::{Action, Control, Exit, Process, Program};
use crate::sftp;
use crate::terminal::{Size, Terminal};

/// Bytes read from a program at once; one data message.
const READ: usize = 32 * 1024;

/// Buffer between the SFTP server and its channel.
const SFTP_BUFFER: usize = 256 * 1024;

/// Most channels of one connection; a hub opens fewer.
const MAX_CHANNELS: usize = 512;

/// Exit status for a program that could not be started, as ssh uses it.
const NOT_STARTED: u32 = 255;

/// What the server needs to know of its node. Renewals replace identity and trust while it runs.
pub struct Serving {
    node: NodeId,
    clock: Arc<dyn Clock>,
    identity: RwLock<ServerIdentity>,
    trust: RwLock<Arc<TrustBundle>>,
    /// Serials that have opened a session, until they expire by themselves.
    used: Mutex<BTreeMap<Serial, UnixTime>>,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Serving {
    /// A server of `node` that shows `identity` and trusts the session authorities in `trust`.
    #[must_use]
    pub fn new(
        node: NodeId,
        identity: ServerIdentity,
        trust: TrustBundle,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (identity, trust) = (RwLock::new(identity), RwLock::new(Arc::new(trust)));
        Self {
            node,
            clock,
            identity,
            trust,
            used: Mutex::default(),
        }
    }

    /// Shows and trusts something newer from now on.
    pub fn renew(&self, identity: ServerIdentity, trust: TrustBundle) {
        *self
            .identity
            .write()
            .unwrap_or_else(PoisonError::into_inner) = identity;
        self.trust_now(trust);
    }

    /// Trusts something newer from now on.
    pub fn trust_now(&self, trust: TrustBundle) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
    }

    /// What is trusted now.
    #[must_use]
    pub fn trust(&self) -> Arc<TrustBundle> {
        Arc::clone(&self.trust.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves one connection of a hub until it is over.
    pub async fn serve<S: ByteStream + 'static>(self: Arc<Self>, stream: S) {
        let check = Check(Arc::clone(&self));
        self.serve_who(stream, check).await;
    }

    /// Serves one connection of somebody from `source` who has a break-glass certificate, until it is over. Its use is in
    /// `spool` before it is let in.
    pub async fn serve_break_glass<S: ByteStream + 'static>(
        self: Arc<Self>,
        stream: S,
        source: IpAddr,
        spool: Spool,
    ) {
        let check = BreakGlassCheck {
            serving: Arc::clone(&self),
            source,
            spool,
        };
        self.serve_who(stream, check).await;
    }

    async fn serve_who<S, A>(&self, stream: S, check: A)
    where
        S: ByteStream + 'static,
        A: Authenticator + Sync,
        for<'a> Entry: From<&'a A::Proof>,
    {
        let identity = self
            .identity
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut server = match accept(stream, identity, check).await {
            Ok(server) => server,
            // A hub prepares the way before it decides, and turns back when the answer is no.
            Err(SshError::Closed) => return,
            Err(error) => return tracing::warn!(%error, "a connection was not let in"),
        };
        let session = Arc::new(Entry::from(server.proof()));
        tracing::info!(login = %session.login, who = session.who(), "session");
        let mut channels = JoinSet::new();
        let opener = server.opener();
        let mut listeners = Listeners::new(opener.clone());
        loop {
            tokio::select! {
                incoming = server.next() => match incoming {
                    Some(Incoming::Open(pending)) if *pending.kind() == ChannelKind::Session => {
                        let (session, opener) = (Arc::clone(&session), opener.clone());
                        channels.spawn(async move { serve_channel(&session, &opener, pending.accept().await).await });
                    }
                    Some(Incoming::Open(pending)) if session.forwards && channels.len() < MAX_CHANNELS => {
                        channels.spawn(forward::serve(pending));
                    }
                    Some(Incoming::Open(pending)) => pending.refuse(OpenFailure::Prohibited, "not served here").await,
                    Some(Incoming::Listen(pending)) if session.forwards => listeners.answer(pending).await,
                    // A listener that is dropped is refused.
                    Some(_) => {}
                    None => break,
                },
                Some(_) = channels.join_next() => {}
            }
        }
        drop(listeners);
        // Each channel hears of the lost connection and hangs its program up.
        while channels.join_next().await.is_some() {}
    }

    fn check(&self, login: &str, blob: &[u8]) -> Result<VerifiedSession, String> {
        let login: Login = login
            .parse()
            .map_err(|error: mezite_core::name::NameError| error.to_string())?;
        let (trust, now) = (self.trust(), self.clock.now());
        let context = verify::Context {
            trust: &trust,
            now,
            source: None,
            revoked: &|_| false,
        };
        let session = verify::session(blob, &self.node, &login, &context)
            .map_err(|error| error.to_string())?;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, expires| *expires >= now);
        match used.insert(session.serial(), session.valid_before()) {
            None => Ok(session),
            Some(_) => Err(format!("serial {} was used before", session.serial())),
        }
    }
}

/// Judges session certificates.
struct Check(Arc<Serving>);

#[async_trait]
impl Authenticator for Check {
    type Proof = VerifiedSession;

    async fn certificate(&mut self, user: &str, blob: &[u8]) -> Option<VerifiedSession> {
        match self.0.check(user, blob) {
            Ok(session) => Some(session),
            Err(error) => {
                tracing::warn!(
                    login = user.escape_default().to_string(),
                    error,
                    "a session certificate was refused"
                );
                None
            }
        }
    }

    async fn refused(&mut self, _user: &str, attempt: Attempt) {
        tracing::debug!(%attempt, "refused");
    }
}

/// Judges break-glass certificates.
struct BreakGlassCheck {
    serving: Arc<Serving>,
    source: IpAddr,
    spool: Spool,
}

#[async_trait]
impl Authenticator for BreakGlassCheck {
    type Proof = VerifiedBreakGlass;

    async fn certificate(&mut self, user: &str, blob: &[u8]) -> Option<VerifiedBreakGlass> {
        let trust = self.serving.trust();
        let attempt = break_glass::Attempt {
            node: &self.serving.node,
            trust: &trust,
            login: user,
            certificate: blob,
            source: Some(self.source),
            now: self.serving.clock.now(),
            mode: "builtin",
            connection: None,
        };
        match attempt.admit(&self.spool) {
            Ok(verified) => Some(verified),
            Err(error) => {
                tracing::warn!(
                    login = user.escape_default().to_string(),
                    source = %self.source,
                    error,
                    "a break-glass certificate was refused"
                );
                None
            }
        }
    }

    async fn refused(&mut self, _user: &str, attempt: Attempt) {
        tracing::debug!(%attempt, source = %self.source, "refused");
    }
}

/// Who came in, and what a channel may ask for.
struct Entry {
    login: Login,
    pty: bool,
    file_copy: bool,
    /// Whether forwards are carried; where to, the hub has decided.
    forwards: bool,
    agent: bool,
    /// `None` for break-glass: there is no hub that would know a session or a user.
    session: Option<(SessionId, UserName)>,
}

impl Entry {
    fn who(&self) -> String {
        match &self.session {
            Some((id, user)) => format!("{user} in session {id}"),
            None => String::from("break-glass"),
        }
    }
}

impl From<&VerifiedSession> for Entry {
    fn from(session: &VerifiedSession) -> Self {
        Self {
            login: session.login().clone(),
            pty: session.permits("pty"),
            file_copy: session.extension("file-copy") == Some("true"),
            forwards: session.permits("port-forwarding"),
            agent: session.permits("agent-forwarding"),
            session: Some((session.session_id(), session.user().clone())),
        }
    }
}

impl From<&VerifiedBreakGlass> for Entry {
    fn from(verified: &VerifiedBreakGlass) -> Self {
        Self {
            login: verified.login().clone(),
            pty: verified.permits("pty"),
            file_copy: true,
            // No role says where to.
            forwards: false,
            agent: false,
            session: None,
        }
    }
}

/// One session channel: requests that set it up, then one program.
async fn serve_channel(session: &Entry, opener: &Opener, channel: Channel) {
    let Channel { mut reader, writer } = channel;
    let mut setup = match Setup::new(session) {
        Ok(setup) => setup,
        Err(error) => return explain(&mut reader, &writer, &error.to_string()).await,
    };
    while let Some(message) = reader.next().await {
        let Message::Request(request) = message else {
            continue;
        };
        match setup.take(request, session, opener) {
            Step::Go => {}
            Step::Answer(answer) => send(&writer, answer).await,
            Step::Start(wanted) => match setup.start(wanted) {
                Ok((running, _agent)) => {
                    send(&writer, Message::Success).await;
                    return run(running, reader, &writer).await;
                }
                Err(error) => {
                    send(&writer, Message::Success).await;
                    return fail(&writer, &error).await;
                }
            },
        }
    }
}

/// Tells on standard error why nothing can be started here.
async fn explain(reader: &mut ChannelReader, writer: &ChannelWriter, error: &str) {
    while let Some(message) = reader.next().await {
        let Message::Request(request) = message else {
            continue;
        };
        if request.is_answered() {
            send(writer, Message::Success).await;
        }
        if matches!(
            request,
            Request::Shell | Request::Exec(_) | Request::Subsystem(_)
        ) {
            return fail(writer, error).await;
        }
    }
}

async fn fail(writer: &ChannelWriter, error: &str) {
    send(
        writer,
        Message::ExtendedData(1, format!("mezd: {error}\r\n").into()),
    )
    .await;
    send(writer, Message::Request(Request::ExitStatus(NOT_STARTED))).await;
    send(writer, Message::Close).await;
}

/// What a channel has been told before its program starts.
struct Setup {
    account: Account,
    environment: Environment,
    terminal: Option<Terminal>,
    agent: Option<AgentSocket>,
}

enum Wanted {
    Shell,
    Command(Vec<u8>),
    Sftp,
}

enum Step {
    Go,
    Answer(Message),
    Start(Wanted),
}

impl Setup {
    fn new(session: &Entry) -> Result<Self, AccountError> {
        let own = Account::current()?;
        let account = if own.name() == session.login.as_str() {
            own
        } else {
            Account::lookup(&session.login)?
        };
        let mut environment = Environment::new(&account);
        if let Some((id, user)) = &session.session {
            environment = environment.session(id, user);
        }
        Ok(Self {
            account,
            environment,
            terminal: None,
            agent: None,
        })
    }

    fn take(&mut self, request: Request, session: &Entry, opener: &Opener) -> Step {
        match request {
            Request::Pty {
                term,
                size: window,
                modes,
            } if session.pty => {
                self.terminal = Some(Terminal {
                    name: term,
                    size: size(window),
                    modes,
                });
                Step::Answer(Message::Success)
            }
            Request::Env { name, value } => {
                // As with sshd, a variable that is not wanted here is passed over.
                if let Err(refusal) = self.environment.offer(&name, &value) {
                    tracing::debug!(%refusal, "a variable was passed over");
                }
                Step::Go
            }
            Request::Shell => Step::Start(Wanted::Shell),
            Request::Exec(command) => Step::Start(Wanted::Command(command)),
            Request::Subsystem(name) if name == "sftp" && session.file_copy => {
                Step::Start(Wanted::Sftp)
            }
            Request::AgentForward if session.agent && self.agent.is_none() => {
                match AgentSocket::open(opener.clone()) {
                    Ok(socket) => {
                        self.environment.set_agent(socket.path());
                        self.agent = Some(socket);
                        Step::Answer(Message::Success)
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no socket for the client's agent");
                        Step::Answer(Message::Failure)
                    }
                }
            }
            // X11 needs `xauth` and a display of the login's: a stock sshd does that, this server does not.
            Request::Pty { .. }
            | Request::Subsystem(_)
            | Request::AgentForward
            | Request::X11(_) => Step::Answer(Message::Failure),
            Request::Signal(_)
            | Request::WindowChange(_)
            | Request::ExitStatus(_)
            | Request::ExitSignal { .. } => Step::Go,
        }
    }

    /// What runs, and the socket of the agent, which has to live as long.
    fn start(self, wanted: Wanted) -> Result<(Running, Option<AgentSocket>), String> {
        let agent = self.agent;
        let action = match wanted {
            Wanted::Shell => Action::Shell,
            Wanted::Command(command) => Action::from(command),
            Wanted::Sftp => return Ok((Running::sftp(&self.account), agent)),
        };
        let mut program = Program::new(self.account, self.environment, action);
        if let Some(terminal) = self.terminal {
            program = program.on(terminal);
        }
        Process::spawn(program)
            .map(|process| (Running::from(process), agent))
            .map_err(|error| error.to_string())
    }
}

/// Something with three streams, and maybe a process behind it.
struct Running {
    stdin: Box<dyn AsyncWrite + Send + Unpin>,
    stdout: Box<dyn AsyncRead + Send + Unpin>,
    stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    control: Option<Control>,
}

fn boxed(stream: impl AsyncRead + Send + Unpin + 'static) -> Box<dyn AsyncRead + Send + Unpin> {
    Box::new(stream)
}

impl From<Process> for Running {
    fn from(process: Process) -> Self {
        Self {
            stdin: Box::new(process.stdin),
            stdout: Box::new(process.stdout),
            stderr: process.stderr.map(boxed),
            control: Some(process.control),
        }
    }
}

impl Running {
    /// The SFTP server as this process's own user, which [`Setup`] has found to be the login.
    fn sftp(account: &Account) -> Self {
        let (near, far) = tokio::io::duplex(SFTP_BUFFER);
        let options = sftp::Options::new(account.home().to_path_buf());
        tokio::spawn(async move {
            if let Err(error) = sftp::serve(far, options).await {
                tracing::debug!(%error, "an SFTP client left");
            }
        });
        let (stdout, stdin) = tokio::io::split(near);
        Self {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: None,
            control: None,
        }
    }
}

/// Carries bytes and requests until the program has ended and all its output was sent, or the client is gone.
async fn run(running: Running, reader: ChannelReader, writer: &ChannelWriter) {
    let Running {
        stdin,
        stdout,
        stderr,
        control,
    } = running;
    let control = control.as_ref();
    let output = async {
        tokio::join!(pump(stdout, writer, Message::Data), async {
            if let Some(stderr) = stderr {
                pump(stderr, writer, |data| Message::ExtendedData(1, data)).await;
            }
        });
        let exit = match control {
            Some(control) => control.wait().await.map_err(|error| error.to_string()),
            None => Ok(Exit::Status(0)),
        };
        // In this order: a client may close at EOF, and hears of nothing more.
        report(writer, exit).await;
        send(writer, Message::Eof).await;
        send(writer, Message::Close).await;
    };
    let input = feed(reader, stdin, control);
    tokio::pin!(input);
    tokio::select! {
        () = output => {}
        () = &mut input => {}
    }
}

async fn report(writer: &ChannelWriter, exit: Result<Exit, String>) {
    let request = match exit {
        Ok(Exit::Status(status)) => Request::ExitStatus(status),
        Ok(Exit::Signal {
            name,
            core_dumped,
            message,
        }) => Request::ExitSignal {
            signal: name,
            core_dumped,
            message,
        },
        Err(error) => {
            tracing::error!(error, "a program's end is not known");
            Request::ExitStatus(NOT_STARTED)
        }
    };
    send(writer, Message::Request(request)).await;
}

/// From the client to the program, until the client closes the channel.
async fn feed(
    mut reader: ChannelReader,
    stdin: Box<dyn AsyncWrite + Send + Unpin>,
    control: Option<&Control>,
) {
    let mut stdin = Some(stdin);
    while let Some(message) = reader.next().await {
        match message {
            Message::Data(data) => {
                if let Some(open) = &mut stdin
                    && open.write_all(&data).await.is_err()
                {
                    // The program reads no more; what it writes is still wanted.
                    stdin = None;
                }
            }
            Message::Eof => {
                if let Some(mut open) = stdin.take() {
                    drop(open.shutdown().await);
                }
            }
            Message::Request(Request::WindowChange(window)) => {
                steer(control, |control| control.resize(size(window)))
            }
            Message::Request(Request::Signal(name)) => {
                steer(control, |control| control.signal(&name))
            }
            Message::Close => {
                if let Some(control) = control {
                    control.close();
                }
            }
            Message::ExtendedData(..)
            | Message::Request(_)
            | Message::Success
            | Message::Failure => {}
        }
    }
}

fn steer(
    control: Option<&Control>,
    action: impl FnOnce(&Control) -> Result<(), crate::process::ProcessError>,
) {
    if let Some(Err(error)) = control.map(action) {
        tracing::debug!(%error, "a request was not carried out");
    }
}

/// From the program to the client, until the program's end of file.
async fn pump(
    mut from: Box<dyn AsyncRead + Send + Unpin>,
    writer: &ChannelWriter,
    wrap: fn(Bytes) -> Message,
) {
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        buffer.reserve(READ);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => send(writer, wrap(buffer.split().freeze())).await,
        }
    }
}

/// A client that is gone closes the channel on the reading side; there is nothing to do about it here.
async fn send(writer: &ChannelWriter, message: Message) {
    if let Err(error) = writer.send(message).await {
        tracing::debug!(%error, "a message could not be sent");
    }
}

const fn size(window: WindowSize) -> Size {
    Size {
        cols: window.cols,
        rows: window.rows,
        width: window.width,
        height: window.height,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mezite_ca::{NodeKey, Permissions, SessionKey, SessionRequest, SoftwareKey};
    use mezite_core::{ManualClock, Span};

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    struct House {
        session_key: SessionKey,
        serving: Serving,
        clock: Arc<ManualClock>,
    }

    fn house() -> House {
        let mut rng = rand::rng();
        let mut key = || Arc::new(SoftwareKey::generate(&mut rng));
        let (session_key, node_key, own) = (SessionKey::new(key()), NodeKey::new(key()), key());
        let (id, cluster) = (NodeId::new([1; 16]), "example".parse().unwrap());
        let text = mezite_ca::openssh::private_key(own.seed(), "").unwrap();
        let key = ssh_key::PrivateKey::from_openssh(text.expose()).unwrap();
        let serial = Serial::from_u64(1);
        let certificate = node_key
            .issue(
                &id,
                &cluster,
                key.public_key(),
                serial,
                NOW,
                &mut rand::rng(),
            )
            .unwrap();
        let mut trust = TrustBundle::empty(cluster);
        trust.session.push(session_key.public_key());
        let clock = Arc::new(ManualClock::new(NOW));
        let identity = ServerIdentity { key, certificate };
        let serving = Serving::new(id, identity, trust, clock.clone());
        House {
            session_key,
            serving,
            clock,
        }
    }

    impl House {
        fn certificate(&self, node: &NodeId, login: &str, serial: u64) -> Vec<u8> {
            let holder = SoftwareKey::generate(&mut rand::rng());
            let public_key = mezite_ca::openssh::public_key(mezite_ca::Signer::public_key(&holder));
            let request = SessionRequest {
                session_id: SessionId::new(NOW, [3; 16]),
                user: &"alice".parse().unwrap(),
                node_id: node,
                login: &login.parse().unwrap(),
                public_key: &public_key,
                permissions: Permissions::default(),
                obligations: &[],
                source_addresses: &[],
            };
            let serial = Serial::from_u64(serial);
            let issued =
                self.session_key
                    .issue(&request, serial, self.clock.now(), &mut rand::rng());
            issued.unwrap().to_bytes().unwrap()
        }
    }

    #[test]
    fn attack_15_a_session_certificate_opens_one_connection() {
        let house = house();
        let blob = house.certificate(&NodeId::new([1; 16]), "root", 7);
        assert!(house.serving.check("root", &blob).is_ok());
        assert!(
            house
                .serving
                .check("root", &blob)
                .unwrap_err()
                .contains("used before")
        );
        // Until it expires it stays on the list; then the window refuses it.
        house.clock.advance(Span::from_secs(11 * 60));
        assert!(
            house
                .serving
                .check("root", &blob)
                .unwrap_err()
                .contains("expired")
        );
    }

    #[test]
    fn a_certificate_for_another_node_or_login_is_refused() {
        let house = house();
        let other = house.certificate(&NodeId::new([2; 16]), "root", 8);
        assert!(house.serving.check("root", &other).is_err());
        let blob = house.certificate(&NodeId::new([1; 16]), "alice", 9);
        assert!(house.serving.check("root", &blob).is_err());
        assert!(
            house
                .serving
                .check("0", &blob)
                .unwrap_err()
                .contains("not a valid login")
        );
    }
}
