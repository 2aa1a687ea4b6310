//! The connecting side: checks the host certificate, proves a user certificate, opens channels.

use std::fmt;
use std::sync::{Arc, OnceLock};

use russh::ChannelId;
use russh::client::{AuthResult, ChannelOpenHandle, Handle, Handler, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::keys::ssh_key::{Certificate, PrivateKey};
use tokio::io::BufReader;
use tokio::sync::mpsc;

use super::channel::{ChannelReader, ChannelWriter, byte_stream};
use super::server::endpoint;
use super::sever::{Cut, severable};
use super::throttle::{Gauge, Throttled};
use super::{Channel, ChannelKind, Endpoint, Listener, OpenFailure, SshError, settings};
use crate::ByteStream;

/// Read buffer in front of the socket.
const READ_BUFFER: usize = 64 * 1024;

/// Channels of the other side that may wait to be looked at.
const PENDING_OFFERS: usize = 64;

/// Judges the blob of the host certificate (PROTOCOL.certkeys). A plain host key never reaches it: it is refused.
pub type HostVerifier = Box<dyn Fn(&[u8]) -> Result<(), String> + Send + Sync>;

/// A connection on which we have authenticated. Dropped, it is cut.
pub struct Client {
    handle: Handle<Gate>,
    cut: Cut,
    gauge: Gauge,
    identification: Arc<OnceLock<Vec<u8>>>,
    offers: Arc<OnceLock<mpsc::Sender<Offer>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Exchanges keys on `stream`, checks the host with `verifier`, and authenticates as `user` with `certificate`.
    ///
    /// # Errors
    /// [`SshError::HostRefused`] with the verifier's words, [`SshError::Refused`] when the certificate is not accepted,
    /// [`SshError::Timeout`], [`SshError::Closed`], [`SshError::Protocol`].
    pub async fn connect<S: ByteStream + 'static>(
        stream: S,
        verifier: HostVerifier,
        user: &str,
        key: Arc<PrivateKey>,
        certificate: Certificate,
    ) -> Result<Self, SshError> {
        let unauthenticated = Unauthenticated::connect(stream, verifier).await?;
        unauthenticated.authenticate(user, key, certificate).await
    }

    /// Opens a `session` channel.
    ///
    /// # Errors
    /// [`SshError::ChannelRefused`], [`SshError::Closed`].
    pub async fn open_session(&self) -> Result<Channel, SshError> {
        self.open(&ChannelKind::Session).await
    }

    /// Opens a channel of a kind that a client may open.
    ///
    /// # Errors
    /// [`SshError::ChannelRefused`], [`SshError::Closed`].
    pub async fn open(&self, kind: &ChannelKind) -> Result<Channel, SshError> {
        let handle = &self.handle;
        let channel = match kind {
            ChannelKind::Session => handle.channel_open_session().await?,
            ChannelKind::DirectTcpip { to, from } => {
                let (to_host, from_host) = (to.host.as_str(), from.host.as_str());
                handle
                    .channel_open_direct_tcpip(to_host, to.port, from_host, from.port)
                    .await?
            }
            ChannelKind::DirectStreamlocal { path } => {
                handle
                    .channel_open_direct_streamlocal(path.as_str())
                    .await?
            }
            ChannelKind::ForwardedTcpip { .. }
            | ChannelKind::ForwardedStreamlocal { .. }
            | ChannelKind::Agent
            | ChannelKind::X11 { .. } => {
                return Err(SshError::ChannelRefused(OpenFailure::UnknownType));
            }
        };
        let (reader, writer) = channel.split();
        let reader = ChannelReader::new(reader, self.gauge.clone());
        let writer = ChannelWriter::client(writer, self.gauge.clone());
        Ok(Channel::new(reader, writer))
    }

    /// Opens a `direct-tcpip` channel to `host:port` as seen from the other side, as a plain byte stream.
    ///
    /// # Errors
    /// [`SshError::ChannelRefused`], [`SshError::Closed`].
    pub async fn open_direct_tcpip(
        &self,
        host: &str,
        port: u32,
    ) -> Result<impl ByteStream + use<>, SshError> {
        let channel = self
            .handle
            .channel_open_direct_tcpip(host, port, "127.0.0.1", 0)
            .await?;
        let (reader, writer) = channel.split();
        Ok(byte_stream(reader, writer, self.gauge.clone()))
    }

    /// Asks the other side to listen; the port at which it does, 0 for a socket.
    ///
    /// # Errors
    /// [`SshError::Protocol`] for a no, [`SshError::Closed`].
    pub async fn listen(&self, at: &Listener) -> Result<u32, SshError> {
        match at {
            Listener::Tcp(Endpoint { host, port }) => {
                let picked = self.handle.tcpip_forward(host.as_str(), *port).await?;
                Ok(if *port == 0 { picked } else { *port })
            }
            Listener::Socket(path) => {
                self.handle.streamlocal_forward(path.as_str()).await?;
                Ok(0)
            }
        }
    }

    /// Asks the other side to listen there no longer.
    ///
    /// # Errors
    /// As [`Client::listen`].
    pub async fn stop_listening(&self, at: &Listener) -> Result<(), SshError> {
        match at {
            Listener::Tcp(Endpoint { host, port }) => {
                self.handle
                    .cancel_tcpip_forward(host.as_str(), *port)
                    .await?
            }
            Listener::Socket(path) => {
                self.handle
                    .cancel_streamlocal_forward(path.as_str())
                    .await?
            }
        }
        Ok(())
    }

    /// From now on the channels that the other side opens come out here; before, and where nobody takes them, each is
    /// refused. Given once.
    #[must_use]
    pub fn offers(&self) -> Option<mpsc::Receiver<Offer>> {
        let (sender, receiver) = mpsc::channel(PENDING_OFFERS);
        self.offers.set(sender).ok().map(|()| receiver)
    }

    /// Whether the other side says that it is a server of this library, and not a stock one.
    #[must_use]
    pub fn is_served_by_us(&self) -> bool {
        let identification = self.identification.get();
        identification.is_some_and(|it| it == settings::IDENTIFICATION.as_bytes())
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Says goodbye (`SSH_MSG_DISCONNECT`). The connection is closed when this returns, within half a second.
    pub async fn disconnect(&self, reason: &str) {
        let disconnect = russh::Disconnect::ByApplication;
        let goodbye = async {
            // A connection that is already gone is what we want.
            drop(self.handle.disconnect(disconnect, reason, "").await);
        };
        self.cut.after(goodbye).await;
    }
}

/// A channel that the other side wants to open. Dropped, it is refused.
pub struct Offer {
    kind: ChannelKind,
    channel: russh::Channel<Msg>,
    reply: ChannelOpenHandle,
    gauge: Gauge,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Offer").field(&self.kind).finish()
    }
}

