//! The gateway's [`Authority`] when the auth service runs in the same process.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use mezite_audit::catalogue::{AuthAttemptFailed, AuthzDenied, Json, SessionEnd};
use mezite_auth::{Attempt, Auth, RunningGuard, Standing};
use mezite_ca::verify::{self, Revocable, VerifiedIdentity, VerifyError};
use mezite_ca::{SoftwareKey, TrustBundle, openssh};
use mezite_core::{
    Clock, ClusterName, EventId, Login, NodeName, RoleName, SessionId, UnixTime, UserName,
};
use mezite_net::ssh::ServerIdentity;
use mezite_proxy::authority::{
    Authority, FailedAttempt, Grant, Make, Node, Reach, Refusal, Unavailable,
};
use mezite_rbac::{Obligations, Permit};
use ssh_key::{Certificate, PrivateKey, PublicKey};
use tokio::sync::watch;

use crate::endings::{Begun, Endings};

/// [`Auth`] behind the gateway's seam.
#[derive(Debug)]
pub(crate) struct InProcess {
    auth: Auth,
    endings: Arc<Endings>,
    clock: Arc<dyn Clock>,
    changes: watch::Receiver<u64>,
}

impl InProcess {
    pub(crate) fn new(auth: Auth, endings: Arc<Endings>, clock: Arc<dyn Clock>) -> Self {
        let (changed, changes) = watch::channel(0);
        let mut source = auth.changes();
        tokio::spawn(async move {
            while source.changed().await {
                changed.send_modify(|count| *count += 1);
            }
        });
        Self {
            auth,
            endings,
            clock,
            changes,
        }
    }

    /// Makes a failed attempt an event; none when it cannot be recorded, and then the attempt fails all the same.
    async fn attempted(&self, attempt: FailedAttempt<'_>) -> Option<EventId> {
        let fingerprint = attempt.certificate.map(fingerprint);
        let encoded = attempt
            .certificate
            .map(|blob| data_encoding::BASE64.encode(blob));
        let event = self.auth.event(|stamp| {
            AuthAttemptFailed {
                user_name: Some(attempt.claimed_user),
                login: None,
                server_hostname: None,
                client_ip: Some(attempt.source),
                client_version: None,
                method: "publickey",
                error_message: attempt.error,
                serial: None,
                certificate_fingerprint: fingerprint.as_deref(),
                certificate: encoded.as_deref(),
                attempts: 1,
                claimed_users: None,
            }
            .event(stamp)
        });
        let who = Attempt::Gateway(Some(attempt.source));
        let reported = self.auth.report_refused(who, attempt.claimed_user, event);
        match reported.await {
            Ok(event) => event,
            Err(error) => {
                tracing::error!(%error, "a failed attempt could not be recorded");
                None
            }
        }
    }
}

fn unavailable(error: impl std::fmt::Display) -> Unavailable {
    Unavailable(error.to_string())
}

#[async_trait]
impl Authority for InProcess {
    fn cluster(&self) -> &ClusterName {
        self.auth.cluster()
    }

    fn now(&self) -> UnixTime {
        self.clock.now()
    }

    fn trust(&self) -> Arc<TrustBundle> {
        self.auth.trust()
    }

