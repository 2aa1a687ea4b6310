//! Bytes between machines: TLS 1.3 with Mezite's certificates, SSH as messages, reverse tunnels.
//!
//! `ssh` is the only module that names russh, `tls` the only one that names rustls, so that either can be replaced.
#![forbid(unsafe_code)]

pub mod clock;
pub mod grpc;
pub mod random;
pub mod ssh;
pub mod tls;
pub mod tunnel;

use std::fmt;

use tokio::io::{AsyncRead, AsyncWrite};

/// Any ordered byte stream: TCP, TLS, a Unix socket, an SSH channel.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

impl fmt::Debug for dyn ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByteStream")
    }
}
