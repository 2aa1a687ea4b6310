//! From a verified identity to one session on one node: the decision, the certificate, and the decision again while
//! the session runs.

use std::net::IpAddr;

use mezite_api::document;
use mezite_api::error::Kind;
use mezite_ca::verify::VerifiedIdentity;
use mezite_ca::{Binding, KeyKind, Permissions, SessionRequest};
use mezite_core::store::Commit;
use mezite_core::{Event, EventId, Login, NodeName, SessionId, UnixTime, UserName};
use mezite_rbac::{Decision, Obligations, Request, Subject, authorize, explain, logins, sees};
use serde_json::{Value, json};
use ssh_key::{Certificate, PublicKey};

use crate::auth::Auth;
use crate::bursts::Attempt;
use crate::error::Error;
use crate::live::{Snapshot, Stopped};
use crate::random;
use crate::record::Node;
use crate::tell::Refused;

/// One session that may be: the policy's yes, and for how long. Only [`Auth::authorize`] makes one.
#[derive(Clone, Debug)]
#[must_use]
pub struct Permit {
    decision: mezite_rbac::Permit,
    node: Node,
    session_id: SessionId,
    source: Option<IpAddr>,
    deadline: UnixTime,
    identity: VerifiedIdentity,
}

impl Permit {
    /// The policy's own permit, which a dialer takes.
    pub fn decision(&self) -> &mezite_rbac::Permit {
        &self.decision
    }

    /// The node as it was found.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The conditions.
    #[must_use]
    pub fn obligations(&self) -> &Obligations {
        self.decision.obligations()
    }

    /// The session it is for.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// Where the client is.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Whether the user may have so many sessions and no more. Such a session is in the list already; whoever does not begin
    /// it calls [`Auth::track`] and drops the guard.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.obligations().max_sessions.is_some()
    }

    /// When the session ends at the latest: with the identity, or after the role's `max_session_ttl`.
    #[must_use]
    pub fn deadline(&self) -> UnixTime {
        self.deadline
    }
}

/// A no. Its event is durable, unless the kind is [`Kind::Unavailable`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// For `mezctl explain`; `None` when the hub could not record anything.
    pub event_id: Option<EventId>,
    /// What the user may know.
    pub message: String,
    /// The row of the error table.
    pub kind: Kind,
}

impl Refusal {
    /// What a user who was refused is told: `message`, and whom to ask. The event tells more, but not to the user.
    #[must_use]
    pub fn told(message: &str, event_id: EventId) -> String {
        format!("{message}; ask an administrator, who sees why with `mezctl explain {event_id}`")
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.event_id {
            Some(id) => f.write_str(&Self::told(&self.message, id)),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self {
            event_id: None,
            message: error.to_string(),
            kind: error.kind(),
        }
    }
}

/// Whether a running session may go on.
#[derive(Clone, Debug)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "there is no third answer")]
pub enum Standing {
    /// Yes, under these conditions, which may have become stricter.
    Allowed(Box<mezite_rbac::Permit>),
    /// No: end it and tell its user why.
    Ended(String),
}

/// A session that runs, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Running {
    /// The session.
    pub session_id: SessionId,
    /// The hub that it goes through.
    pub hub: String,
    /// Whose.
    pub user: UserName,
    /// Where.
    pub node: NodeName,
    /// As which account.
    pub login: Login,
    /// Since when.
    pub started: UnixTime,
    /// From where.
    pub source: Option<IpAddr>,
}

/// Keeps a session in the list for as long as it lives.
#[derive(Debug)]
#[must_use = "the session is in the list only while this lives"]
pub struct RunningGuard {
    auth: Auth,
    session_id: SessionId,
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.auth.running().remove(&self.session_id);
        self.auth.standpoint().sessions_changed();
    }
}

/// Who wants to go where, for one decision.
pub(crate) struct Wish<'a> {
    pub(crate) user: &'a UserName,
    pub(crate) node: &'a NodeName,
    pub(crate) login: &'a Login,
    pub(crate) source: Option<IpAddr>,
    pub(crate) session_id: SessionId,
}

