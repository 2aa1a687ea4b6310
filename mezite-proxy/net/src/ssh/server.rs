//! The accepting side: authenticate with a certificate, then hand over channels as they are opened.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use russh::keys::ssh_key::{Certificate, HashAlg, PrivateKey};
use russh::server::{
    Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{ChannelId, Pty, Sig};
use tokio::io::BufReader;
use tokio::sync::{mpsc, oneshot};

use super::channel::{ChannelReader, ChannelWriter, ServerHandle, byte_stream};
use super::sever::{Cut, severable};
use super::throttle::{Gauge, Throttled};
use super::{Channel, ChannelKind, Endpoint, Listener, OpenFailure, SshError, settings};
use crate::ByteStream;

/// How long the connection waits for somebody to answer one channel request.
const ANSWER: Duration = Duration::from_secs(30);

/// Channel opens that may wait to be looked at.
const PENDING_OPENS: usize = 16;

/// Read buffer in front of the socket.
const READ_BUFFER: usize = 64 * 1024;

/// An attempt to authenticate that can never succeed here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attempt {
    /// Method `none`.
    None,
    /// Method `password`. The password is not passed on.
    Password,
    /// Method `publickey` with a key that is no certificate.
    PlainKey {
        /// `SHA256:…` of the key.
        fingerprint: String,
    },
    /// Method `publickey` with a certificate over a security key (`sk-…`), which only counts while its owner touches
    /// it. The library believes a signature whose flags deny that (PROTOCOL.u2f) and shows nobody the flags.
    SecurityKey {
        /// `SHA256:…` of the key.
        fingerprint: String,
    },
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Password => f.write_str("password"),
            Self::PlainKey { fingerprint } => {
                write!(f, "public key {fingerprint} without a certificate")
            }
            Self::SecurityKey { fingerprint } => write!(
                f,
                "security key {fingerprint}, whose touch cannot be verified here"
            ),
        }
    }
}

/// Decides who may come in.
#[async_trait]
pub trait Authenticator: Send + 'static {
    /// The evidence that a certificate was accepted.
    type Proof: Send + 'static;

    /// A certificate (blob of PROTOCOL.certkeys) whose holder has just proven to own its private key. `None` refuses.
    async fn certificate(&mut self, user: &str, blob: &[u8]) -> Option<Self::Proof>;

    /// Any other attempt; it has been refused already.
    async fn refused(&mut self, user: &str, attempt: Attempt);
}

/// What this server shows as its host identity.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "two halves of one thing")]
pub struct ServerIdentity {
    /// Private half of the certified key.
    pub key: PrivateKey,
    /// Host certificate over it.
    pub certificate: Certificate,
}

/// A connection whose other side has authenticated. Dropped, it is cut.
#[derive(Debug)]
pub struct Server<P> {
    user: String,
    proof: P,
    incoming: mpsc::Receiver<Incoming>,
    opener: Opener,
    cut: Cut,
}

/// What an authenticated client starts.
#[derive(Debug)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "most are the large one, and none is kept"
)]
pub enum Incoming {
    /// A channel that waits to be accepted or refused.
    Open(PendingChannel),
    /// The client wants this side to listen, or to stop that.
    Listen(PendingListener),
}

/// A request to listen, or to stop listening, that nobody has decided on. Dropped, it is refused.
#[derive(Debug)]
pub struct PendingListener {
    at: Listener,
    stop: bool,
    reply: oneshot::Sender<u32>,
}

impl PendingListener {
    /// Where.
    #[must_use]
    pub const fn at(&self) -> &Listener {
        &self.at
    }

    /// Whether it is to end (`cancel-tcpip-forward`).
    #[must_use]
    pub const fn is_stop(&self) -> bool {
        self.stop
    }

    /// Says yes, with the port that was picked if the client left it open.
    pub fn grant(self, port: u32) {
        if self.reply.send(port).is_err() {
            tracing::debug!("a client that asked to listen is gone");
        }
    }
}

/// Opens channels towards the client. Clones belong to the same connection.
#[derive(Debug)]
pub struct Opener {
    handle: ServerHandle,
    gauge: Gauge,
}

impl Clone for Opener {
    fn clone(&self) -> Self {
        Self {
            handle: ServerHandle(self.handle.0.clone()),
            gauge: self.gauge.clone(),
        }
    }
}

