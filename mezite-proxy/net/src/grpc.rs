//! gRPC over our own TLS and Unix sockets: the glue between tonic and [`crate::tls`].

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use mezite_ca::verify::VerifiedPeer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::ByteStream;
use crate::tls::Connector;

/// Who is on the other side of a gRPC connection. Handlers find it in the request's extensions.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a service must decide about each")]
pub enum Connection {
    /// A local process that could open the hub's Unix socket.
    Local {
        /// Its user id, as the kernel says.
        uid: u32,
    },
    /// A TLS connection.
    Remote {
        /// Where from.
        address: SocketAddr,
        /// Who, if a certificate was shown.
        peer: Option<Arc<VerifiedPeer>>,
    },
}

/// A stream that knows who is on its other side.
#[derive(Debug)]
pub struct Identified {
    stream: Box<dyn ByteStream>,
    connection: Connection,
}

impl Identified {
    /// Marks `stream`.
    pub fn new<S: ByteStream + 'static>(stream: S, connection: Connection) -> Self {
        Self {
            stream: Box::new(stream),
            connection,
        }
    }
}

impl Connected for Identified {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for Identified {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Identified {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A channel to the hub at `address` (`host:port`). The first connection is made at once, so that a wrong address or
/// certificate is told with its own words.
///
/// # Errors
/// [`crate::tls::TlsError`].
pub async fn connect(connector: Connector, address: &str) -> Result<Channel, crate::tls::TlsError> {
    let first = connector.connect(address).await?;
    let first: Box<dyn ByteStream> = Box::new(first);
    let first = Arc::new(std::sync::Mutex::new(Some(first)));
    let address = address.to_owned();
    let dial = service_fn(move |_: Uri| {
        let (connector, address, first) = (connector.clone(), address.clone(), Arc::clone(&first));
        async move {
            let ready = first
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take();
            let stream: Box<dyn ByteStream> = match ready {
                Some(stream) => stream,
                None => Box::new(
                    connector
                        .connect(&address)
                        .await
                        .map_err(io::Error::other)?,
                ),
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    Ok(endpoint().connect_with_connector_lazy(dial))
}

/// A channel to the Unix socket at `path`.
///
/// # Errors
/// When nobody listens there.
pub async fn connect_local(path: PathBuf) -> io::Result<Channel> {
    drop(UnixStream::connect(&path).await?);
    let dial = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Ok(endpoint().connect_with_connector_lazy(dial))
}

/// The address is the connector's business; HTTP/2 only wants to see one.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://hub.mezite")
}