/// Why not: what the user hears, what the log keeps.
pub(crate) struct No {
    message: String,
    pub(crate) why: String,
    explanation: Value,
    /// The node is not there for the user: nothing more is said about it.
    hidden: bool,
}

impl No {
    fn plain(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            explanation: json!({ "why": message }),
            why: message.clone(),
            message,
            hidden: false,
        }
    }
}

impl Auth {
    /// Whether the holder of `identity` may open the session `session_id` on a node as a login, decided by the rules
    /// and locks of this moment. The answer is an event, durable before it is returned.
    ///
    /// A node that the subject may not see is answered like one that does not exist.
    ///
    /// # Errors
    /// [`Refusal`]: the rules say no, or nothing could be recorded.
    pub async fn authorize(
        &self,
        identity: &VerifiedIdentity,
        node: &NodeName,
        login: &Login,
        source: Option<IpAddr>,
        session_id: SessionId,
    ) -> Result<Permit, Refusal> {
        let wish = Wish {
            user: identity.user(),
            node,
            login,
            source,
            session_id,
        };
        let snapshot = self.snapshot();
        let mut decided = self.decide(&snapshot, identity, &wish, None);
        if decided.as_ref().is_ok_and(Permit::is_counted) {
            decided = self.grant_counted(identity, &wish).await?;
        } else if let Ok(permit) = &decided {
            let event = self.granted(&snapshot, permit, identity, &wish);
            self.commit(Commit::new(event)).await.map_err(Error::from)?;
        }
        let no = match decided {
            Ok(permit) => return Ok(permit),
            Err(no) => no,
        };
        let event = self.denied(&snapshot, identity, &wish, &no);
        let who = Attempt::User(identity.user().to_string());
        let event_id = self
            .report_refused(who, identity.user().as_str(), event)
            .await?;
        let message = if no.hidden {
            no.message
        } else {
            format!("you may not log in to {node} as {login}: {}", no.message)
        };
        Err(Refusal {
            event_id,
            message,
            kind: Kind::Denied,
        })
    }

    pub(crate) fn granted(
        &self,
        snapshot: &Snapshot,
        permit: &Permit,
        identity: &VerifiedIdentity,
        wish: &Wish<'_>,
    ) -> Event {
        let asked = Request {
            subject: permit.decision.subject(),
            node: permit.decision.node(),
            login: wish.login,
            source: wish.source,
        };
        self.tell().granted(
            &permit.decision,
            wish.session_id,
            wish.source,
            identity,
            &explain(snapshot.policy(), &asked).decided_by(),
        )
    }

    fn denied(
        &self,
        snapshot: &Snapshot,
        identity: &VerifiedIdentity,
        wish: &Wish<'_>,
        no: &No,
    ) -> Event {
        let user = wish.user;
        let refused = Refused {
            user,
            roles: snapshot.subject(user).map_or(&[], |subject| &subject.roles),
            serial: identity.serial(),
            session_id: wish.session_id,
            node: snapshot.node_named(wish.node).map(|node| &node.id),
            node_name: wish.node,
            login: wish.login,
            source: wish.source,
        };
        self.tell().denied(&refused, &no.why, &no.explanation)
    }

    /// Decides again about a session that runs: by the rules and locks of now, and by its deadline.
    pub fn recheck(&self, permit: &Permit) -> Standing {
        let target = permit.decision.node();
        let wish = Wish {
            user: permit.identity.user(),
            node: &target.name,
            login: permit.decision.login(),
            source: permit.source,
            session_id: permit.session_id,
        };
        if self.now() >= permit.deadline {
            return Standing::Ended("the session's time is over".to_owned());
        }
        match self.decide(&self.snapshot(), &permit.identity, &wish, Some(permit)) {
            Ok(again) => Standing::Allowed(Box::new(again.decision)),
            Err(no) => Standing::Ended(no.message),
        }
    }

