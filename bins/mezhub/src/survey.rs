//! Looks at the host certificates of nodes while the node key is replaced: a stock sshd cannot tell what it shows, and
//! shows what it was started with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use mezite_auth::{Auth, Node};
use mezite_ca::verify;
use mezite_core::Clock;
use mezite_net::ssh::Unauthenticated;
use mezite_proxy::dial::Dialer;
use ssh_key::{Certificate, PublicKey};

use crate::authority::node_of;

/// How soon a node that lags behind is looked at again.
const EVERY: Duration = Duration::from_secs(15);

/// Nodes that are looked at together.
const AT_ONCE: usize = 8;

/// Looks at whoever holds the rotation up, until the auth service is gone.
pub(crate) async fn run(auth: Auth, dialer: Arc<dyn Dialer>, clock: Arc<dyn Clock>) {
    let mut changes = auth.trust_changes();
    loop {
        match auth.nodes_to_look_at().await {
            Ok(nodes) => {
                let looks = stream::iter(&nodes).for_each_concurrent(AT_ONCE, |node| async {
                    if let Err(error) = look(&auth, dialer.as_ref(), &clock, node).await {
                        tracing::debug!(node = %node.name, error, "a node's host certificate was not seen");
                    }
                });
                looks.await;
            }
            Err(error) => tracing::error!(%error, "it is not known which nodes to look at"),
        }
        tokio::select! {
            changed = changes.changed() => if !changed {
                return;
            },
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// The way to the node as far as its host certificate. Nothing is proven to it.
async fn look(
    auth: &Auth,
    dialer: &dyn Dialer,
    clock: &Arc<dyn Clock>,
    node: &Node,
) -> Result<(), String> {
    let stream = dialer
        .dial(&node_of(node))
        .await
        .map_err(|error| error.to_string())?;
    let signer = Arc::new(Mutex::new(None::<PublicKey>));
    let (seen, known, clock) = (Arc::clone(&signer), auth.clone(), Arc::clone(clock));
    let id = node.id.clone();
    let verifier = Box::new(move |blob: &[u8]| {
        let trust = known.trust();
        let context = verify::Context {
            trust: &trust,
            now: clock.now(),
            source: None,
            revoked: &|_| false,
        };
        let refused = verify::node_host(blob, &id, &context).map(drop);
        refused.map_err(|error| error.to_string())?;
        let certificate = Certificate::from_bytes(blob).map_err(|error| error.to_string())?;
        let signer = PublicKey::from(certificate.signature_key().clone());
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(signer);
        Ok(())
    });
    let reached = Unauthenticated::connect(stream, verifier).await;
    drop(reached.map_err(|error| error.to_string())?);
    let signer = signer.lock().unwrap_or_else(PoisonError::into_inner).take();
    let signer = signer.ok_or("it has shown no host certificate")?;
    auth.node_shows(&node.id, &signer)
        .await
        .map_err(|error| error.to_string())
}
