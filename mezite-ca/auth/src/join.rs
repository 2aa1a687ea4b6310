//! Nodes: a one-time token becomes one, certificates are renewed, agents come and go. Also the hub's own certificates.

use std::net::IpAddr;

use mezite_api::document::NodeKind;
use mezite_api::request;
use mezite_audit::catalogue::NodeJoinFailed;
use mezite_ca::{
    KeyKind, NODE_LIFE, PEER_CEILING, PeerKind, PeerName, TlsRequest, TrustBundle, openssh,
};
use mezite_core::store::{Commit, Expect, StoreError, Versioned};
use mezite_core::{Event, Labels, NodeId, NodeName, Span, UnixTime};
use mezite_rbac::NodeLabels;
use ssh_key::{Certificate, PublicKey};

use crate::auth::Auth;
use crate::bursts::Attempt;
use crate::error::Error;
use crate::live::Stopped;
use crate::random;
use crate::record::{self, NameOwner, Node, Token, prefix};
use crate::tell::TlsFacts;

/// What a node's agent holds. The private keys never were here.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeIdentity {
    /// What certificates name.
    pub id: NodeId,
    /// What people call it.
    pub name: NodeName,
    /// For its SSH server.
    pub host_certificate: Certificate,
    /// For its tunnels: DER, leaf first.
    pub tls_chain: Vec<Vec<u8>>,
    /// When both end.
    pub valid_before: UnixTime,
}

/// Tells that an agent is connected for as long as it lives; end it with [`Auth::node_disconnected`].
#[derive(Debug)]
#[must_use = "the node is online only while this lives"]
pub struct Presence {
    auth: Auth,
    id: NodeId,
    name: NodeName,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut online = self.auth.online();
        if let Some(count) = online.get_mut(&self.id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                online.remove(&self.id);
            }
        }
    }
}

impl Auth {
    /// Takes a node in. The token is used up in the same commit that makes the node; a failure is an event.
    ///
    /// # Errors
    /// [`Error::ClockSkew`], the errors that begin with `Token` and `Name`, [`Error::Issue`], [`Error::Unavailable`].
    pub async fn join(
        &self,
        join: &request::Join,
        source: Option<IpAddr>,
    ) -> Result<NodeIdentity, Error> {
        let mut token_name = None;
        match self.try_join(join, source, &mut token_name).await {
            Err(error) => {
                let why = error.to_string();
                let event = self.tell().event(|stamp| {
                    NodeJoinFailed {
                        server_hostname: Some(join.node_name.as_str()),
                        client_ip: source,
                        method: "token",
                        token_id: token_name.as_deref(),
                        error_message: &why,
                        attempts: 1,
                        claimed_users: None,
                    }
                    .event(stamp)
                });
                self.report_refused(Attempt::Join(source), join.node_name.as_str(), event)
                    .await?;
                Err(error)
            }
            joined => joined,
        }
    }

    async fn try_join(
        &self,
        join: &request::Join,
        source: Option<IpAddr>,
        token_name: &mut Option<String>,
    ) -> Result<NodeIdentity, Error> {
        self.check_clock(join.client_time)?;
        let token_key = record::token_key(join.token.expose())?;
        let found = self
            .store()
            .get(&token_key)
            .await?
            .ok_or(Error::TokenUnknown)?;
        let mut token: Token = record::read(&token_key, &found)?;
        *token_name = Some(token.name.clone());
        self.check_token(&token, join)?;
        self.check_name(&join.node_name).await?;
        let node = Node {
            id: random::node_id(),
            name: join.node_name.clone(),
            kind: NodeKind::Agent,
            labels: NodeLabels {
                operator: Labels::default(),
                token: token.labels.clone(),
                agent: said_by_agent(&join.labels, &[&token.labels]),
            },
            address: None,
            binding: None,
            created_ms: self.now().as_millis(),
        };
        let (identity, issued) =
            self.certify_node(&node, &join.host_public_key, join.tls_public_key)?;
        token.used_by = Some(node.name.clone());
        let name_key = record::key(prefix::NODE_NAME, node.name.as_str())?;
        let owner = NameOwner {
            id: node.id.clone(),
        };
        let commit = with_events(
            Commit::new(self.tell().joined(&node, &token, source)),
            issued,
        )
        .put(
            token_key,
            Expect::Revision(found.revision),
            record::write(&token)?,
        )
        .put(
            record::key(prefix::NODE, node.id.as_str())?,
            Expect::Absent,
            record::write(&node)?,
        )
        .put(name_key.clone(), Expect::Absent, record::write(&owner)?);
        match self.commit(commit).await {
            Ok(_) => Ok(identity),
            // Somebody was faster, with the same name or the same token.
            Err(StoreError::Conflict(key)) if key == name_key => Err(Error::NameTaken(node.name)),
            Err(StoreError::Conflict(_)) => Err(Error::TokenUsed),
            Err(error) => Err(error.into()),
        }
    }

