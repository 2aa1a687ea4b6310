//! Known limits of russh (ARCHITECTURE.md). Each test passes while its limit stands; when one fails, the limit is gone:
//! use what has become possible, and take the line off the table.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mezite_core::Span;
use mezite_net::ssh::{Client, Message, accept};
use ssh_key::Certificate;
use tokio::io::duplex;

use crate::keys;
use crate::ssh::{Door, Seen, anybody, channel, pair};

/// A reader that never takes its bytes must stop only its own channel. It stops them all.
#[tokio::test]
async fn limit_one_stalled_channel_freezes_the_others() {
    let (mut server, client) = pair().await;
    let (stalled, _unread) = channel(&mut server, &client).await;
    let (other, mut read) = channel(&mut server, &client).await;
    let ping = || Message::Data(Bytes::from_static(b"ping"));
    other.writer.send(ping()).await.unwrap();
    assert_eq!(read.reader.next().await, Some(ping()), "it works before");
    tokio::spawn(async move {
        let data = Bytes::from(vec![0; 32 * 1024]);
        while stalled
            .writer
            .send(Message::Data(data.clone()))
            .await
            .is_ok()
        {}
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let pinged = async {
        other.writer.send(ping()).await.unwrap();
        read.reader.next().await
    };
    let pinged = tokio::time::timeout(Duration::from_millis(700), pinged).await;
    assert!(pinged.is_err(), "the limit is gone: {pinged:?}");
}

/// What the authenticator sees when `certificate` is shown.
async fn seen_of(certificate: Certificate) -> Vec<String> {
    let seen = Seen::default();
    let (near, far) = duplex(64 * 1024);
    let key = Arc::new(keys::private(10));
    let (server, client) = tokio::join!(
        accept(far, keys::host(), Door(Arc::clone(&seen))),
        Client::connect(near, anybody(), "alice", key, certificate)
    );
    assert!(server.is_err() && client.is_err(), "it is refused");
    let seen = seen.lock().unwrap();
    seen.clone()
}

/// An attempt with an expired certificate must reach the authenticator, which reports it. It does not.
#[tokio::test]
async fn limit_expired_certificates_are_refused_unseen() {
    let long_ago = keys::now().minus(Span::from_secs(100_000));
    let seen = seen_of(keys::identity_at("alice", long_ago)).await;
    assert!(seen.is_empty(), "the limit is gone: {seen:?}");
}

/// Neither does one whose signature is wrong.
#[tokio::test]
async fn limit_badly_signed_certificates_are_refused_unseen() {
    let mut blob = keys::identity("alicf").to_bytes().unwrap();
    let at = blob
        .windows(b"user=alicf ".len())
        .position(|window| window == b"user=alicf ")
        .unwrap();
    blob[at + 9] = b'e';
    let forged = Certificate::from_bytes(&blob).unwrap();
    assert!(forged.verify_signature().is_err());
    let seen = seen_of(forged).await;
    assert!(seen.is_empty(), "the limit is gone: {seen:?}");
}

/// What the library would have to offer. A method of its own with one of these names would be called instead.
trait NoSessionId {
    fn session_id(&self) -> Option<&'static [u8]> {
        None
    }

    fn exchange_hash(&self) -> Option<&'static [u8]> {
        None
    }
}

impl NoSessionId for russh::server::Session {}

impl NoSessionId for russh::server::Handle {}

/// Asks the library's server for the id of its connection (RFC 4253 section 7.2).
struct Asking(tokio::sync::mpsc::UnboundedSender<bool>);

impl russh::server::Handler for Asking {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<russh::server::Auth, russh::Error> {
        Ok(russh::server::Auth::Accept)
    }

    async fn auth_succeeded(
        &mut self,
        session: &mut russh::server::Session,
    ) -> Result<(), russh::Error> {
        let handle = session.handle();
        let none = session.session_id().is_none()
            && session.exchange_hash().is_none()
            && handle.session_id().is_none()
            && handle.exchange_hash().is_none();
        self.0.send(none).unwrap();
        Ok(())
    }
}

/// The connection's id must be there, so that events can be bound to the key exchange. It is not.
#[tokio::test]
async fn limit_no_session_id_on_the_servers_side() {
    let (near, far) = duplex(64 * 1024);
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    let config = Arc::new(russh::server::Config {
        keys: vec![keys::private(11)],
        ..russh::server::Config::default()
    });
    tokio::spawn(russh::server::run_stream(config, far, Asking(told)));
    let mut client = crate::ssh::bare_client(near).await;
    assert!(client.authenticate_none("alice").await.unwrap().success());
    let none = tells.recv().await.unwrap();
    assert!(none, "the limit is gone");
}
