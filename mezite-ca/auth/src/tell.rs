//! Turns what happens here into events of the catalogue. One function an event, so that no caller forgets a field.

mod recording;

use std::net::IpAddr;

use mezite_audit::catalogue::{
    AccessGranted, AuditRead, AuthzDenied, CaAdopted, CaBreakGlassAdded, CaBreakGlassRemoved,
    CaCreated, CaResealed, CaRevocationRemoved, CaRevoked, CaRotation, HostCertIssued, HubLost,
    HubReturned, HubStarted, HubStopped, Json, LockCreated, LockDeleted, NodeBreakGlassUsed,
    NodeConnected, NodeCreated, NodeJoined, NodeLeft, PolicyRead, RecordingRead, RoleCreated,
    RoleDeleted, RoleUpdated, SessionCertIssued, Stamp, TokenCreated, TokenDeleted, UserCertIssued,
    UserCreated, UserDeleted, UserLogin, UserUpdated,
};
use mezite_ca::verify::VerifiedIdentity;
use mezite_ca::{KeyKind, SKEW};
use mezite_core::{
    Clock, ClusterName, Event, Login, NodeId, NodeName, RoleName, Serial, SessionId, UnixTime,
    UserName,
};
use mezite_rbac::{Resource, Role, Subject, Verb};
use serde::Serialize;
use ssh_key::{Certificate, HashAlg, PublicKey};

use crate::actor::Actor;
use crate::adopt::{Adopter, Evidence};
use crate::break_glass::BreakGlassReport;
use crate::random;
use crate::record::{Adopted, BreakGlassKey, Lock, Node, Revocation, Token, User};
use crate::rotate::Taken;
use crate::settings::Settings;

/// Makes events of this hub, each with its own stamp.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Teller<'a> {
    clock: &'a dyn Clock,
    cluster: &'a ClusterName,
    hub: &'a str,
    services: &'a [String],
}

/// What an X.509 certificate says, for its event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TlsFacts<'a> {
    pub(crate) serial: Serial,
    pub(crate) uri: &'a str,
    pub(crate) public_key: &'a PublicKey,
    pub(crate) issued: UnixTime,
    pub(crate) valid_before: UnixTime,
}

/// A refused way to a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused<'a> {
    pub(crate) user: &'a UserName,
    pub(crate) roles: &'a [RoleName],
    pub(crate) serial: Serial,
    pub(crate) session_id: SessionId,
    pub(crate) node: Option<&'a NodeId>,
    pub(crate) node_name: &'a NodeName,
    pub(crate) login: &'a Login,
    pub(crate) source: Option<IpAddr>,
}

pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

impl<'a> Teller<'a> {
    pub(crate) fn new(clock: &'a dyn Clock, settings: &'a Settings) -> Self {
        Self {
            clock,
            cluster: &settings.cluster,
            hub: &settings.hub,
            services: &settings.services,
        }
    }

    pub(crate) fn event(&self, make: impl FnOnce(&Stamp<'_>) -> Event) -> Event {
        make(&self.stamp())
    }

    fn stamp(&self) -> Stamp<'a> {
        Stamp {
            now: self.clock.now(),
            random: [random::bytes(), random::bytes()],
            cluster: self.cluster,
        }
    }