    fn check_token(&self, token: &Token, join: &request::Join) -> Result<(), Error> {
        if token.used_by.is_some() {
            return Err(Error::TokenUsed);
        }
        if self.now() >= token.expires() {
            return Err(Error::TokenExpired(token.expires()));
        }
        match &token.node_name {
            Some(only) if *only != join.node_name => Err(Error::TokenName(join.node_name.clone())),
            _ => Ok(()),
        }
    }

    /// Whether a new node may be called so: not like the hub, not like another node.
    pub(crate) async fn check_name(&self, name: &NodeName) -> Result<(), Error> {
        let settings = self.settings();
        let whole = format!("{name}.{}", settings.cluster);
        let of_hub = |own: &String| *own == whole || own.as_str() == name.as_str();
        if settings.hub == name.as_str() || settings.gateway_names.iter().any(of_hub) {
            return Err(Error::NameOfHub(name.clone()));
        }
        let key = record::key(prefix::NODE_NAME, name.as_str())?;
        match self.store().get(&key).await? {
            Some(_) => Err(Error::NameTaken(name.clone())),
            None => Ok(()),
        }
    }

    /// Certificates for the node's next day. The agent's labels are replaced by what it says now.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a node that was removed, [`Error::Locked`], [`Error::ClockSkew`], [`Error::Issue`],
    /// [`Error::Unavailable`].
    pub async fn renew_node(
        &self,
        id: &NodeId,
        renew: &request::RenewNode,
    ) -> Result<NodeIdentity, Error> {
        self.check_clock(renew.client_time)?;
        let (stored, mut node) = self.stored_node(id).await?;
        self.check_node_lock(&node)?;
        node.labels.agent =
            said_by_agent(&renew.labels, &[&node.labels.operator, &node.labels.token]);
        let (identity, issued) =
            self.certify_node(&node, &renew.host_public_key, renew.tls_public_key)?;
        let [first, second] = issued;
        let commit = Commit::new(first).and_event(second).put(
            record::key(prefix::NODE, id.as_str())?,
            Expect::Revision(stored.revision),
            record::write(&node)?,
        );
        self.commit(commit).await?;
        Ok(identity)
    }

    pub(crate) fn check_node_lock(&self, node: &Node) -> Result<(), Error> {
        let stopped = Stopped {
            node: Some(&node.name),
            ..Stopped::default()
        };
        match self.snapshot().lock_on(&stopped, self.now()) {
            Some(locked) => Err(locked),
            None => Ok(()),
        }
    }

    pub(crate) async fn stored_node(&self, id: &NodeId) -> Result<(Versioned, Node), Error> {
        let key = record::key(prefix::NODE, id.as_str())?;
        let stored = self.store().get(&key).await?;
        let stored = stored.ok_or_else(|| Error::not_found("node", id.as_str()))?;
        let node = record::read(&key, &stored)?;
        Ok((stored, node))
    }

    /// Signs both of a node's keys; the events are to be committed before the result is given away.
    fn certify_node(
        &self,
        node: &Node,
        host_key: &PublicKey,
        tls_key: [u8; 32],
    ) -> Result<(NodeIdentity, [Event; 2]), Error> {
        let (now, keys) = (self.now(), self.keys());
        // Both certificates have one serial number, so that revoking it ends both.
        let serial = random::serial();
        let host_certificate = keys.node.issue(
            &node.id,
            self.cluster(),
            host_key,
            serial,
            now,
            &mut random::rng(),
        )?;
        self.check_issued(&host_certificate, KeyKind::Node)?;
        self.check_key(&openssh::public_key(tls_key))?;
        let peer = self.peer(PeerKind::Node, node.id.as_str());
        let request = TlsRequest {
            peer: &peer,
            public_key: tls_key,
            dns_names: &[],
            addresses: &[],
            life: NODE_LIFE,
            twin: Some(host_key),
        };
        let leaf = keys.host_tls.issue(&request, serial, now)?;
        let valid_before = UnixTime::from_secs(host_certificate.valid_before());
        let facts = TlsFacts {
            serial,
            uri: &peer.to_string(),
            public_key: &openssh::public_key(tls_key),
            issued: now,
            valid_before,
        };
        let whom = Some((&node.id, &node.name));
        let events = [
            self.tell().host_issued(whom, &host_certificate),
            self.tell().host_tls_issued(whom, &facts),
        ];
        let identity = NodeIdentity {
            id: node.id.clone(),
            name: node.name.clone(),
            host_certificate,
            tls_chain: vec![leaf.to_vec(), keys.host_tls.certificate().to_vec()],
            valid_before,
        };
        Ok((identity, events))
    }

    fn peer(&self, kind: PeerKind, name: &str) -> PeerName {
        PeerName {
            cluster: self.cluster().clone(),
            kind,
            name: name.to_owned(),
        }
    }