impl Offer {
    /// What it is for.
    #[must_use]
    pub const fn kind(&self) -> &ChannelKind {
        &self.kind
    }

    /// Confirms the channel.
    pub async fn accept(self) -> Channel {
        self.reply.accept().await;
        let (reader, writer) = self.channel.split();
        let reader = ChannelReader::new(reader, self.gauge.clone());
        Channel::new(reader, ChannelWriter::client(writer, self.gauge))
    }

    /// Refuses the channel.
    pub async fn refuse(self, failure: OpenFailure, words: &str) {
        let reason = words.to_owned();
        let code = failure.code();
        self.reply
            .reject(russh::ChannelOpenFailure::Other { code, reason })
            .await;
    }
}

/// A connection whose host has been checked and on which nothing has been proven yet: the way to a node may be
/// prepared this far before there is a permit.
pub struct Unauthenticated {
    handle: Handle<Gate>,
    cut: Cut,
    gauge: Gauge,
    identification: Arc<OnceLock<Vec<u8>>>,
    offers: Arc<OnceLock<mpsc::Sender<Offer>>>,
}

impl fmt::Debug for Unauthenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unauthenticated")
    }
}

impl Unauthenticated {
    /// Exchanges keys on `stream` and checks the host with `verifier`.
    ///
    /// # Errors
    /// As [`Client::connect`], without [`SshError::Refused`].
    pub async fn connect<S: ByteStream + 'static>(
        stream: S,
        verifier: HostVerifier,
    ) -> Result<Self, SshError> {
        let (stream, cut) = severable(stream);
        let gauge = Gauge::default();
        let stream = Throttled::new(stream, gauge.clone());
        let stream = BufReader::with_capacity(READ_BUFFER, stream);
        let identification = Arc::default();
        let offers = Arc::default();
        let gate = Gate {
            verifier,
            gauge: gauge.clone(),
            identification: Arc::clone(&identification),
            offers: Arc::clone(&offers),
        };
        let connecting = russh::client::connect_stream(settings::client(), stream, gate);
        let handle = tokio::time::timeout(settings::HANDSHAKE, connecting)
            .await
            .map_err(|_| SshError::Timeout(settings::HANDSHAKE.as_secs()))??;
        Ok(Self {
            handle,
            cut,
            gauge,
            identification,
            offers,
        })
    }

    /// Authenticates as `user` with `certificate`.
    ///
    /// # Errors
    /// [`SshError::Refused`], [`SshError::Timeout`], [`SshError::Closed`], [`SshError::Protocol`].
    pub async fn authenticate(
        self,
        user: &str,
        key: Arc<PrivateKey>,
        certificate: Certificate,
    ) -> Result<Client, SshError> {
        let Self {
            mut handle,
            cut,
            gauge,
            identification,
            offers,
        } = self;
        let authenticating = handle.authenticate_openssh_cert(user, key, certificate);
        let result = tokio::time::timeout(settings::HANDSHAKE, authenticating)
            .await
            .map_err(|_| SshError::Timeout(settings::HANDSHAKE.as_secs()))??;
        match result {
            AuthResult::Success => Ok(Client {
                handle,
                cut,
                gauge,
                identification,
                offers,
            }),
            AuthResult::Failure { .. } => Err(SshError::Refused(user.to_owned())),
        }
    }
}