    /// The decision, without telling anybody. `running` is the permit that is decided again.
    pub(crate) fn decide(
        &self,
        snapshot: &Snapshot,
        identity: &VerifiedIdentity,
        wish: &Wish<'_>,
        running: Option<&Permit>,
    ) -> Result<Permit, No> {
        let now = self.now();
        if self.is_full() && (running.is_none() || self.settings().full_ends_sessions) {
            return Err(No::plain(Error::Full.to_string()));
        }
        if self.is_stale() {
            return Err(No::plain(
                Error::Stale(self.settings().lock_staleness).to_string(),
            ));
        }
        let ends = identity.valid_before();
        if now >= ends {
            return Err(No::plain(Error::Expired(ends).to_string()));
        }
        if snapshot.revoked().revokes(&identity.revocable()) {
            let revoked = Error::Revoked(identity.serial());
            return Err(No::plain(revoked.to_string()));
        }
        let (decision, node) = self.weigh(snapshot, wish, running)?;
        let whole = decision.obligations().max_session_ttl;
        let deadline = match running {
            Some(permit) => permit.deadline,
            None => whole.map_or(ends, |ttl| ends.min(now.plus(ttl))),
        };
        Ok(Permit {
            decision,
            node: node.clone(),
            session_id: wish.session_id,
            source: wish.source,
            deadline,
            identity: identity.clone(),
        })
    }

