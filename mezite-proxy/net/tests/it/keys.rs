//! Authorities and what they certify.

use std::sync::Arc;

use mezite_ca::{GatewayKey, IdentityKey, IdentityRequest, NodeKey, SoftwareKey, openssh};
use mezite_core::{Clock, ClusterName, NodeId, Secret, Serial, Span, UnixTime};
use mezite_net::clock::SystemClock;
use mezite_net::ssh::ServerIdentity;
use ssh_key::{Certificate, PrivateKey};

pub(crate) fn now() -> UnixTime {
    SystemClock.now()
}

pub(crate) fn cluster() -> ClusterName {
    "test".parse().unwrap()
}

/// The software key number `number`.
pub(crate) fn software(number: u8) -> Arc<SoftwareKey> {
    Arc::new(SoftwareKey::from_seed(Secret::new([number; 32])))
}

/// The same key for SSH.
pub(crate) fn private(number: u8) -> PrivateKey {
    let text = openssh::private_key(software(number).seed(), "").unwrap();
    PrivateKey::from_openssh(text.expose()).unwrap()
}

/// An identity certificate over key 10, issued at `now`.
pub(crate) fn identity_at(user: &str, now: UnixTime) -> Certificate {
    let (cluster, user, key) = (cluster(), user.parse().unwrap(), private(10));
    let request = IdentityRequest {
        cluster: &cluster,
        user: &user,
        public_key: key.public_key(),
        ttl: Span::from_secs(3600),
        ceiling: Span::from_secs(3600),
    };
    IdentityKey::new(software(1))
        .issue(&request, Serial::from_u64(7), now, &mut rand::rng())
        .unwrap()
}

pub(crate) fn identity(user: &str) -> Certificate {
    identity_at(user, now())
}

/// A host certificate of a node over key 11.
pub(crate) fn host() -> ServerIdentity {
    let key = private(11);
    let certificate = NodeKey::new(software(2))
        .issue(
            &NodeId::new([1; 16]),
            &cluster(),
            key.public_key(),
            Serial::from_u64(8),
            now(),
            &mut rand::rng(),
        )
        .unwrap();
    ServerIdentity { key, certificate }
}

/// A host certificate of the gateway over key 11, for `name`.
pub(crate) fn gateway(name: &str) -> ServerIdentity {
    let key = private(11);
    let certificate = GatewayKey::new(software(3))
        .issue(
            &[name.to_owned()],
            key.public_key(),
            Serial::from_u64(9),
            now(),
            &mut rand::rng(),
        )
        .unwrap();
    ServerIdentity { key, certificate }
}