/// The library's callbacks. Its defaults accept most channels that a server opens towards us; here each is offered or refused.
struct Gate {
    verifier: HostVerifier,
    gauge: Gauge,
    identification: Arc<OnceLock<Vec<u8>>>,
    offers: Arc<OnceLock<mpsc::Sender<Offer>>>,
}

impl Gate {
    /// Hands a channel to whoever asked for offers; refuses it where nobody did, or where too many wait.
    async fn offered(
        &self,
        kind: ChannelKind,
        channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
    ) -> Result<(), SshError> {
        let gauge = self.gauge.clone();
        let offer = Offer {
            kind,
            channel,
            reply,
            gauge,
        };
        // One that is dropped is refused.
        match self.offers.get() {
            Some(offers) => drop(offers.try_send(offer)),
            None => refuse(offer.reply).await?,
        }
        Ok(())
    }
}

impl Handler for Gate {
    type Error = SshError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, SshError> {
        let PublicKeyOrCertificate::Certificate(certificate) = shown else {
            return Err(SshError::HostRefused(String::from(
                "it has no host certificate",
            )));
        };
        let blob = certificate
            .to_bytes()
            .map_err(|error| SshError::Protocol(error.to_string()))?;
        (self.verifier)(&blob).map_err(SshError::HostRefused)?;
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _shared_secret: Option<&[u8]>,
        _names: &russh::Names,
        session: &mut Session,
    ) -> Result<(), SshError> {
        let shown = session.remote_sshid().to_vec();
        self.identification.get_or_init(|| shown);
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

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: russh::Channel<Msg>,
        connected_address: &str,
        connected_port: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), SshError> {
        let kind = ChannelKind::ForwardedTcpip {
            at: endpoint(connected_address, connected_port),
            from: endpoint(originator_address, originator_port),
        };
        self.offered(kind, channel, reply).await
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: russh::Channel<Msg>,
        socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), SshError> {
        let path = socket_path.to_owned();
        let kind = ChannelKind::ForwardedStreamlocal { path };
        self.offered(kind, channel, reply).await
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), SshError> {
        self.offered(ChannelKind::Agent, channel, reply).await
    }

    async fn server_channel_open_x11(
        &mut self,
        channel: russh::Channel<Msg>,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), SshError> {
        let from = endpoint(originator_address, originator_port);
        self.offered(ChannelKind::X11 { from }, channel, reply)
            .await
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), SshError> {
        refuse(reply).await
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: russh::Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), SshError> {
        refuse(reply).await
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: russh::Channel<Msg>,
        _socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), SshError> {
        refuse(reply).await
    }
}

async fn refuse(reply: ChannelOpenHandle) -> Result<(), SshError> {
    reply
        .reject(russh::ChannelOpenFailure::AdministrativelyProhibited)
        .await;
    Ok(())
}