impl Opener {
    /// Opens a channel of a kind that a server may open.
    ///
    /// # Errors
    /// [`SshError::ChannelRefused`], [`SshError::Closed`].
    pub async fn open(&self, kind: &ChannelKind) -> Result<Channel, SshError> {
        let handle = &self.handle.0;
        let channel = match kind {
            ChannelKind::ForwardedTcpip { at, from } => {
                let (at_host, from_host) = (at.host.as_str(), from.host.as_str());
                handle
                    .channel_open_forwarded_tcpip(at_host, at.port, from_host, from.port)
                    .await?
            }
            ChannelKind::ForwardedStreamlocal { path } => {
                handle
                    .channel_open_forwarded_streamlocal(path.as_str())
                    .await?
            }
            ChannelKind::Agent => handle.channel_open_agent().await?,
            ChannelKind::X11 { from } => {
                handle
                    .channel_open_x11(from.host.as_str(), from.port)
                    .await?
            }
            ChannelKind::Session
            | ChannelKind::DirectTcpip { .. }
            | ChannelKind::DirectStreamlocal { .. } => {
                return Err(SshError::ChannelRefused(OpenFailure::UnknownType));
            }
        };
        let (reader, writer) = channel.split();
        // No request that is answered comes on such a channel.
        let (answers, _) = mpsc::unbounded_channel();
        let handle = ServerHandle(self.handle.0.clone());
        let writer = ChannelWriter::server(writer, handle, answers, self.gauge.clone());
        Ok(Channel::new(
            ChannelReader::new(reader, self.gauge.clone()),
            writer,
        ))
    }
}

impl<P> Server<P> {
    /// The user name of the authentication request.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The evidence made by the [`Authenticator`].
    #[must_use]
    pub const fn proof(&self) -> &P {
        &self.proof
    }

    /// The next thing the client starts; `None` when the connection is over.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// What opens channels towards the client.
    #[must_use]
    pub fn opener(&self) -> Opener {
        self.opener.clone()
    }

    /// Ends the connection, telling the client why (`SSH_MSG_DISCONNECT`, reason 11, RFC 4253 section 11.1). It is
    /// closed when this returns, within half a second, whether the client listens or not.
    pub async fn disconnect(&self, reason: &str) {
        let disconnect = russh::Disconnect::ByApplication;
        let goodbye = async {
            let handle = &self.opener.handle.0;
            // A connection that is already gone is what we want.
            drop(
                handle
                    .disconnect(disconnect, reason.to_owned(), String::new())
                    .await,
            );
        };
        self.cut.after(goodbye).await;
    }
}

/// A channel open request that nobody has decided on. Dropped, it is refused.
pub struct PendingChannel {
    kind: ChannelKind,
    channel: russh::Channel<Msg>,
    reply: ChannelOpenHandle,
    handle: Handle,
    answers: mpsc::UnboundedSender<bool>,
    gauge: Gauge,
}

impl fmt::Debug for PendingChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PendingChannel").field(&self.kind).finish()
    }
}

impl PendingChannel {
    /// What the channel is for.
    #[must_use]
    pub const fn kind(&self) -> &ChannelKind {
        &self.kind
    }

    /// Confirms the channel (`SSH_MSG_CHANNEL_OPEN_CONFIRMATION`).
    pub async fn accept(self) -> Channel {
        self.reply.accept().await;
        let (reader, writer) = self.channel.split();
        let handle = ServerHandle(self.handle);
        let writer = ChannelWriter::server(writer, handle, self.answers, self.gauge.clone());
        Channel::new(ChannelReader::new(reader, self.gauge), writer)
    }

    /// Confirms the channel and takes it as a plain byte stream, for another protocol inside it.
    pub async fn accept_stream(self) -> impl ByteStream + 'static {
        self.reply.accept().await;
        let (reader, writer) = self.channel.split();
        byte_stream(reader, writer, self.gauge)
    }

    /// Refuses the channel (`SSH_MSG_CHANNEL_OPEN_FAILURE`) with words that a client shows to its user.
    pub async fn refuse(self, failure: OpenFailure, words: &str) {
        let reason = words.to_owned();
        self.reply
            .reject(russh::ChannelOpenFailure::Other {
                code: failure.code(),
                reason,
            })
            .await;
    }
}

