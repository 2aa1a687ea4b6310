//! A password becomes an identity: an SSH certificate for gateways and its TLS twin for the API.

use std::net::IpAddr;

use mezite_api::request;
use mezite_audit::catalogue::UserLoginFailed;
use mezite_ca::{
    IDENTITY_CEILING, IdentityRequest, KeyKind, PeerKind, PeerName, TlsRequest, openssh,
};
use mezite_core::store::Commit;
use mezite_core::{ClusterName, RoleName, Span, UnixTime, UserName};
use mezite_rbac::{Subject, identity_ttl};
use ssh_key::Certificate;

use crate::auth::Auth;
use crate::bursts::Attempt;
use crate::error::{Error, MAX_CLOCK_SKEW};
use crate::live;
use crate::random;
use crate::record::{self, User, prefix};
use crate::tell::TlsFacts;

/// What a user holds after a login. The private keys never were here.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Identity {
    /// Who it is.
    pub user: UserName,
    /// For gateways.
    pub ssh_certificate: Certificate,
    /// For the API: DER, leaf first.
    pub tls_chain: Vec<Vec<u8>>,
    /// When both end.
    pub valid_before: UnixTime,
    /// What the user had at that moment.
    pub roles: Vec<RoleName>,
}

impl Auth {
    /// Checks a password and issues an identity. Every attempt is an event, durable before the answer.
    ///
    /// An unknown user and a wrong password get the same answer after the same work.
    ///
    /// # Errors
    /// [`Error::ClockSkew`], [`Error::Credentials`], [`Error::Locked`] and [`Error::Uncertifiable`] (only after a right
    /// password), [`Error::Issue`], [`Error::Unavailable`].
    pub async fn login(
        &self,
        login: request::Login,
        source: Option<IpAddr>,
    ) -> Result<Identity, Error> {
        let claimed = login.user.clone();
        match self.try_login(login, source).await {
            Ok(identity) => Ok(identity),
            Err(Failure { error, known }) => {
                let why = match (&error, known) {
                    (Error::Credentials, true) => "the password is wrong".to_owned(),
                    (Error::Credentials, false) => "there is no such user".to_owned(),
                    _ => error.to_string(),
                };
                let event = self.tell().event(|stamp| {
                    UserLoginFailed {
                        user_name: &claimed,
                        user_known: known,
                        client_ip: source,
                        client_version: None,
                        method: "password",
                        error_message: &why,
                        attempts: 1,
                        claimed_users: None,
                    }
                    .event(stamp)
                });
                self.report_refused(Attempt::Login(source), &claimed, event)
                    .await?;
                Err(error)
            }
        }
    }

    async fn try_login(
        &self,
        login: request::Login,
        source: Option<IpAddr>,
    ) -> Result<Identity, Failure> {
        let unknown = |error| Failure {
            error,
            known: false,
        };
        self.check_clock(login.client_time).map_err(unknown)?;
        let stored = self.stored_user(&login.user).await.map_err(unknown)?;
        let known = stored.is_some();
        let failed = |error| Failure { error, known };
        let hash = stored.as_ref().and_then(|user| user.password.clone());
        let right = self.passwords().check(login.password, hash).await;
        let right = right.map_err(|error| failed(Error::Corrupt(error.to_string())))?;
        let user = stored
            .filter(|_| right)
            .ok_or_else(|| failed(Error::Credentials))?;
        let subject = live::subject(user).map_err(failed)?;
        self.user(&subject.user).map_err(failed)?;
        self.check_room(&subject).map_err(failed)?;
        let keys = (&login.ssh_public_key, login.tls_public_key);
        self.issue_identity(&subject, source, keys, login.ttl)
            .await
            .map_err(failed)
    }

