//! The messages on a control connection: JSON documents behind a 32-bit length, so that a capture of a test can be
//! read by eye.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mezite_core::{EventId, Login, Serial, UnixTime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::ByteStream;

/// Most bytes of one message.
const MAX: usize = 256 * 1024;

/// What an agent tells a hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ToHub {
    /// The first message.
    Hello {
        /// Version of the agent.
        version: String,
        /// Labels the agent reports of itself; they have the authority of an agent.
        labels: BTreeMap<String, String>,
    },
    /// The agent is alive. Sent every 15 s.
    Alive,
    /// Asks for fresh certificates over fresh keys.
    Renew {
        /// OpenSSH text of the public host key.
        host_key: String,
        /// Raw Ed25519 public key for TLS, hexadecimal.
        tls_key: String,
    },
    /// Which keys the agent trusts, and which signed what it holds: fingerprints `SHA256:…` by the kind of the key. Sent
    /// after the greeting, and whenever it changes. What is left out is as it was.
    Adopted {
        /// The keys that it trusts and has on its disk.
        trusts: BTreeMap<String, BTreeSet<String>>,
        /// Who signed the certificate that it holds.
        holds: BTreeMap<String, String>,
    },
    /// Somebody came in with a break-glass certificate. Said again until it is acknowledged.
    BreakGlassUsed(BreakGlassUse),
    /// A dial-back did not succeed.
    DialFailed {
        /// The id of the request, hexadecimal.
        id: String,
        /// Why.
        error: String,
    },
}

/// What a hub tells an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ToAgent {
    /// The answer to [`ToHub::Hello`]: the trust bundle of today, JSON.
    Welcome {
        /// JSON of the trust bundle.
        trust: String,
    },
    /// Another trust bundle, from now on.
    Trust {
        /// JSON of the trust bundle.
        trust: String,
    },
    /// A break-glass use is in the log: the agent may forget it.
    BreakGlassNoted {
        /// The use.
        id: EventId,
    },
    /// `host:port` of the tunnel ports of all hubs, to each of which the agent keeps a connection. Sent after the greeting
    /// and whenever it changes; the newest counts.
    Hubs {
        /// In no order.
        addresses: Vec<String>,
    },
    /// Open a session connection and send these 16 bytes first.
    Dial {
        /// Hexadecimal.
        id: String,
    },
    /// The answer to [`ToHub::Renew`].
    Renewed(Renewed),
    /// The hub will not serve this agent. The last message.
    Refused {
        /// Why, for the agent's log.
        reason: String,
    },
}

/// One use of a break-glass certificate, as the node wrote it down before it let anybody in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a wire message and a file")]
pub struct BreakGlassUse {
    /// Drawn by the node.
    pub id: EventId,
    /// When, by the node's clock.
    pub at: UnixTime,
    /// As which account.
    pub login: Login,
    /// Who served: `builtin` or `openssh`.
    pub mode: String,
    /// Of the certificate.
    pub serial: Serial,
    /// Of the certificate.
    pub key_id: String,
    /// Fingerprint of the certified key.
    pub key: String,
    /// Fingerprint of the break-glass key.
    pub authority: String,
    /// Where the client was, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Tells the connections to a local sshd apart, on the node: sshd asks twice for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
}

/// Fresh certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a wire message")]
pub struct Renewed {
    /// OpenSSH text of the host certificate.
    pub host_certificate: String,
    /// DER certificates, hexadecimal, leaf first.
    pub tls_chain: Vec<String>,
    /// JSON of the trust bundle.
    pub trust: String,
}

/// Why a control connection ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The connection is gone.
    #[error("the control connection is closed: {0}")]
    Io(#[from] std::io::Error),
    /// More than 256 KiB.
    #[error("a control message of {0} bytes is too long")]
    TooLong(u64),
    /// Not a message of this protocol.
    #[error("unreadable control message: {0}")]
    Unreadable(String),
}

/// Splits a connection into a reader and a writer of messages.
pub fn split<S: ByteStream>(stream: S) -> (ControlReader<S>, ControlWriter<S>) {
    let (reader, writer) = tokio::io::split(stream);
    (ControlReader(reader), ControlWriter(writer))
}

/// Reads messages.
#[derive(Debug)]
pub struct ControlReader<S>(ReadHalf<S>);

impl<S: ByteStream> ControlReader<S> {
    /// The next message. Not cancel-safe: half a message may have been read.
    ///
    /// # Errors
    /// [`ControlError`]; the connection is then of no more use.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<T, ControlError> {
        let length = self.0.read_u32().await?;
        let too_long = || ControlError::TooLong(u64::from(length));
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX)
            .ok_or_else(too_long)?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        serde_json::from_slice(&body).map_err(|error| ControlError::Unreadable(error.to_string()))
    }
}

/// Writes messages.
#[derive(Debug)]
pub struct ControlWriter<S>(WriteHalf<S>);

impl<S: ByteStream> ControlWriter<S> {
    /// Sends one message.
    ///
    /// # Errors
    /// [`ControlError`]; the connection is then of no more use.
    pub async fn send<T: Serialize + Sync>(&mut self, message: &T) -> Result<(), ControlError> {
        let body = serde_json::to_vec(message)
            .map_err(|error| ControlError::Unreadable(error.to_string()))?;
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX);
        let length = length
            .ok_or_else(|| ControlError::TooLong(body.len().try_into().unwrap_or(u64::MAX)))?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&body);
        self.0.write_all(&framed).await?;
        self.0.flush().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_round_trip() {
        let (near, far) = tokio::io::duplex(1024);
        let (_, mut writer) = split(near);
        let (mut reader, _far) = split(far);
        let hello = ToHub::Hello {
            version: "1".into(),
            labels: BTreeMap::from([("a".into(), "b".into())]),
        };
        for message in [hello, ToHub::Alive] {
            writer.send(&message).await.unwrap();
            assert_eq!(reader.next::<ToHub>().await.unwrap(), message);
        }
    }

    #[tokio::test]
    async fn attack_28_a_length_from_the_peer_is_bounded_before_memory_is_taken() {
        let (mut near, far) = tokio::io::duplex(64);
        let (mut reader, _far) = split(far);
        near.write_all(&[0xff; 4]).await.unwrap();
        assert!(matches!(
            reader.next::<ToHub>().await,
            Err(ControlError::TooLong(0xffff_ffff))
        ));
    }
}