/// Runs key exchange and authentication on `stream`.
///
/// # Errors
/// [`SshError::Timeout`] after 30 seconds, [`SshError::Closed`] when the client leaves before it is let in,
/// [`SshError::Protocol`] for what breaks the protocol.
pub async fn accept<S, A>(
    stream: S,
    identity: ServerIdentity,
    authenticator: A,
) -> Result<Server<A::Proof>, SshError>
where
    S: ByteStream + 'static,
    A: Authenticator + Sync,
{
    let (stream, cut) = severable(stream);
    let gauge = Gauge::default();
    let stream = Throttled::new(stream, gauge.clone());
    let counted = gauge.clone();
    let handshake = async {
        let (admitted, admission) = oneshot::channel();
        let (opens, incoming) = mpsc::channel(PENDING_OPENS);
        let gate = Gate {
            authenticator,
            proof: None,
            admitted: Some(admitted),
            opens,
            answers: BTreeMap::new(),
            gauge,
        };
        let config = settings::server(identity.key, identity.certificate);
        let running =
            russh::server::run_stream(config, BufReader::with_capacity(READ_BUFFER, stream), gate)
                .await?;
        let handle = ServerHandle(running.handle());
        let (user, proof) = tokio::select! {
            biased;
            admission = admission => admission.map_err(|_| SshError::Closed)?,
            ended = running => return Err(ended.err().map_or(SshError::Closed, SshError::from)),
        };
        let opener = Opener {
            handle,
            gauge: counted,
        };
        Ok((user, proof, incoming, opener))
    };
    let (user, proof, incoming, opener) = tokio::time::timeout(settings::HANDSHAKE, handshake)
        .await
        .map_err(|_| SshError::Timeout(settings::HANDSHAKE.as_secs()))??;
    Ok(Server {
        user,
        proof,
        incoming,
        opener,
        cut,
    })
}

pub(super) fn endpoint(host: &str, port: u32) -> Endpoint {
    let host = host.to_owned();
    Endpoint { host, port }
}

/// The library's callbacks: refuses everything that is not named here.
struct Gate<A: Authenticator> {
    authenticator: A,
    proof: Option<(String, A::Proof)>,
    admitted: Option<oneshot::Sender<(String, A::Proof)>>,
    opens: mpsc::Sender<Incoming>,
    answers: BTreeMap<u32, mpsc::UnboundedReceiver<bool>>,
    gauge: Gauge,
}

impl<A: Authenticator> Gate<A> {
    async fn opened(
        &mut self,
        kind: ChannelKind,
        channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        handle: Handle,
    ) -> Result<(), SshError> {
        // A refused channel is never closed: what waits for its answers goes with the next one that opens.
        self.answers.retain(|_, answers| !answers.is_closed());
        let (answers, answered) = mpsc::unbounded_channel();
        self.answers.insert(channel.id().into(), answered);
        let pending = PendingChannel {
            kind,
            channel,
            reply,
            handle,
            answers,
            gauge: self.gauge.clone(),
        };
        self.opens
            .send(Incoming::Open(pending))
            .await
            .map_err(|_| SshError::Closed)
    }

    /// Asks whoever serves the connection; the port that is listened at now, or nothing for a no. Answers to global
    /// requests have no names either, so one is waited for before the next is read (RFC 4254 section 4).
    async fn listen(&mut self, at: Listener, stop: bool) -> Result<Option<u32>, SshError> {
        let (reply, answer) = oneshot::channel();
        let pending = PendingListener { at, stop, reply };
        self.opens
            .send(Incoming::Listen(pending))
            .await
            .map_err(|_| SshError::Closed)?;
        let answer = tokio::time::timeout(ANSWER, answer).await;
        Ok(answer.ok().and_then(Result::ok))
    }

    /// Waits for whoever reads the channel to answer the request that was just queued there. The library remembers
    /// only the newest request's wish for a reply, so answers have to be given in its own loop, one by one.
    async fn answer(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), SshError> {
        if self.answered(channel).await {
            session.channel_success(channel)?;
        } else {
            session.channel_failure(channel)?;
        }
        Ok(())
    }

    /// The next answer on `channel`. After one that did not come in time none is taken any more: it would be taken for
    /// the answer to a later request.
    async fn answered(&mut self, channel: ChannelId) -> bool {
        let Some(answers) = self.answers.get_mut(&channel.into()) else {
            return false;
        };
        let answer = tokio::time::timeout(ANSWER, answers.recv()).await;
        if answer.is_err() {
            self.answers.remove(&channel.into());
        }
        answer.ok().flatten() == Some(true)
    }
}

impl<A: Authenticator + Sync> Handler for Gate<A> {
    type Error = SshError;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, SshError> {
        self.authenticator.refused(user, Attempt::None).await;
        Ok(Auth::reject())
    }

    async fn auth_password(&mut self, user: &str, _password: &str) -> Result<Auth, SshError> {
        self.authenticator.refused(user, Attempt::Password).await;
        Ok(Auth::reject())
    }