    /// Both certificates and their events, or nothing.
    async fn issue_identity(
        &self,
        subject: &Subject,
        source: Option<IpAddr>,
        (ssh_key, tls_key): (&ssh_key::PublicKey, [u8; 32]),
        asked: Option<Span>,
    ) -> Result<Identity, Error> {
        let now = self.now();
        let (ttl, ceiling) = self.life(subject, asked);
        let request = IdentityRequest {
            cluster: self.cluster(),
            user: &subject.user,
            public_key: ssh_key,
            ttl,
            ceiling,
        };
        // Both certificates have one serial number, so that revoking it ends both.
        let serial = random::serial();
        let keys = self.keys();
        let certificate = keys
            .identity
            .issue(&request, serial, now, &mut random::rng())?;
        self.check_issued(&certificate, KeyKind::Identity)?;
        self.check_key(&openssh::public_key(tls_key))?;
        let valid_before = UnixTime::from_secs(certificate.valid_before());
        let peer = PeerName {
            cluster: self.cluster().clone(),
            kind: PeerKind::User,
            name: subject.user.to_string(),
        };
        let tls_request = TlsRequest {
            peer: &peer,
            public_key: tls_key,
            dns_names: &[],
            addresses: &[],
            life: ttl.min(ceiling),
            twin: Some(ssh_key),
        };
        let leaf = keys.user_tls.issue(&tls_request, serial, now)?;
        let facts = TlsFacts {
            serial,
            uri: &peer.to_string(),
            public_key: &openssh::public_key(tls_key),
            issued: now,
            valid_before,
        };
        let commit = Commit::new(self.tell().login(subject, source))
            .and_event(self.tell().identity_issued(subject, source, &certificate))
            .and_event(self.tell().user_tls_issued(subject, source, &facts));
        self.commit(commit).await?;
        Ok(Identity {
            user: subject.user.clone(),
            ssh_certificate: certificate,
            tls_chain: vec![leaf.to_vec(), keys.user_tls.certificate().to_vec()],
            valid_before,
            roles: subject.roles.clone(),
        })
    }

    /// What was asked or the default, and the strictest ceiling.
    fn life(&self, subject: &Subject, asked: Option<Span>) -> (Span, Span) {
        let settings = self.settings();
        let by_role = identity_ttl(self.snapshot().policy(), subject).unwrap_or(IDENTITY_CEILING);
        let ceiling = settings.identity_ceiling.min(by_role).min(IDENTITY_CEILING);
        (asked.unwrap_or(settings.identity_ttl).min(ceiling), ceiling)
    }

    /// The record of a claimed name. A text that is no name is nobody's.
    async fn stored_user(&self, claimed: &str) -> Result<Option<User>, Error> {
        let Ok(name) = claimed.parse::<UserName>() else {
            return Ok(None);
        };
        let key = record::key(prefix::USER, name.as_str())?;
        let found = self.store().get(&key).await?;
        found.map(|stored| record::read(&key, &stored)).transpose()
    }

    pub(crate) fn check_clock(&self, client: UnixTime) -> Result<(), Error> {
        let hub = self.now();
        if hub.since(client).max(client.since(hub)) > MAX_CLOCK_SKEW {
            return Err(Error::ClockSkew { client, hub });
        }
        Ok(())
    }

    /// The lines for `known_hosts` that make stock `ssh` trust the hub and the nodes behind it: one a gateway key.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a configured name cannot stand in such a line.
    pub fn known_hosts(&self) -> Result<String, Error> {
        let patterns = patterns(
            self.cluster(),
            &self.settings().gateway_names,
            &self.settings().gateway_address,
        );
        openssh::known_hosts_line(self.cluster(), &patterns, &self.trust().gateway)
            .map_err(|error| Error::Corrupt(error.to_string()))
    }
}

/// An error and whether the claimed user exists: the log knows, the caller does not.
struct Failure {
    error: Error,
    known: bool,
}

/// `*.<cluster>` for the nodes; the hub's own names, plain and, because `ssh` asks for `[name]:port` when the port is
/// not 22, with the gateway's port.
fn patterns(cluster: &ClusterName, names: &[String], address: &str) -> Vec<String> {
    let port = address
        .rsplit_once(':')
        .map(|(_, port)| port)
        .filter(|port| *port != "22");
    let mut patterns = vec![format!("*.{cluster}")];
    for name in names {
        patterns.push(name.clone());
        patterns.extend(port.map(|port| format!("[{name}]:{port}")));
    }
    patterns
}
