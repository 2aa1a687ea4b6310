//! What the gateway asks of the auth service, whether it runs in this process or far away.
//!
//! Everything that decides or reports is durable before it returns; see the contract of each method.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use mezite_audit::Stamp;
use mezite_ca::TrustBundle;
use mezite_ca::verify::{Revocable, VerifiedIdentity, VerifyError};
use mezite_core::{ClusterName, Event, Login, NodeName, SessionId, UnixTime, UserName};
use mezite_net::ssh::ServerIdentity;
use mezite_rbac::{Obligations, Permit};
use ssh_key::{Certificate, PublicKey};
use thiserror::Error;
use tokio::sync::watch;

/// A node as the gateway needs it.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "the composition root builds it")]
pub struct Node {
    /// Who it is, to the policy engine.
    pub facts: mezite_rbac::Node,
    /// How to reach it.
    pub reach: Reach,
}

/// How a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a new way needs a dialer")]
pub enum Reach {
    /// Its agent dials back.
    Tunnel,
    /// A stock sshd at `host:port`.
    Direct(String),
}

/// Why the auth service said no, in words for the user.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
#[expect(clippy::exhaustive_structs, reason = "the composition root builds it")]
pub struct Refusal {
    /// For the user: what, the event's id where there is one, and what to do.
    pub message: String,
}

/// The auth service cannot do it now; nothing was handed out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the auth service is unavailable: {0}")]
pub struct Unavailable(pub String);

/// A failed attempt to come in.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "the gateway builds it")]
pub struct FailedAttempt<'a> {
    /// Who the client says it is.
    pub claimed_user: &'a str,
    /// Where from.
    pub source: IpAddr,
    /// What was wrong.
    pub error: &'a str,
    /// The certificate, if one was shown.
    pub certificate: Option<&'a [u8]>,
}

/// Builds an event when its time, randomness and cluster are known.
pub type Make<'a> = &'a (dyn Fn(&Stamp<'_>) -> Event + Send + Sync);

/// The auth service, as the gateway sees it.
#[async_trait]
pub trait Authority: Send + Sync + std::fmt::Debug {
    /// The cluster's name.
    fn cluster(&self) -> &ClusterName;

    /// The hub's wall clock.
    fn now(&self) -> UnixTime;

    /// What is trusted now.
    fn trust(&self) -> Arc<TrustBundle>;

    /// The names that the hub itself answers to.
    fn hub_names(&self) -> Vec<String>;

    /// Changes whenever a decision could come out differently; see [`Grant::recheck`].
    fn changes(&self) -> watch::Receiver<u64>;

    /// Verifies an identity certificate (blob) that came from `source`.
    ///
    /// # Errors
    /// What is wrong with it.
    fn verify(&self, certificate: &[u8], source: IpAddr) -> Result<VerifiedIdentity, VerifyError>;

    /// Whether a certificate that was good is revoked now.
    fn is_revoked(&self, certificate: &Revocable<'_>) -> bool;

    /// Whether this identity may come in at all: its user exists and is not locked.
    async fn admit(&self, identity: &VerifiedIdentity, source: IpAddr) -> Result<(), Refusal>;

    /// Reports a failed attempt.
    async fn report_attempt(&self, attempt: FailedAttempt<'_>);

    /// A fresh host certificate for `names`, with its key.
    async fn gateway_identity(&self, names: &[String]) -> Result<ServerIdentity, Unavailable>;

    /// The node called `name`, if this user, who comes from `source`, may see it. Hidden and absent get the same
    /// answer, which is a durable event when this returns.
    async fn find_node(
        &self,
        user: &UserName,
        name: &NodeName,
        source: IpAddr,
    ) -> Result<Node, Refusal>;

    /// Decides. The decision is a durable event when this returns.
    async fn authorize(
        &self,
        identity: &VerifiedIdentity,
        node: &Node,
        login: &Login,
        source: IpAddr,
        session: SessionId,
    ) -> Result<Box<dyn Grant>, Refusal>;

    /// Makes an event durable, which `make` builds from what every event is stamped with.
    async fn report(&self, make: Make<'_>) -> Result<(), Unavailable>;
}

/// One session that may be: the permit, as the auth service holds it. Only [`Authority::authorize`] gives one, so
/// there is no session certificate without a decision.
#[async_trait]
pub trait Grant: Send + Sync + std::fmt::Debug {
    /// The policy's yes, with its obligations.
    fn permit(&self) -> &Permit;

    /// When the session ends at the latest.
    fn deadline(&self) -> UnixTime;

    /// A session certificate over `key`. Its event is durable when this returns.
    async fn issue_session(&self, key: &PublicKey) -> Result<Certificate, Unavailable>;

    /// The node has let us in with `certificate`, so it trusts the key that signed it.
    async fn accepted(&self, certificate: &Certificate);

    /// Who watches the session, each time that others do. Asked for where the user is told.
    fn watchers(&self) -> watch::Receiver<BTreeSet<String>>;

    /// Decides again, for a running session: what binds it now.
    ///
    /// # Errors
    /// The words for the user when the session may not go on.
    fn recheck(&self) -> Result<Obligations, String>;
}
