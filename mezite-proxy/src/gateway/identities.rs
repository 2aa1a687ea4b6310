//! Host certificates that the gateway shows: one per set of names, kept for half of its life or until another key signs.

use std::collections::BTreeMap;

use mezite_core::{Span, UnixTime};
use mezite_net::ssh::ServerIdentity;
use tokio::sync::Mutex;

use crate::authority::{Authority, Unavailable};

/// A gateway host certificate lives one hour.
const KEPT: Span = Span::from_secs(30 * 60);

/// Most names remembered; all are forgotten when there would be more.
const MAX: usize = 10_000;

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Identities(Mutex<BTreeMap<Vec<String>, (UnixTime, ServerIdentity)>>);

impl Identities {
    /// An identity for `names`, fresh or remembered.
    pub(super) async fn of(
        &self,
        authority: &dyn Authority,
        names: Vec<String>,
    ) -> Result<ServerIdentity, Unavailable> {
        let now = authority.now();
        let mut cache = self.0.lock().await;
        if let Some((made, identity)) = cache.get(&names)
            && now < made.plus(KEPT)
            && now >= *made
            && is_signed_now(authority, identity)
        {
            return Ok(identity.clone());
        }
        let identity = authority.gateway_identity(&names).await?;
        if cache.len() >= MAX {
            cache.clear();
        }
        cache.insert(names, (now, identity.clone()));
        Ok(identity)
    }
}

/// The signing key stands first in its ring.
fn is_signed_now(authority: &dyn Authority, identity: &ServerIdentity) -> bool {
    let trust = authority.trust();
    let signing = trust.gateway.first();
    signing.is_some_and(|key| key.key_data() == identity.certificate.signature_key())
}