    fn hub_names(&self) -> Vec<String> {
        self.auth.settings().gateway_names.clone()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    fn verify(&self, certificate: &[u8], source: IpAddr) -> Result<VerifiedIdentity, VerifyError> {
        let context = verify::Context {
            trust: &self.auth.trust(),
            now: self.now(),
            source: Some(source),
            revoked: &|certificate| self.is_revoked(certificate),
        };
        verify::identity(certificate, &context)
    }

    fn is_revoked(&self, certificate: &Revocable<'_>) -> bool {
        self.auth.is_revoked(certificate)
    }

    async fn admit(&self, identity: &VerifiedIdentity, source: IpAddr) -> Result<(), Refusal> {
        let Err(error) = self.auth.subject(identity) else {
            return Ok(());
        };
        let words = error.to_string();
        let attempt = FailedAttempt {
            claimed_user: identity.user().as_str(),
            source,
            error: &words,
            certificate: None,
        };
        let message = match self.attempted(attempt).await {
            Some(event) => mezite_auth::Refusal::told(&words, event),
            None => words,
        };
        Err(Refusal { message })
    }

    async fn report_attempt(&self, attempt: FailedAttempt<'_>) {
        let _ = self.attempted(attempt).await;
    }

    async fn gateway_identity(&self, names: &[String]) -> Result<ServerIdentity, Unavailable> {
        let key = SoftwareKey::generate(&mut mezite_net::random::rng());
        let text = openssh::private_key(key.seed(), "").map_err(unavailable)?;
        let key = PrivateKey::from_openssh(text.expose()).map_err(unavailable)?;
        let certificate = self
            .auth
            .gateway_certificate(names, key.public_key())
            .await
            .map_err(unavailable)?;
        Ok(ServerIdentity { key, certificate })
    }

    async fn find_node(
        &self,
        user: &UserName,
        name: &NodeName,
        source: IpAddr,
    ) -> Result<Node, Refusal> {
        let snapshot = self.auth.snapshot();
        let subject = snapshot.subject(user);
        let found = subject.and_then(|subject| self.auth.find_node(subject, name).ok());
        if let Some(node) = found {
            return Ok(node_of(&node));
        }
        // The user hears the same in each case; the log keeps which it was.
        let hidden = snapshot.node_named(name).map(|node| &node.id);
        let roles = subject.map_or(&[][..], |subject| &subject.roles);
        let why = match (subject, hidden) {
            (None, _) => String::from("there is no such user any more"),
            (_, None) => String::from("there is no such node"),
            (_, Some(_)) => format!(
                "no role of the user reaches this node: {}; `mezctl can {user} LOGIN@{name}` shows what each of them wants",
                listed(roles)
            ),
        };
        let event = self.auth.event(|stamp| {
            AuthzDenied {
                user_name: user.as_str(),
                user_roles: roles,
                action: "session",
                resource_type: Some("node"),
                resource_name: Some(name.as_str()),
                session_id: None,
                server_id: hidden,
                server_hostname: Some(name.as_str()),
                login: None,
                client_ip: Some(source),
                serial: None,
                error_message: &why,
                explanation: Json::of(&serde_json::json!({ "why": why })),
                attempts: 1,
            }
            .event(stamp)
        });
        let who = Attempt::User(user.to_string());
        let message = match self.auth.report_refused(who, user.as_str(), event).await {
            Ok(id) => {
                let words = format!(
                    "there is no node `{name}` that you may see, `msh ls` lists those you may"
                );
                match id {
                    Some(id) => mezite_auth::Refusal::told(&words, id),
                    None => words,
                }
            }
            Err(error) => unavailable(error).to_string(),
        };
        Err(Refusal { message })
    }

    async fn authorize(
        &self,
        identity: &VerifiedIdentity,
        node: &Node,
        login: &Login,
        source: IpAddr,
        session: SessionId,
    ) -> Result<Box<dyn Grant>, Refusal> {
        let name = &node.facts.name;
        match self
            .auth
            .authorize(identity, name, login, Some(source), session)
            .await
        {
            Ok(permit) => {
                let running = self.auth.track(&permit);
                let begun = self.endings.begin(session).map_err(|error| Refusal {
                    message: format!("the session cannot be kept in mind: {error}"),
                })?;
                Ok(Box::new(Granted {
                    auth: self.auth.clone(),
                    permit,
                    _running: running,
                    _begun: begun,
                }))
            }
            Err(refusal) => Err(Refusal {
                message: refusal.to_string(),
            }),
        }
    }

    async fn report(&self, make: Make<'_>) -> Result<(), Unavailable> {
        let mut ended = None;
        let reported = self.auth.report(|stamp| {
            let event = make(stamp);
            if event.event_type == SessionEnd::TYPE {
                ended = event.text("session_id").and_then(|id| id.parse().ok());
            }
            event
        });
        reported.await.map_err(unavailable)?;
        if let Some(id) = ended {
            self.endings.ended(id);
        }
        Ok(())
    }
}

/// Roles as an explanation names them.
fn listed(roles: &[RoleName]) -> String {
    if roles.is_empty() {
        return String::from("there are none");
    }
    let names: Vec<_> = roles.iter().map(|role| format!("`{role}`")).collect();
    names.join(", ")
}

/// The node as the gateway reaches it.
pub(crate) fn node_of(node: &mezite_auth::Node) -> Node {
    let reach = node.address.clone().map_or(Reach::Tunnel, Reach::Direct);
    Node {
        facts: node.target(),
        reach,
    }
}

/// OpenSSH's way to name a key or certificate by its digest.
fn fingerprint(blob: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    format!(
        "SHA256:{}",
        data_encoding::BASE64_NOPAD.encode(&Sha256::digest(blob))
    )
}

/// A permit with the session it is for.
#[derive(Debug)]
struct Granted {
    auth: Auth,
    permit: mezite_auth::Permit,
    /// Keeps the session on the list.
    _running: RunningGuard,
    /// Its end is owed.
    _begun: Begun,
}

#[async_trait]
impl Grant for Granted {
    fn permit(&self) -> &Permit {
        self.permit.decision()
    }

    fn deadline(&self) -> UnixTime {
        self.permit.deadline()
    }

    async fn issue_session(&self, key: &PublicKey) -> Result<Certificate, Unavailable> {
        self.auth
            .issue_session(&self.permit, key)
            .await
            .map_err(unavailable)
    }

    async fn accepted(&self, certificate: &Certificate) {
        if let Err(error) = self.auth.node_accepted(&self.permit, certificate).await {
            tracing::error!(%error, "which key a node trusts could not be recorded");
        }
    }

    fn watchers(&self) -> watch::Receiver<BTreeSet<String>> {
        self.auth.watchers(self.permit.session_id())
    }

    fn recheck(&self) -> Result<Obligations, String> {
        match self.auth.recheck(&self.permit) {
            Standing::Allowed(permit) => Ok(permit.obligations().clone()),
            Standing::Ended(words) => Err(words),
        }
    }
}
