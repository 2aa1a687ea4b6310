//! SSH as messages, the same on both sides of a relay (RFC 4251-4254).
//!
//! The shape is what a recording proxy needs, not what the library beneath offers: every attempt to authenticate is
//! seen with its raw certificate, every request is a [`Message`] that somebody answers, and what has no name here is
//! refused. Limits of the present engine (russh) are listed in ARCHITECTURE.md; each has a test that passes while it stands.

mod channel;
mod client;
mod message;
mod server;
mod settings;
mod sever;
mod throttle;

pub use channel::{Channel, ChannelReader, ChannelWriter};
pub use client::{Client, HostVerifier, Offer, Unauthenticated};
pub use message::{
    ChannelKind, Endpoint, Listener, Message, OpenFailure, Request, WindowSize, X11,
};
pub use server::{
    Attempt, Authenticator, Incoming, Opener, PendingChannel, PendingListener, Server,
    ServerIdentity, accept,
};

use thiserror::Error;

/// Why a connection could not be made, or ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SshError {
    /// The other side's host key or certificate was refused.
    #[error("the host's identity was refused: {0}")]
    HostRefused(String),
    /// The other side refused our certificate.
    #[error("the other side refused the certificate for `{0}`")]
    Refused(String),
    /// Key exchange or authentication took too long.
    #[error("no authenticated connection after {0} seconds")]
    Timeout(u64),
    /// The other side refused to open a channel.
    #[error("the other side refused the channel: {0}")]
    ChannelRefused(OpenFailure),
    /// The connection is closed.
    #[error("the connection is closed")]
    Closed,
    /// A protocol or transport failure of the library.
    #[error("ssh: {0}")]
    Protocol(String),
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a caller cannot act on is told in the library's words"
)]
impl From<russh::Error> for SshError {
    fn from(error: russh::Error) -> Self {
        match error {
            russh::Error::ChannelOpenFailure(failure) => {
                Self::ChannelRefused(OpenFailure::from(failure))
            }
            russh::Error::Disconnect | russh::Error::HUP | russh::Error::SendError => Self::Closed,
            other => Self::Protocol(other.to_string()),
        }
    }
}
