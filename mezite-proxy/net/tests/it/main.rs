//! The facades against real peers: SSH and TLS, each side played by the library or by OpenSSH.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod keys;
mod limits;
mod openssh;
mod ssh;
mod tls;
