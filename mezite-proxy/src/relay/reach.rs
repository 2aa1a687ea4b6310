//! The way to a session's node: it may be prepared while the decision is made, and gets in with a permit alone.

use std::sync::{Arc, OnceLock};

use mezite_ca::verify::{self, VerifiedNode};
use mezite_net::ssh::{Client, Unauthenticated};
use rand::Rng;
use ssh_key::PrivateKey;

use super::facts::Facts;
use crate::authority::Node;
use crate::gateway::Shared;

/// Begins to reach the node: TCP or tunnel, key exchange, host certificate. Nothing is proven to it yet.
pub(super) fn prepare(
    shared: &Arc<Shared>,
    node: &Node,
) -> tokio::task::JoinHandle<Result<(Unauthenticated, VerifiedNode), String>> {
    let (shared, node) = (Arc::clone(shared), node.clone());
    tokio::spawn(async move {
        let stream = shared
            .dialer
            .dial(&node)
            .await
            .map_err(|error| error.to_string())?;
        let authority = Arc::clone(&shared.authority);
        let expected = node.facts.id.clone();
        let shown = Arc::new(OnceLock::new());
        let seen = Arc::clone(&shown);
        let verifier = Box::new(move |blob: &[u8]| {
            let trust = authority.trust();
            let context = verify::Context {
                trust: &trust,
                now: authority.now(),
                source: None,
                revoked: &|certificate| authority.is_revoked(certificate),
            };
            let verified = verify::node_host(blob, &expected, &context);
            let verified = verified.map_err(|error| error.to_string())?;
            // One key exchange asks once; the first answer stands.
            drop(seen.set(verified));
            Ok(())
        });
        let connected = Unauthenticated::connect(stream, verifier)
            .await
            .map_err(|error| error.to_string())?;
        let shown = shown.get().cloned();
        let shown = shown.ok_or_else(|| String::from("the node showed no certificate"))?;
        Ok((connected, shown))
    })
}

/// Proves to the node that this session was permitted, and so gets in.
pub(super) async fn reach(
    facts: &Facts,
    way: tokio::task::JoinHandle<Result<(Unauthenticated, VerifiedNode), String>>,
) -> Result<(Client, VerifiedNode), String> {
    let mut seed = [0; 32];
    mezite_net::random::rng().fill_bytes(&mut seed);
    let key = PrivateKey::from(ssh_key::private::Ed25519Keypair::from_seed(&seed));
    let certificate = facts.grant.issue_session(key.public_key()).await;
    let certificate = certificate.map_err(|error| error.to_string())?;
    let name = &facts.grant.permit().node().name;
    let unreachable = |error: String| format!("node `{name}` cannot be reached: {error}");
    let (node, shown) = way
        .await
        .map_err(|error| unreachable(error.to_string()))?
        .map_err(unreachable)?;
    let login = facts.grant.permit().login().as_str();
    let client = node
        .authenticate(login, Arc::new(key), certificate.clone())
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    facts.grant.accepted(&certificate).await;
    Ok((client, shown))
}