    /// The hub's own TLS certificate for its configured names, and when it ends: DER, leaf first.
    ///
    /// # Errors
    /// [`Error::Issue`], [`Error::Unavailable`].
    pub async fn hub_tls(&self, public_key: [u8; 32]) -> Result<(Vec<Vec<u8>>, UnixTime), Error> {
        let (now, keys) = (self.now(), self.keys());
        let (dns_names, addresses) = self.names();
        let peer = self.peer(PeerKind::Hub, &self.settings().hub);
        let request = TlsRequest {
            peer: &peer,
            public_key,
            dns_names: &dns_names,
            addresses: &addresses,
            life: PEER_CEILING,
            twin: None,
        };
        let serial = random::serial();
        let leaf = keys.host_tls.issue(&request, serial, now)?;
        let valid_before = now.plus(PEER_CEILING);
        let facts = TlsFacts {
            serial,
            uri: &peer.to_string(),
            public_key: &openssh::public_key(public_key),
            issued: now,
            valid_before,
        };
        self.commit(Commit::new(self.tell().host_tls_issued(None, &facts)))
            .await?;
        Ok((
            vec![leaf.to_vec(), keys.host_tls.certificate().to_vec()],
            valid_before,
        ))
    }

    /// A host certificate, good for 1 h, with which the gateway speaks under `names`. The caller has found that the
    /// client may know these names.
    ///
    /// # Errors
    /// [`Error::Issue`], [`Error::Unavailable`].
    pub async fn gateway_certificate(
        &self,
        names: &[String],
        public_key: &PublicKey,
    ) -> Result<Certificate, Error> {
        let certificate = self.keys().gateway.issue(
            names,
            public_key,
            random::serial(),
            self.now(),
            &mut random::rng(),
        )?;
        self.check_issued(&certificate, KeyKind::Gateway)?;
        self.commit(Commit::new(self.tell().host_issued(None, &certificate)))
            .await?;
        Ok(certificate)
    }

    /// Signs the host key of a node with a stock sshd. The event is durable first.
    pub(crate) async fn certify_host(
        &self,
        node: &Node,
        public_key: &PublicKey,
        life: Span,
    ) -> Result<Certificate, Error> {
        let certificate = self.keys().node.issue_for(
            &node.id,
            self.cluster(),
            public_key,
            life,
            random::serial(),
            self.now(),
            &mut random::rng(),
        )?;
        self.check_issued(&certificate, KeyKind::Node)?;
        let event = self
            .tell()
            .host_issued(Some((&node.id, &node.name)), &certificate);
        self.commit(Commit::new(event)).await?;
        Ok(certificate)
    }

    /// What a user has to trust: gateways and the hub's TLS.
    #[must_use]
    pub fn trust_for_users(&self) -> TrustBundle {
        let all = self.trust();
        TrustBundle {
            gateway: all.gateway.clone(),
            host_tls: all.host_tls.clone(),
            generations: all.notes_on(&[KeyKind::Gateway, KeyKind::HostTls]),
            ..TrustBundle::empty(all.cluster.clone())
        }
    }

    /// What a node has to trust: session certificates, break-glass keys, and the hub's TLS. The notes tell it also when the
    /// keys that signed its own certificates are on their way out.
    #[must_use]
    pub fn trust_for_nodes(&self) -> TrustBundle {
        let all = self.trust();
        TrustBundle {
            break_glass: self.snapshot().break_glass().to_vec(),
            session: all.session.clone(),
            host_tls: all.host_tls.clone(),
            generations: all.notes_on(&[KeyKind::HostTls, KeyKind::Node, KeyKind::Session]),
            ..TrustBundle::empty(all.cluster.clone())
        }
    }

    /// An agent opened its control connection: it is online until the answer is dropped.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a node that was removed, [`Error::Locked`], [`Error::Unavailable`].
    pub async fn node_connected(
        &self,
        id: &NodeId,
        source: Option<IpAddr>,
        agent_version: Option<&str>,
    ) -> Result<Presence, Error> {
        let (_, node) = self.stored_node(id).await?;
        self.check_node_lock(&node)?;
        let event = self.tell().node_connected(&node, source, agent_version);
        self.commit(Commit::new(event)).await?;
        *self.online().entry(id.clone()).or_default() += 1;
        Ok(Presence {
            auth: self.clone(),
            id: node.id,
            name: node.name,
        })
    }

    /// An agent's control connection ended.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; the node counts as offline in any case.
    pub async fn node_disconnected(&self, presence: Presence, reason: &str) -> Result<(), Error> {
        let event = self
            .tell()
            .node_left(None, &presence.id, &presence.name, reason);
        drop(presence);
        self.commit(Commit::new(event)).await?;
        Ok(())
    }

    /// Whether an agent of the node is connected to this hub.
    #[must_use]
    pub fn is_online(&self, id: &NodeId) -> bool {
        self.online().contains_key(id)
    }
}

/// What the agent says, without the keys that a stronger source has set (attack row 37).
fn said_by_agent(labels: &Labels, stronger: &[&Labels]) -> Labels {
    let own = labels
        .iter()
        .filter(|(key, _)| stronger.iter().all(|labels| labels.get(key).is_none()))
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    // A part of valid labels is valid.
    Labels::new(own.collect()).unwrap_or_default()
}

fn with_events(commit: Commit, events: impl IntoIterator<Item = Event>) -> Commit {
    events.into_iter().fold(commit, Commit::and_event)
}
