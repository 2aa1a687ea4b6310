//! Streams of `msh proxy`: after TLS, the client names a node, and what follows is SSH.
//!
//! The client sends a 16-bit length and the node's name; the hub answers one byte: 0, or 1 and a text of 16-bit length.

use std::net::SocketAddr;
use std::time::Duration;

use mezite_ca::verify::VerifiedPeer;
use mezite_net::ByteStream;
use mezite_proxy::Gateway;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long the client has to name the node.
const PREAMBLE: Duration = Duration::from_secs(5);

/// No name of a node in a cluster is longer.
const MAX_NAME: u16 = 253;

/// Serves one stream from its preamble to its end.
pub(crate) async fn serve<S: ByteStream + 'static>(
    mut stream: S,
    peer: Option<&VerifiedPeer>,
    source: SocketAddr,
    gateway: &Gateway,
) {
    let named = tokio::time::timeout(PREAMBLE, read_name(&mut stream)).await;
    let Ok(Ok(name)) = named else {
        return tracing::debug!(%source, "a proxied client named no node");
    };
    let Some(user) = peer.and_then(VerifiedPeer::user) else {
        return refuse(&mut stream, "log in first: `msh login`").await;
    };
    match gateway.proxied(user, &name, source.ip()).await {
        Ok(proxied) => {
            if stream.write_all(&[0]).await.is_ok() && stream.flush().await.is_ok() {
                proxied.serve(stream, source).await;
            }
        }
        Err(words) => refuse(&mut stream, &words).await,
    }
}

async fn read_name<S: ByteStream>(stream: &mut S) -> std::io::Result<String> {
    let length = stream.read_u16().await?;
    if length > MAX_NAME {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut name = vec![0; usize::from(length)];
    stream.read_exact(&mut name).await?;
    String::from_utf8(name).map_err(|_| std::io::ErrorKind::InvalidData.into())
}

async fn refuse<S: ByteStream>(stream: &mut S, words: &str) {
    let length = u16::try_from(words.len()).unwrap_or(u16::MAX);
    let mut answer = vec![1];
    answer.extend_from_slice(&length.to_be_bytes());
    answer.extend(words.bytes().take(usize::from(length)));
    // A client that is gone needs no words.
    drop(stream.write_all(&answer).await);
    drop(stream.shutdown().await);
}