    /// An offer proves nothing and admits nobody: the client is only told to go on and sign.
    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        _offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, SshError> {
        Ok(Auth::Accept)
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, SshError> {
        let fingerprint = key.public_key.fingerprint(HashAlg::Sha256).to_string();
        self.authenticator
            .refused(user, Attempt::PlainKey { fingerprint })
            .await;
        Ok(Auth::reject())
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, SshError> {
        let key = certificate.public_key();
        if key.is_sk_ed25519() || key.is_sk_ecdsa_p256() {
            let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
            self.authenticator
                .refused(user, Attempt::SecurityKey { fingerprint })
                .await;
            return Ok(Auth::reject());
        }
        let blob = certificate
            .to_bytes()
            .map_err(|error| SshError::Protocol(error.to_string()))?;
        match self.authenticator.certificate(user, &blob).await {
            Some(proof) => {
                self.proof = Some((user.to_owned(), proof));
                Ok(Auth::Accept)
            }
            None => Ok(Auth::reject()),
        }
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), SshError> {
        let (Some(proof), Some(admitted)) = (self.proof.take(), self.admitted.take()) else {
            return Err(SshError::Protocol(String::from(
                "authenticated without evidence",
            )));
        };
        admitted.send(proof).map_err(|_| SshError::Closed)
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), SshError> {
        self.answers.remove(&channel.into());
        Ok(())
    }

    async fn data(
        &mut self,
        _channel: ChannelId,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), SshError> {
        self.gauge.put(data.len());
        Ok(())
    }

    async fn extended_data(
        &mut self,
        _channel: ChannelId,
        _code: u32,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), SshError> {
        self.gauge.put(data.len());
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), SshError> {
        self.opened(ChannelKind::Session, channel, reply, session.handle())
            .await
    }

    async fn channel_open_x11(
        &mut self,
        channel: russh::Channel<Msg>,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), SshError> {
        let from = endpoint(originator_address, originator_port);
        let kind = ChannelKind::X11 { from };
        self.opened(kind, channel, reply, session.handle()).await
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: russh::Channel<Msg>,
        host_to_connect: &str,
        port_to_connect: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), SshError> {
        let kind = ChannelKind::DirectTcpip {
            to: endpoint(host_to_connect, port_to_connect),
            from: endpoint(originator_address, originator_port),
        };
        self.opened(kind, channel, reply, session.handle()).await
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        channel: russh::Channel<Msg>,
        host_to_connect: &str,
        port_to_connect: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), SshError> {
        let kind = ChannelKind::ForwardedTcpip {
            at: endpoint(host_to_connect, port_to_connect),
            from: endpoint(originator_address, originator_port),
        };
        self.opened(kind, channel, reply, session.handle()).await
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: russh::Channel<Msg>,
        socket_path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), SshError> {
        self.opened(
            ChannelKind::DirectStreamlocal {
                path: socket_path.to_owned(),
            },
            channel,
            reply,
            session.handle(),
        )
        .await
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _col_width: u32,
        _row_height: u32,
        _pix_width: u32,
        _pix_height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), SshError> {
        self.answer(channel, session).await
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _x11_auth_protocol: &str,
        _x11_auth_cookie: &str,
        _x11_screen_number: u32,
        session: &mut Session,
    ) -> Result<(), SshError> {
        self.answer(channel, session).await
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _variable_name: &str,
        _variable_value: &str,
        session: &mut Session,
    ) -> Result<(), SshError> {
        session.channel_success(channel)?;
        Ok(())
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), SshError> {
        self.answer(channel, session).await
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _data: &[u8],
        session: &mut Session,
    ) -> Result<(), SshError> {
        self.answer(channel, session).await
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), SshError> {
        self.answer(channel, session).await
    }

    async fn window_change_request(
        &mut self,
        _channel: ChannelId,
        _col_width: u32,
        _row_height: u32,
        _pix_width: u32,
        _pix_height: u32,
        _session: &mut Session,
    ) -> Result<(), SshError> {
        Ok(())
    }

    /// The library answers this one itself, from the returned truth.
    async fn agent_request(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, SshError> {
        Ok(self.answered(channel).await)
    }

    async fn signal(
        &mut self,
        _channel: ChannelId,
        _signal: Sig,
        _session: &mut Session,
    ) -> Result<(), SshError> {
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _session: &mut Session,
    ) -> Result<bool, SshError> {
        let at = Listener::Tcp(endpoint(address, *port));
        let granted = self.listen(at, false).await?;
        *port = granted.unwrap_or(*port);
        Ok(granted.is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, SshError> {
        let at = Listener::Tcp(endpoint(address, port));
        Ok(self.listen(at, true).await?.is_some())
    }

    async fn streamlocal_forward(
        &mut self,
        socket_path: &str,
        _session: &mut Session,
    ) -> Result<bool, SshError> {
        let at = Listener::Socket(socket_path.to_owned());
        Ok(self.listen(at, false).await?.is_some())
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        socket_path: &str,
        _session: &mut Session,
    ) -> Result<bool, SshError> {
        let at = Listener::Socket(socket_path.to_owned());
        Ok(self.listen(at, true).await?.is_some())
    }
}