    pub(crate) fn hub_started(&self) -> Event {
        let event = HubStarted {
            hub_id: self.hub,
            version: env!("CARGO_PKG_VERSION"),
            services: self.services,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn hub_stopped(&self, reason: &str, sessions: usize) -> Event {
        let event = HubStopped {
            hub_id: self.hub,
            success: true,
            reason,
            sessions: count(sessions),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn hub_lost(&self, name: &str) -> Event {
        let event = HubLost {
            hub_id: self.hub,
            resource_name: name,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn hub_returned(&self) -> Event {
        HubReturned { hub_id: self.hub }.event(&self.stamp())
    }

    pub(crate) fn ca_created(&self, kind: KeyKind, fingerprint: Option<&str>) -> Event {
        let event = CaCreated {
            hub_id: self.hub,
            key_kind: kind.as_str(),
            public_key_fingerprint: fingerprint.unwrap_or_default(),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn rotation(&self, actor: &Actor, taken: &Taken<'_>) -> Event {
        let signs = taken.after.signing();
        let event = CaRotation {
            user_name: actor.name(),
            client_ip: actor.source(),
            key_kind: taken.after.kind().as_str(),
            action: taken.step.as_str(),
            phase_before: &taken.before.phase().to_string(),
            phase: &taken.after.phase().to_string(),
            generation: signs.number,
            public_key_fingerprint: &signs.fingerprint(),
            removed_generation: taken.removed(),
            forced: taken.forced(),
            passed_over: taken.passed_over,
            document: Json::of(taken.after),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn adopted(
        &self,
        whom: Adopter<'_>,
        evidence: Evidence,
        by: Option<&Actor>,
        adopted: &Adopted,
    ) -> Event {
        let (hub, node) = match whom {
            Adopter::Hub(name) => (Some(name), None),
            Adopter::Node(node) => (None, Some(node)),
        };
        let event = CaAdopted {
            user_name: by.map(Actor::name),
            client_ip: by.and_then(Actor::source),
            hub_id: hub,
            server_id: node.map(|node| &node.id),
            server_hostname: node.map(|node| &node.name),
            evidence: evidence.as_str(),
            document: Json::of(adopted),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn login(&self, subject: &Subject, source: Option<IpAddr>) -> Event {
        let event = UserLogin {
            user_name: &subject.user,
            user_roles: &subject.roles,
            client_ip: source,
            client_version: None,
            method: "password",
        };
        event.event(&self.stamp())
    }

    pub(crate) fn identity_issued(
        &self,
        subject: &Subject,
        source: Option<IpAddr>,
        certificate: &Certificate,
    ) -> Event {
        let facts = SshFacts::of(certificate);
        let event = UserCertIssued {
            user_name: &subject.user,
            user_roles: &subject.roles,
            client_ip: source,
            certificate_type: "ssh",
            serial: facts.serial,
            key_id: certificate.key_id(),
            principal: facts.principal,
            valid_after: facts.valid_after,
            valid_before: facts.valid_before,
            public_key_fingerprint: &facts.fingerprint,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn user_tls_issued(
        &self,
        subject: &Subject,
        source: Option<IpAddr>,
        facts: &TlsFacts<'_>,
    ) -> Event {
        let event = UserCertIssued {
            user_name: &subject.user,
            user_roles: &subject.roles,
            client_ip: source,
            certificate_type: "x509",
            serial: facts.serial,
            key_id: facts.uri,
            principal: facts.uri,
            valid_after: facts.issued.minus(SKEW),
            valid_before: facts.valid_before,
            public_key_fingerprint: &fingerprint(facts.public_key),
        };
        event.event(&self.stamp())
    }

    /// A node's or, without one, this hub's own certificate.
    pub(crate) fn host_issued(
        &self,
        node: Option<(&NodeId, &NodeName)>,
        certificate: &Certificate,
    ) -> Event {
        let facts = SshFacts::of(certificate);
        let event = HostCertIssued {
            server_id: node.map(|(id, _)| id),
            server_hostname: node.map(|(_, name)| name.as_str()),
            hub_id: node.is_none().then_some(self.hub),
            certificate_type: "ssh",
            serial: facts.serial,
            key_id: certificate.key_id(),
            principals: certificate.valid_principals(),
            valid_after: facts.valid_after,
            valid_before: facts.valid_before,
            public_key_fingerprint: &facts.fingerprint,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn host_tls_issued(
        &self,
        node: Option<(&NodeId, &NodeName)>,
        facts: &TlsFacts<'_>,
    ) -> Event {
        let event = HostCertIssued {
            server_id: node.map(|(id, _)| id),
            server_hostname: node.map(|(_, name)| name.as_str()),
            hub_id: node.is_none().then_some(self.hub),
            certificate_type: "x509",
            serial: facts.serial,
            key_id: facts.uri,
            principals: &[facts.uri.to_owned()],
            valid_after: facts.issued.minus(SKEW),
            valid_before: facts.valid_before,
            public_key_fingerprint: &fingerprint(facts.public_key),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn session_issued(
        &self,
        permit: &mezite_rbac::Permit,
        session_id: SessionId,
        certificate: &Certificate,
    ) -> Event {
        let facts = SshFacts::of(certificate);
        let event = SessionCertIssued {
            user_name: &permit.subject().user,
            session_id,
            server_id: &permit.node().id,
            server_hostname: &permit.node().name,
            login: permit.login(),
            serial: facts.serial,
            key_id: certificate.key_id(),
            principal: facts.principal,
            valid_after: facts.valid_after,
            valid_before: facts.valid_before,
            public_key_fingerprint: &facts.fingerprint,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn granted(
        &self,
        permit: &mezite_rbac::Permit,
        session_id: SessionId,
        source: Option<IpAddr>,
        identity: &VerifiedIdentity,
        decided_by: &[String],
    ) -> Event {
        let event = AccessGranted {
            user_name: &permit.subject().user,
            user_roles: &permit.subject().roles,
            session_id,
            server_id: &permit.node().id,
            server_hostname: &permit.node().name,
            login: permit.login(),
            client_ip: source,
            serial: Some(identity.serial()),
            obligations: Json::of(permit.obligations()),
            decided_by,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn denied(
        &self,
        refused: &Refused<'_>,
        why: &str,
        explanation: &impl Serialize,
    ) -> Event {
        let event = AuthzDenied {
            user_name: refused.user.as_str(),
            user_roles: refused.roles,
            action: "session",
            resource_type: Some("node"),
            resource_name: Some(refused.node_name.as_str()),
            session_id: Some(refused.session_id),
            server_id: refused.node,
            server_hostname: Some(refused.node_name.as_str()),
            login: Some(refused.login.as_str()),
            client_ip: refused.source,
            serial: Some(refused.serial),
            error_message: why,
            explanation: Json::of(explanation),
            attempts: 1,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn admin_denied(&self, actor: &Actor, resource: Resource, verb: Verb) -> Event {
        let explanation = serde_json::json!({
            "resource": resource, "verb": verb, "roles": actor.roles(),
            "why": "no role of the caller has an allow rule for this, or one denies it",
        });
        let event = AuthzDenied {
            user_name: actor.name(),
            user_roles: actor.roles(),
            action: verb.as_str(),
            resource_type: Some(resource.as_str()),
            resource_name: None,
            session_id: None,
            server_id: None,
            server_hostname: None,
            login: None,
            client_ip: actor.source(),
            serial: None,
            error_message: "no role allows this",
            explanation: Json::of(&explanation),
            attempts: 1,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn joined(&self, node: &Node, token: &Token, source: Option<IpAddr>) -> Event {
        let event = NodeJoined {
            server_id: &node.id,
            server_hostname: &node.name,
            resource_labels: &node.labels.token,
            client_ip: source,
            method: "token",
            token_id: &token.name,
            agent_version: None,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn node_left(
        &self,
        actor: Option<&Actor>,
        id: &NodeId,
        name: &NodeName,
        reason: &str,
    ) -> Event {
        let event = NodeLeft {
            user_name: actor.map(Actor::name),
            server_id: id,
            server_hostname: name,
            reason,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn node_connected(
        &self,
        node: &Node,
        source: Option<IpAddr>,
        agent_version: Option<&str>,
    ) -> Event {
        let event = NodeConnected {
            server_id: &node.id,
            server_hostname: &node.name,
            client_ip: source,
            hub_id: self.hub,
            agent_version,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn node_created(&self, actor: &Actor, node: &Node) -> Event {
        let event = NodeCreated {
            user_name: actor.name(),
            server_id: &node.id,
            server_hostname: &node.name,
            resource_labels: &node.labels.operator,
            client_ip: actor.source(),
            mode: "openssh",
            server_address: node.address.as_deref(),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn user_created(&self, actor: &Actor, user: &User) -> Event {
        let event = UserCreated {
            user_name: actor.name(),
            client_ip: actor.source(),
            resource_name: &user.name,
            document: Json::of(&user.spec()),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn user_updated(&self, actor: &Actor, user: &User, password: bool) -> Event {
        let mut document = serde_json::json!(user.spec());
        if password && let Some(fields) = document.as_object_mut() {
            fields.insert("credentials".to_owned(), "replaced".into());
        }
        let event = UserUpdated {
            user_name: actor.name(),
            client_ip: actor.source(),
            resource_name: &user.name,
            document: Json::of(&document),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn user_deleted(&self, actor: &Actor, user: &UserName) -> Event {
        let event = UserDeleted {
            user_name: actor.name(),
            client_ip: actor.source(),
            resource_name: user,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn role_created(&self, actor: &Actor, role: &Role) -> Event {
        let event = RoleCreated {
            user_name: actor.name(),
            client_ip: actor.source(),
            resource_name: role.name(),
            document: Json::of(&role.to_json()),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn role_updated(&self, actor: &Actor, role: &Role) -> Event {
        let event = RoleUpdated {
            user_name: actor.name(),
            client_ip: actor.source(),
            resource_name: role.name(),
            document: Json::of(&role.to_json()),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn role_deleted(&self, actor: &Actor, role: &RoleName) -> Event {
        let event = RoleDeleted {
            user_name: actor.name(),
            client_ip: actor.source(),
            resource_name: role,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn token_created(&self, actor: &Actor, token: &Token) -> Event {
        let event = TokenCreated {
            user_name: actor.name(),
            client_ip: actor.source(),
            resource_name: &token.name,
            resource_labels: &token.labels,
            valid_before: token.expires(),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn token_deleted(&self, actor: &Actor, name: &str) -> Event {
        let event = TokenDeleted {
            user_name: Some(actor.name()),
            client_ip: actor.source(),
            resource_name: name,
            reason: "removed",
        };
        event.event(&self.stamp())
    }

    pub(crate) fn lock_created(&self, actor: &Actor, lock: &Lock) -> Event {
        let expires = lock.spec.expires.as_deref();
        let event = LockCreated {
            user_name: actor.name(),
            client_ip: actor.source(),
            resource_name: &lock.name,
            target_type: lock.spec.target.kind(),
            target_name: &lock.spec.target.name(),
            reason: &lock.spec.reason,
            valid_before: expires.and_then(UnixTime::parse_rfc3339),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn lock_deleted(&self, actor: &Actor, lock: &Lock) -> Event {
        let event = LockDeleted {
            user_name: actor.name(),
            client_ip: actor.source(),
            resource_name: &lock.name,
            target_type: lock.spec.target.kind(),
            target_name: &lock.spec.target.name(),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn revoked(&self, actor: &Actor, revocation: &Revocation, number: u64) -> Event {
        let event = CaRevoked {
            user_name: actor.name(),
            client_ip: actor.source(),
            resource_name: &revocation.name,
            target_type: revocation.spec.revoked.kind(),
            target_name: &revocation.spec.revoked.value(),
            reason: &revocation.spec.reason,
            list_number: number,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn unrevoked(&self, actor: &Actor, revocation: &Revocation, number: u64) -> Event {
        let event = CaRevocationRemoved {
            user_name: actor.name(),
            client_ip: actor.source(),
            resource_name: &revocation.name,
            target_type: revocation.spec.revoked.kind(),
            target_name: &revocation.spec.revoked.value(),
            list_number: number,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn resealed(&self, keys: usize) -> Event {
        let event = CaResealed {
            hub_id: self.hub,
            count: count(keys),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn break_glass_added(&self, actor: &Actor, key: &BreakGlassKey) -> Event {
        let event = CaBreakGlassAdded {
            user_name: actor.name(),
            client_ip: actor.source(),
            resource_name: &key.name,
            public_key_fingerprint: &fingerprint(key.public_key.key()),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn break_glass_removed(&self, actor: &Actor, key: &BreakGlassKey) -> Event {
        let event = CaBreakGlassRemoved {
            user_name: actor.name(),
            client_ip: actor.source(),
            resource_name: &key.name,
            public_key_fingerprint: &fingerprint(key.public_key.key()),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn break_glass_used(&self, node: &Node, report: &BreakGlassReport) -> Event {
        let event = NodeBreakGlassUsed {
            server_id: &node.id,
            server_hostname: &node.name,
            login: &report.login,
            client_ip: report.source,
            mode: &report.mode,
            serial: report.serial,
            key_id: &report.key_id,
            public_key_fingerprint: &report.key,
            authority_fingerprint: &report.authority,
            used_at: report.at,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn audit_read(
        &self,
        actor: &Actor,
        action: &str,
        query: &serde_json::Value,
        found: usize,
    ) -> Event {
        let event = AuditRead {
            user_name: actor.name(),
            client_ip: actor.source(),
            action,
            query: Json::of(query),
            count: count(found),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn policy_read(
        &self,
        actor: &Actor,
        action: &str,
        query: &serde_json::Value,
    ) -> Event {
        let event = PolicyRead {
            user_name: actor.name(),
            client_ip: actor.source(),
            action,
            query: Json::of(query),
        };
        event.event(&self.stamp())
    }

    pub(crate) fn recording_read(
        &self,
        actor: &Actor,
        session_id: SessionId,
        whose: &str,
        action: &str,
    ) -> Event {
        let event = RecordingRead {
            user_name: actor.name(),
            client_ip: actor.source(),
            session_id,
            action,
            recorded_user: Some(whose),
        };
        event.event(&self.stamp())
    }
}

/// What an SSH certificate says, for its event.
struct SshFacts<'a> {
    serial: Serial,
    principal: &'a str,
    valid_after: UnixTime,
    valid_before: UnixTime,
    fingerprint: String,
}

impl<'a> SshFacts<'a> {
    fn of(certificate: &'a Certificate) -> Self {
        let key = PublicKey::from(certificate.public_key().clone());
        Self {
            serial: Serial::from_u64(certificate.serial()),
            principal: certificate
                .valid_principals()
                .first()
                .map_or("", String::as_str),
            valid_after: UnixTime::from_secs(certificate.valid_after()),
            valid_before: UnixTime::from_secs(certificate.valid_before()),
            fingerprint: fingerprint(&key),
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
