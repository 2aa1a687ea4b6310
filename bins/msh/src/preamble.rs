//! The few bytes between TLS and SSH: the client names a node, the hub says go on or why not.
//!
//! Client: length (16 bits, big-endian), name in UTF-8. Hub: 0; or another byte, length (16 bits), text.

use mezite_core::NodeName;
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Names the node.
pub(crate) async fn ask<S: AsyncWrite + Unpin>(stream: &mut S, node: &NodeName) -> io::Result<()> {
    let name = node.as_str().as_bytes();
    let length = u16::try_from(name.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), name].concat())
        .await?;
    stream.flush().await
}

/// What the hub says: `Err` inside holds its words.
pub(crate) async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Result<(), String>> {
    if stream.read_u8().await? == 0 {
        return Ok(Ok(()));
    }
    let length = stream.read_u16().await?;
    let mut words = vec![0; usize::from(length)];
    stream.read_exact(&mut words).await?;
    Ok(Err(String::from_utf8_lossy(&words).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_a_node_and_hears_the_answer() {
        let mut sent = Vec::new();
        ask(&mut sent, &"web".parse().unwrap()).await.unwrap();
        assert_eq!(sent, b"\0\x03web");
        assert_eq!(answer(&mut &b"\0SSH-2.0-"[..]).await.unwrap(), Ok(()));
        let refused = answer(&mut &b"\x01\0\x02no"[..]).await.unwrap();
        assert_eq!(refused, Err("no".to_owned()));
        for cut in [&b""[..], b"\x01", b"\x01\0\x05no"] {
            assert!(answer(&mut &*cut).await.is_err(), "{cut:?}");
        }
    }
}
