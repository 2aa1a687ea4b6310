//! The tunnel port: agents with their control and session connections, and what the auth service says to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use mezite_api::request::RenewNode;
use mezite_auth::{Adopted, Auth, BreakGlassReport, Presence};
use mezite_core::{Clock, Labels, NodeId};
use mezite_net::tls::{Acceptor, Protocol};
use mezite_net::tunnel::{BreakGlassUse, Hooks, Registry, Renewed};
use ssh_key::PublicKey;
use tokio::net::{TcpListener, TcpStream};

/// How soon what failed is tried again.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// What agents get from the auth service.
#[derive(Debug)]
pub(crate) struct AgentHooks {
    auth: Auth,
    clock: Arc<dyn Clock>,
    /// Who is here, with the labels its agent said at its greeting.
    present: Mutex<BTreeMap<NodeId, (Presence, Labels)>>,
}

impl AgentHooks {
    pub(crate) fn new(auth: Auth, clock: Arc<dyn Clock>) -> Self {
        Self {
            auth,
            clock,
            present: Mutex::default(),
        }
    }

    fn trust(&self) -> Result<String, String> {
        serde_json::to_string(&self.auth.trust_for_nodes()).map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Hooks for AgentHooks {
    async fn connected(
        &self,
        node: &NodeId,
        version: &str,
        labels: Labels,
    ) -> Result<String, String> {
        let presence = self
            .auth
            .node_connected(node, None, Some(version))
            .await
            .map_err(|error| error.to_string())?;
        let before = self
            .present
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node.clone(), (presence, labels));
        drop(before);
        self.trust()
    }

    async fn disconnected(&self, node: &NodeId) {
        let presence = self
            .present
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(node);
        if let Some((presence, _)) = presence
            && let Err(error) = self
                .auth
                .node_disconnected(presence, "the connection was lost")
                .await
        {
            tracing::error!(%error, %node, "a node's leaving could not be recorded");
        }
    }

    async fn adopted(
        &self,
        node: &NodeId,
        trusts: BTreeMap<String, BTreeSet<String>>,
        holds: BTreeMap<String, String>,
    ) {
        let noted = match Adopted::reported(trusts, holds) {
            Ok(report) => self.auth.node_reports(node, &report).await,
            Err(error) => Err(error),
        };
        if let Err(error) = noted {
            tracing::error!(%error, %node, "which keys a node has adopted could not be recorded");
        }
    }

    async fn break_glass_used(&self, node: &NodeId, used: &BreakGlassUse) -> Result<(), String> {
        let report = BreakGlassReport {
            id: used.id,
            at: used.at,
            login: used.login.clone(),
            mode: used.mode.clone(),
            serial: used.serial,
            key_id: used.key_id.clone(),
            key: used.key.clone(),
            authority: used.authority.clone(),
            source: used.source,
        };
        let noted = self.auth.break_glass_used(node, &report).await;
        noted.map_err(|error| error.to_string())
    }

    async fn renew(
        &self,
        node: &NodeId,
        host_key: &str,
        tls_key: [u8; 32],
    ) -> Result<Renewed, String> {
        let host_public_key =
            PublicKey::from_openssh(host_key).map_err(|error| error.to_string())?;
        let labels = {
            let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
            present
                .get(node)
                .map_or_else(Labels::default, |(_, labels)| labels.clone())
        };
        let renew = RenewNode::new(host_public_key, tls_key, self.clock.now(), labels);
        let identity = self
            .auth
            .renew_node(node, &renew)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Renewed {
            host_certificate: identity
                .host_certificate
                .to_openssh()
                .map_err(|error| error.to_string())?,
            tls_chain: identity
                .tls_chain
                .iter()
                .map(|der| data_encoding::HEXLOWER.encode(der))
                .collect(),
            trust: self.trust()?,
        })
    }
}

/// Tells the connected agents what to trust, whenever that changes: the authorities, or the break-glass keys.
pub(crate) async fn spread_trust(registry: Arc<Registry>, hooks: Arc<AgentHooks>) {
    let (mut authorities, mut others) = (hooks.auth.trust_changes(), hooks.auth.changes());
    let mut told = String::new();
    loop {
        let goes_on = tokio::select! {
            changed = authorities.changed() => changed,
            changed = others.changed() => changed,
        };
        if !goes_on {
            return;
        }
        match hooks.trust() {
            Ok(trust) if trust == told => {}
            Ok(trust) => {
                registry.trust_now(trust.clone());
                told = trust;
            }
            Err(error) => tracing::error!(error, "the agents cannot be told what to trust"),
        }
    }
}

/// Tells the agents where all hubs are, now and whenever that changes, until the future is dropped.
pub(crate) async fn spread_hubs(registry: Arc<Registry>, auth: Auth) {
    let mut changes = auth.tunnel_changes();
    loop {
        match auth.tunnels().await {
            Ok(addresses) => registry.hubs_now(addresses),
            Err(error) => {
                tracing::error!(%error, "the agents cannot be told where the hubs are; trying on");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        }
        changes.changed().await;
    }
}

/// Accepts agents until the future is dropped.
pub(crate) async fn serve(
    listener: TcpListener,
    acceptor: Acceptor,
    registry: Arc<Registry>,
    hooks: Arc<AgentHooks>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                let (acceptor, registry, hooks) =
                    (acceptor.clone(), Arc::clone(&registry), Arc::clone(&hooks));
                tokio::spawn(async move {
                    let source = source.to_string();
                    serve_connection(stream, &source, &acceptor, registry, hooks).await;
                });
            }
            Err(error) => crate::hub::accept_failed(&error).await,
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    source: &str,
    acceptor: &Acceptor,
    registry: Arc<Registry>,
    hooks: Arc<AgentHooks>,
) {
    let (tls, peer) = match acceptor.accept(stream, source).await {
        Ok(accepted) => accepted,
        Err(error) => return tracing::warn!(%error, "an agent was not let in"),
    };
    let named = peer
        .identity
        .and_then(|identity| Some((identity.node()?, identity)));
    let Some((node, identity)) = named else {
        return tracing::warn!(source, "an agent without a node's name was closed");
    };
    let auth = hooks.auth.clone();
    match peer.protocol {
        Protocol::TunnelControl => {
            let serving = Arc::clone(&registry).serve(node.clone(), tls, hooks);
            tokio::pin!(serving);
            tokio::select! {
                () = &mut serving => {}
                () = auth.until_peer_is_revoked(&identity) => {
                    tracing::warn!(%node, "the agent's certificate was revoked: its connection is closed");
                    registry.disconnect(&node);
                    serving.await;
                }
            }
        }
        Protocol::TunnelSession => registry.deliver(&node, tls).await,
        // The acceptor offers these two only.
        Protocol::Grpc | Protocol::Http | Protocol::Ssh | _ => {}
    }
}
