//! Forwards: connects where the hub says, as the login. What a name stands for is looked at here, where it is resolved.

pub(crate) mod listen;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use mezite_core::address::is_guarded;
use mezite_net::ssh::{
    Channel, ChannelKind, ChannelReader, ChannelWriter, Endpoint, Message, OpenFailure,
    PendingChannel,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

/// How long a connection may take, over all addresses of a name.
const CONNECT: Duration = Duration::from_secs(10);

/// Bytes read from a socket at once; one data message.
const READ: usize = 32 * 1024;

/// Connects where `pending` wants to, and carries bytes until both sides are done.
pub(crate) async fn serve(pending: PendingChannel) {
    let kind = pending.kind().clone();
    let connected = tokio::time::timeout(CONNECT, connect(&kind)).await;
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match connected {
        Ok((from, into)) => carry(pending.accept().await, from, into).await,
        Err(error) => {
            let words = error.to_string();
            pending.refuse(OpenFailure::ConnectFailed, &words).await;
        }
    }
}

pub(crate) type ReadEnd = Box<dyn AsyncRead + Send + Unpin>;
pub(crate) type WriteEnd = Box<dyn AsyncWrite + Send + Unpin>;

async fn connect(kind: &ChannelKind) -> io::Result<(ReadEnd, WriteEnd)> {
    match kind {
        ChannelKind::DirectTcpip { to, .. } => {
            let stream = connect_tcp(to).await?;
            stream.set_nodelay(true)?;
            let (from, into) = stream.into_split();
            Ok((Box::new(from), Box::new(into)))
        }
        ChannelKind::DirectStreamlocal { path } => {
            let (from, into) = UnixStream::connect(path).await?.into_split();
            Ok((Box::new(from), Box::new(into)))
        }
        ChannelKind::Session
        | ChannelKind::ForwardedTcpip { .. }
        | ChannelKind::ForwardedStreamlocal { .. }
        | ChannelKind::Agent
        | ChannelKind::X11 { .. } => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// An address is taken as the hub has permitted it. A name never leads to a guarded address, whatever it stands for.
async fn connect_tcp(to: &Endpoint) -> io::Result<TcpStream> {
    let port = u16::try_from(to.port)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "there is no such port"))?;
    let bare = to
        .host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(&to.host).parse::<IpAddr>() {
        return TcpStream::connect((address, port)).await;
    }
    let found: Vec<SocketAddr> = tokio::net::lookup_host((to.host.as_str(), port))
        .await?
        .collect();
    let allowed = reachable(&found)?;
    TcpStream::connect(allowed.as_slice()).await
}

fn reachable(found: &[SocketAddr]) -> io::Result<Vec<SocketAddr>> {
    let allowed: Vec<_> = found
        .iter()
        .filter(|address| !is_guarded(address.ip()))
        .copied()
        .collect();
    if allowed.is_empty() && !found.is_empty() {
        let words = "the name stands for a link-local or metadata address";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
    }
    Ok(allowed)
}

/// Carries bytes both ways. A channel is over when both directions have ended, as OpenSSH's client expects, or when the
/// client closes it.
pub(crate) async fn carry(channel: Channel, from: ReadEnd, into: WriteEnd) {
    let Channel { reader, writer } = channel;
    let client_ended = Notify::new();
    let both = async {
        let outgoing = async {
            pump(from, &writer).await;
            // The client may still have something to say.
            drop(writer.send(Message::Eof).await);
        };
        tokio::join!(outgoing, client_ended.notified())
    };
    tokio::select! {
        _ = both => {}
        () = feed(reader, into, &client_ended) => {}
    }
    // One that is closed already needs no close.
    drop(writer.send(Message::Close).await);
}

/// From the socket to the client, until the socket's end.
async fn pump(mut from: ReadEnd, writer: &ChannelWriter) {
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        buffer.reserve(READ);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let data = Message::Data(buffer.split().freeze());
                if writer.send(data).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// From the client to the socket, until the client closes the channel; tells when nothing more is to come.
async fn feed(mut reader: ChannelReader, into: WriteEnd, ended: &Notify) {
    let mut into = Some(into);
    while let Some(message) = reader.next().await {
        match message {
            Message::Data(data) => {
                if let Some(open) = &mut into
                    && open.write_all(&data).await.is_err()
                {
                    // The socket takes no more; what it sends is still wanted.
                    into = None;
                    ended.notify_one();
                }
            }
            Message::Eof => {
                if let Some(mut open) = into.take() {
                    // A socket that is gone shows at its other end.
                    drop(open.shutdown().await);
                    ended.notify_one();
                }
            }
            Message::Close => return,
            Message::ExtendedData(..)
            | Message::Request(_)
            | Message::Success
            | Message::Failure => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_61_a_name_leads_to_no_guarded_address() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let mixed = addresses(&["169.254.169.254:80", "10.0.0.1:80", "[::ffff:a9fe:a9fe]:80"]);
        assert_eq!(reachable(&mixed).unwrap(), addresses(&["10.0.0.1:80"]));
        let guarded = addresses(&["169.254.169.254:80", "[fe80::1]:80"]);
        let refused = reachable(&guarded).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(reachable(&[]).unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_address_is_connected_to_as_it_stands() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().into();
        for host in ["127.0.0.1", "localhost"] {
            let host = host.to_owned();
            assert!(connect_tcp(&Endpoint { host, port }).await.is_ok());
        }
        let host = String::from("127.0.0.1");
        let port = 65_536 + port;
        assert!(connect_tcp(&Endpoint { host, port }).await.is_err());
    }
}