    /// The decision but for the certificate that proves who asks: by users, nodes, locks and roles.
    pub(crate) fn weigh<'s>(
        &self,
        snapshot: &'s Snapshot,
        wish: &Wish<'_>,
        running: Option<&Permit>,
    ) -> Result<(mezite_rbac::Permit, &'s Node), No> {
        let subject = snapshot
            .subject(wish.user)
            .ok_or_else(|| No::plain(Error::Gone.to_string()))?;
        let node = seen(snapshot, subject, wish.node)
            .filter(|node| running.is_none_or(|permit| permit.node.id == node.id))
            .ok_or_else(|| hidden(snapshot, subject, wish))?;
        let stopped = Stopped {
            subject: Some(subject),
            node: Some(&node.name),
            login: Some(wish.login),
            session: Some(wish.session_id),
        };
        if let Some(locked) = snapshot.lock_on(&stopped, self.now()) {
            return Err(No::plain(locked.to_string()));
        }
        let target = node.target();
        let request = Request {
            subject,
            node: &target,
            login: wish.login,
            source: wish.source,
        };
        let decision = match authorize(snapshot.policy(), &request) {
            Decision::Allow(decision) => decision,
            Decision::Deny(denial) => {
                return Err(No {
                    message: denial.to_string(),
                    why: denial.reason().as_str().to_owned(),
                    explanation: json!(denial.explanation()),
                    hidden: false,
                });
            }
        };
        self.check_obligations(decision.obligations(), wish, running)?;
        Ok((decision, node))
    }

    /// The conditions that are met here, or not at all.
    fn check_obligations(
        &self,
        obligations: &Obligations,
        wish: &Wish<'_>,
        running: Option<&Permit>,
    ) -> Result<(), No> {
        if let Some(factor) = obligations.require_session_mfa.iter().next() {
            return Err(No::plain(format!(
                "your roles demand the second factor `{factor}` for each session, which this hub cannot check"
            )));
        }
        let others = self
            .running()
            .values()
            .filter(|other| other.user == *wish.user && other.session_id != wish.session_id)
            .count()
            .saturating_add(self.sessions_elsewhere(wish.user));
        let most = obligations
            .max_sessions
            .and_then(|most| usize::try_from(most).ok());
        match most {
            Some(most) if running.is_none() && others >= most => Err(No::plain(format!(
                "you have {others} sessions open and your roles allow {most}: end one first"
            ))),
            _ => Ok(()),
        }
    }

    /// Certifies the key that the hub made for the session of `permit`. The event is durable first.
    ///
    /// # Errors
    /// [`Error::Issue`], [`Error::Unavailable`]; then there is no certificate.
    pub async fn issue_session(
        &self,
        permit: &Permit,
        public_key: &PublicKey,
    ) -> Result<Certificate, Error> {
        let decision = &permit.decision;
        let obligations = decision.obligations();
        let user = &decision.subject().user;
        let binding = match permit.node.binding {
            Some(document::Binding::Login) => Binding::Login,
            _ => Binding::Node,
        };
        let request = SessionRequest {
            session_id: permit.session_id,
            user,
            node_id: &decision.node().id,
            login: decision.login(),
            public_key,
            permissions: Permissions {
                pty: true,
                port_forwarding: obligations.forwards(),
                agent_forwarding: obligations.agent_forwarding,
                x11_forwarding: obligations.x11_forwarding,
            },
            obligations: &[(
                "file-copy",
                if obligations.file_copy {
                    "true"
                } else {
                    "false"
                },
            )],
            // Only a stock sshd sees the hub's address; an agent sees its own tunnel.
            source_addresses: match permit.node.address {
                Some(_) => &self.settings().egress,
                None => &[],
            },
        };
        let certificate = self.keys().session.issue_bound(
            &request,
            binding,
            random::serial(),
            self.now(),
            &mut random::rng(),
        )?;
        self.check_issued(&certificate, KeyKind::Session)?;
        let event = self
            .tell()
            .session_issued(decision, permit.session_id, &certificate);
        self.commit(Commit::new(event)).await?;
        Ok(certificate)
    }

    /// Puts a session into the list of running ones until the guard is dropped.
    pub fn track(&self, permit: &Permit) -> RunningGuard {
        self.count_in(permit);
        self.standpoint().sessions_changed();
        RunningGuard {
            auth: self.clone(),
            session_id: permit.session_id,
        }
    }

    /// Puts a session into the list of running ones.
    pub(crate) fn count_in(&self, permit: &Permit) {
        let decision = &permit.decision;
        let running = Running {
            session_id: permit.session_id,
            hub: self.settings().hub.clone(),
            user: decision.subject().user.clone(),
            node: decision.node().name.clone(),
            login: decision.login().clone(),
            started: self.now(),
            source: permit.source,
        };
        self.running().insert(permit.session_id, running);
    }

    /// The node of this name, if the subject may see it. Hidden equals absent.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn find_node(&self, subject: &Subject, name: &NodeName) -> Result<Node, Error> {
        seen(&self.snapshot(), subject, name)
            .cloned()
            .ok_or_else(|| Error::not_found("node", name.as_str()))
    }

    /// The nodes that the subject may see, with the logins that can be named.
    #[must_use]
    pub fn nodes_seen_by(&self, subject: &Subject) -> Vec<(Node, Vec<Login>)> {
        let snapshot = self.snapshot();
        snapshot
            .nodes()
            .filter_map(|node| {
                let target = node.target();
                let visible = sees(snapshot.policy(), subject, &target);
                visible.then(|| (node.clone(), logins(snapshot.policy(), subject, &target)))
            })
            .collect()
    }
}

fn seen<'a>(snapshot: &'a Snapshot, subject: &Subject, name: &NodeName) -> Option<&'a Node> {
    snapshot
        .node_named(name)
        .filter(|node| sees(snapshot.policy(), subject, &node.target()))
}

/// The answer for a node that is hidden or absent: one text for both. The log keeps which.
fn hidden(snapshot: &Snapshot, subject: &Subject, wish: &Wish<'_>) -> No {
    let message = format!("there is no node `{}` that you may see", wish.node);
    let Some(node) = snapshot.node_named(wish.node) else {
        return No {
            message,
            why: "there is no such node".to_owned(),
            explanation: json!({ "why": "there is no such node" }),
            hidden: true,
        };
    };
    let target = node.target();
    let request = Request {
        subject,
        node: &target,
        login: wish.login,
        source: wish.source,
    };
    No {
        message,
        why: "no role of the user reaches this node".to_owned(),
        explanation: json!(explain(snapshot.policy(), &request)),
        hidden: true,
    }
}
