//! Algorithms, windows and limits, chosen once for both directions.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::ssh_key::{Algorithm, Certificate, PrivateKey};
use russh::{Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

/// Identification (RFC 4253 section 4.2). No version: it is nobody's business before authentication.
pub(super) const IDENTIFICATION: &str = "SSH-2.0-Mezite";

/// The whole of identification, key exchange and authentication.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(30);

/// Bytes in flight per channel and direction; more brought nothing on fast links (peers, measured).
const WINDOW: u32 = 2 * 1024 * 1024;

/// Payload of one data message. OpenSSH sends 32 KiB.
const PACKET: u32 = 32 * 1024;

/// Messages to be sent that may wait for the connection's loop.
const EVENTS: usize = 64;

/// Messages queued per channel: more than the throttle ever lets in, so that the connection's loop never waits.
const QUEUE: usize = 1 << 20;

/// AES-GCM first: it is the fastest with hardware support, and OpenSSH clients that prefer ChaCha20 still get theirs.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_128_CTR,
];

/// ML-KEM hybrid and X25519 only: no finite-field exchange that a stranger could make us compute for nothing.
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

fn preferred(host_key_certificates: &'static [Algorithm]) -> Preferred {
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: Cow::Borrowed(&[Algorithm::Ed25519]),
        host_key_certificates: Cow::Borrowed(host_key_certificates),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(&[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM]),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

pub(super) fn server(host_key: PrivateKey, certificate: Certificate) -> Arc<russh::server::Config> {
    Arc::new(russh::server::Config {
        server_id: SshId::Standard(Cow::Borrowed(IDENTIFICATION)),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // OpenSSH begins with a `none` request; waiting there would cost every login a second.
        auth_rejection_time: Duration::from_millis(300),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        certificates: vec![certificate],
        limits: Limits::default(),
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        channel_buffer_size: QUEUE,
        event_buffer_size: EVENTS,
        preferred: preferred(&[]),
        max_auth_attempts: 10,
        inactivity_timeout: None,
        // A connection that is not read for a while is not dead; TCP's own keep-alive finds those that are.
        keepalive_interval: None,
        keepalive_max: 0,
        nodelay: true,
    })
}

pub(super) fn client() -> Arc<russh::client::Config> {
    Arc::new(russh::client::Config {
        client_id: SshId::Standard(Cow::Borrowed(IDENTIFICATION)),
        limits: Limits::default(),
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        channel_buffer_size: QUEUE,
        preferred: preferred(&[Algorithm::Ed25519]),
        inactivity_timeout: None,
        // A connection that is not read for a while is not dead; TCP's own keep-alive finds those that are.
        keepalive_interval: None,
        keepalive_max: 0,
        nodelay: true,
        ..russh::client::Config::default()
    })
}
