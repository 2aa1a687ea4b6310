//! Requests as parsed types. Each is made from its message by `TryFrom`, which checks every field; the text of a
//! [`ParseError`] is meant for the caller.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use mezite_ca::rotation::Force;
use mezite_ca::{KeyKind, KeyKindError};
use mezite_core::label::LabelError;
use mezite_core::name::NameError;
use mezite_core::store::{LogQuery, Order};
use mezite_core::{
    EventId, Labels, NodeName, RoleName, Secret, SessionId, Span, UnixTime, UserName, id::IdError,
};
use ssh_key::PublicKey;
use thiserror::Error;

use crate::document::{Binding, LockTarget, LockTargetError};
use crate::v1;

mod question;

pub use question::{Can, DiffRoles, WhoCan};

/// Most events or recordings in one answer.
pub const MAX_LIMIT: u32 = 1000;

/// Most tiles of the log's tree in one answer.
pub const MAX_TILES: usize = 256;

/// Longest password, in bytes: more is no safer and costs the hub.
pub const MAX_PASSWORD: usize = 1024;

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// A field must be set.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An id is not valid.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A label is not valid.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The target of a lock is not valid.
    #[error(transparent)]
    LockTarget(#[from] LockTargetError),
    /// Not an SSH key that Mezite certifies.
    #[error("`{field}` is not an Ed25519 public key in OpenSSH form (ssh-ed25519 AAAA…)")]
    SshKey {
        /// The field.
        field: &'static str,
    },
    /// Not an Ed25519 key.
    #[error("`{field}` has {length} bytes: an Ed25519 public key has 32")]
    TlsKey {
        /// The field.
        field: &'static str,
        /// What was sent.
        length: usize,
    },
    /// Not `host:port`.
    #[error("`{0}` is not an address: write host:port, with an IPv6 address in brackets")]
    Address(String),
    /// Not an IP address.
    #[error("`{0}` is not an IP address: write for example 10.1.2.3 or 2001:db8::7")]
    Ip(String),
    /// Not a binding.
    #[error("`{0}` is not a binding: node or login")]
    Binding(String),
    /// Not a kind of key.
    #[error(transparent)]
    KeyKind(#[from] KeyKindError),
    /// Not a step of a rotation.
    #[error("`{0}` is not a step of a rotation: begin, advance or rollback")]
    Step(String),
    /// Only a step forward can be forced.
    #[error("`force` goes with the step `advance` only: nobody is cut off by the others")]
    Force,
    /// Too many.
    #[error("`{field}` has {count} items: at most {max}")]
    TooMany {
        /// The field.
        field: &'static str,
        /// What was sent.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// Too long.
    #[error("`{field}` has {length} bytes: at most {max}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// What was sent.
        length: usize,
        /// The bound.
        max: usize,
    },
}

/// A password becomes an identity.
#[derive(Debug)]
#[non_exhaustive]
pub struct Login {
    /// Claimed; kept as text, because a name that cannot exist gets the same answer as one that does not.
    pub user: String,
    /// What is to prove it.
    pub password: Secret<String>,
    /// `None`: the hub's default.
    pub ttl: Option<Span>,
    /// Ed25519.
    pub ssh_public_key: PublicKey,
    /// Ed25519 (RFC 8032).
    pub tls_public_key: [u8; 32],
    /// The client's clock.
    pub client_time: UnixTime,
}

impl TryFrom<v1::LoginRequest> for Login {
    type Error = ParseError;

    fn try_from(message: v1::LoginRequest) -> Result<Self, ParseError> {
        let password = Secret::new(message.password);
        bounded("password", password.expose(), MAX_PASSWORD)?;
        bounded("user", &message.user, 256)?;
        Ok(Self {
            user: message.user,
            password,
            ttl: span(message.ttl_seconds),
            ssh_public_key: ssh_key("ssh_public_key", &message.ssh_public_key)?,
            tls_public_key: tls_key("tls_public_key", &message.tls_public_key)?,
            client_time: UnixTime::from_millis(message.client_time_ms),
        })
    }
}

/// A one-time token becomes a node.
#[derive(Debug)]
#[non_exhaustive]
pub struct Join {
    /// Shown once when it was made.
    pub token: Secret<String>,
    /// What the node is to be called.
    pub node_name: NodeName,
    /// What the agent says of itself.
    pub labels: Labels,
    /// The node's SSH host key.
    pub host_public_key: PublicKey,
    /// The agent's TLS key.
    pub tls_public_key: [u8; 32],
    /// The agent's clock.
    pub client_time: UnixTime,
}

impl TryFrom<v1::JoinRequest> for Join {
    type Error = ParseError;

    fn try_from(message: v1::JoinRequest) -> Result<Self, ParseError> {
        let token = Secret::new(message.token);
        bounded("token", token.expose(), 256)?;
        Ok(Self {
            token,
            node_name: message.node_name.parse()?,
            labels: labels(message.labels)?,
            host_public_key: ssh_key("host_public_key", &message.host_public_key)?,
            tls_public_key: tls_key("tls_public_key", &message.tls_public_key)?,
            client_time: UnixTime::from_millis(message.client_time_ms),
        })
    }
}

/// A node's agent asks for its next certificates.
#[derive(Debug)]
#[non_exhaustive]
pub struct RenewNode {
    /// The node's SSH host key.
    pub host_public_key: PublicKey,
    /// The agent's TLS key.
    pub tls_public_key: [u8; 32],
    /// The agent's clock.
    pub client_time: UnixTime,
    /// What the agent says of itself now.
    pub labels: Labels,
}

impl RenewNode {
    /// A renewal for these keys, asked for at `client_time` by an agent that says `labels` of itself.
    #[must_use]
    pub fn new(
        host_public_key: PublicKey,
        tls_public_key: [u8; 32],
        client_time: UnixTime,
        labels: Labels,
    ) -> Self {
        Self {
            host_public_key,
            tls_public_key,
            client_time,
            labels,
        }
    }
}

impl TryFrom<v1::RenewNodeRequest> for RenewNode {
    type Error = ParseError;

    fn try_from(message: v1::RenewNodeRequest) -> Result<Self, ParseError> {
        Ok(Self {
            host_public_key: ssh_key("host_public_key", &message.host_public_key)?,
            tls_public_key: tls_key("tls_public_key", &message.tls_public_key)?,
            client_time: UnixTime::from_millis(message.client_time_ms),
            labels: labels(message.labels)?,
        })
    }
}

/// One step in the rotation of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the steps of the state machine")]
pub enum RotationStep {
    /// A new key is made and told to everybody.
    Begin,
    /// The next phase.
    Advance(Force),
    /// The old key signs again.
    Rollback,
}

impl RotationStep {
    /// As messages and events write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Advance(_) => "advance",
            Self::Rollback => "rollback",
        }
    }
}

/// A step in the rotation of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RotateKey {
    /// Which key.
    pub kind: KeyKind,
    /// Which step.
    pub step: RotationStep,
}

impl RotateKey {
    /// `step` for the key of `kind`.
    #[must_use]
    pub const fn new(kind: KeyKind, step: RotationStep) -> Self {
        Self { kind, step }
    }
}

impl TryFrom<v1::RotateKeyRequest> for RotateKey {
    type Error = ParseError;

    fn try_from(message: v1::RotateKeyRequest) -> Result<Self, ParseError> {
        let force = if message.force { Force::Yes } else { Force::No };
        let step = match message.step.as_str() {
            "begin" => RotationStep::Begin,
            "advance" => RotationStep::Advance(force),
            "rollback" => RotationStep::Rollback,
            other => return Err(ParseError::Step(shown(other))),
        };
        if message.force && step != RotationStep::Advance(Force::Yes) {
            return Err(ParseError::Force);
        }
        Ok(Self {
            kind: message.kind.parse()?,
            step,
        })
    }
}

/// A user to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateUser {
    /// What it is called.
    pub name: UserName,
    /// What it is given.
    pub roles: Vec<RoleName>,
    /// Internal traits, `logins` among them.
    pub traits: BTreeMap<String, Vec<String>>,
}

impl CreateUser {
    /// A user with these roles and internal traits.
    #[must_use]
    pub fn new(
        name: UserName,
        roles: Vec<RoleName>,
        traits: BTreeMap<String, Vec<String>>,
    ) -> Self {
        Self {
            name,
            roles,
            traits,
        }
    }
}

impl TryFrom<v1::CreateUserRequest> for CreateUser {
    type Error = ParseError;

    fn try_from(message: v1::CreateUserRequest) -> Result<Self, ParseError> {
        let mut traits: BTreeMap<_, _> = message
            .traits
            .into_iter()
            .map(|(name, list)| (name, list.values))
            .collect();
        if !message.logins.is_empty() {
            traits
                .entry("logins".to_owned())
                .or_default()
                .extend(message.logins);
        }
        Ok(Self {
            name: message.name.parse()?,
            roles: parse_all(&message.roles)?,
            traits,
        })
    }
}

/// A user's password is to be replaced.
#[derive(Debug)]
#[non_exhaustive]
pub struct SetPassword {
    /// Whose.
    pub user: UserName,
    /// `None`: the hub makes one.
    pub password: Option<Secret<String>>,
}

impl SetPassword {
    /// This password for `user`, or one that the hub makes.
    #[must_use]
    pub fn new(user: UserName, password: Option<Secret<String>>) -> Self {
        Self { user, password }
    }
}

impl TryFrom<v1::SetPasswordRequest> for SetPassword {
    type Error = ParseError;

    fn try_from(message: v1::SetPasswordRequest) -> Result<Self, ParseError> {
        let password = Secret::new(message.password);
        bounded("password", password.expose(), MAX_PASSWORD)?;
        Ok(Self {
            user: message.user.parse()?,
            password: (!password.expose().is_empty()).then_some(password),
        })
    }
}

/// A one-time join token to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateToken {
    /// `None`: the default.
    pub ttl: Option<Span>,
    /// Labels with the token's authority.
    pub labels: Labels,
    /// The only name a node may join with.
    pub node_name: Option<NodeName>,
}

impl CreateToken {
    /// A token good for `ttl`, with labels, for any node or for one.
    #[must_use]
    pub fn new(ttl: Option<Span>, labels: Labels, node_name: Option<NodeName>) -> Self {
        Self {
            ttl,
            labels,
            node_name,
        }
    }
}

impl TryFrom<v1::CreateTokenRequest> for CreateToken {
    type Error = ParseError;

    fn try_from(message: v1::CreateTokenRequest) -> Result<Self, ParseError> {
        Ok(Self {
            ttl: span(message.ttl_seconds),
            labels: labels(message.labels)?,
            node_name: optional(&message.node_name)?,
        })
    }
}

/// A node with a stock sshd to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddOpenSshNode {
    /// What it is called.
    pub name: NodeName,
    /// `host:port`.
    pub address: String,
    /// Labels with the operator's authority.
    pub labels: Labels,
    /// How its sshd knows principals.
    pub binding: Binding,
}

impl TryFrom<v1::AddOpenSshNodeRequest> for AddOpenSshNode {
    type Error = ParseError;

    fn try_from(message: v1::AddOpenSshNodeRequest) -> Result<Self, ParseError> {
        let binding = match message.binding.as_str() {
            "" | "node" => Binding::Node,
            "login" => Binding::Login,
            other => return Err(ParseError::Binding(shown(other))),
        };
        Ok(Self {
            name: message.name.parse()?,
            address: address(&message.address)?,
            labels: labels(message.labels)?,
            binding,
        })
    }
}

/// A stock sshd's host key to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignHost {
    /// The node.
    pub node: NodeName,
    /// Its host key.
    pub public_key: PublicKey,
    /// `None`: the default.
    pub ttl: Option<Span>,
}

impl TryFrom<v1::SignHostRequest> for SignHost {
    type Error = ParseError;

    fn try_from(message: v1::SignHostRequest) -> Result<Self, ParseError> {
        Ok(Self {
            node: message.node.parse()?,
            public_key: ssh_key("public_key", &message.public_key)?,
            ttl: span(message.ttl_seconds),
        })
    }
}

/// A lock to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateLock {
    /// Whom it stops.
    pub target: LockTarget,
    /// Shown to whoever is stopped.
    pub reason: String,
    /// `None`: until it is removed.
    pub expires: Option<UnixTime>,
}

impl TryFrom<v1::CreateLockRequest> for CreateLock {
    type Error = ParseError;

    fn try_from(message: v1::CreateLockRequest) -> Result<Self, ParseError> {
        bounded("reason", &message.reason, 1024)?;
        Ok(Self {
            target: LockTarget::new(&message.target_kind, &message.target_name)?,
            reason: message.reason,
            expires: (message.expires_ms != 0).then(|| UnixTime::from_millis(message.expires_ms)),
        })
    }
}

/// A running session to be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndSession {
    /// Which.
    pub session_id: SessionId,
    /// Shown to its user.
    pub reason: String,
}

impl TryFrom<v1::EndSessionRequest> for EndSession {
    type Error = ParseError;

    fn try_from(message: v1::EndSessionRequest) -> Result<Self, ParseError> {
        bounded("reason", &message.reason, 1024)?;
        Ok(Self {
            session_id: message.session_id.parse()?,
            reason: message.reason,
        })
    }
}

/// A legal hold is placed or lifted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hold {
    /// Of which session.
    pub session_id: SessionId,
    /// Kept with the event.
    pub reason: String,
}

impl Hold {
    /// Checks both fields; a hold nobody can explain is none.
    ///
    /// # Errors
    /// [`ParseError`].
    pub fn parse(session_id: &str, reason: String) -> Result<Self, ParseError> {
        bounded("reason", &reason, 1024)?;
        if reason.trim().is_empty() {
            return Err(ParseError::Missing("reason"));
        }
        let session_id = session_id.parse()?;
        Ok(Self { session_id, reason })
    }
}

/// The event that [`v1::ExplainRequest`] asks about.
///
/// # Errors
/// [`ParseError::Id`].
pub fn explained(message: &v1::ExplainRequest) -> Result<EventId, ParseError> {
    Ok(message.event_id.parse()?)
}

/// The question to the log that [`v1::ListEventsRequest`] asks.
#[must_use]
pub fn log_query(message: v1::ListEventsRequest) -> LogQuery {
    let time = |millis: u64| (millis != 0).then(|| UnixTime::from_millis(millis));
    LogQuery {
        after: message.after,
        before: (message.before != 0).then_some(message.before),
        event_type: text(message.event_type),
        user_name: text(message.user),
        server_hostname: text(message.node),
        session_id: text(message.session_id),
        success: message.success,
        since: time(message.since_ms),
        until: time(message.until_ms),
        limit: limit(message.limit),
        order: if message.newest_first {
            Order::NewestFirst
        } else {
            Order::OldestFirst
        },
        ..LogQuery::default()
    }
}

/// How many are asked for: 0 is 100, at most [`MAX_LIMIT`].
#[must_use]
pub fn limit(asked: u32) -> usize {
    let asked = if asked == 0 {
        100
    } else {
        asked.min(MAX_LIMIT)
    };
    usize::try_from(asked).unwrap_or(100)
}

fn text(value: String) -> Option<String> {
    (!value.is_empty()).then_some(value)
}

fn span(seconds: u64) -> Option<Span> {
    (seconds != 0).then(|| Span::from_secs(seconds))
}

fn labels(map: HashMap<String, String>) -> Result<Labels, ParseError> {
    Ok(Labels::new(map.into_iter().collect())?)
}

fn optional<T: FromStr>(value: &str) -> Result<Option<T>, ParseError>
where
    ParseError: From<T::Err>,
{
    if value.is_empty() {
        return Ok(None);
    }
    Ok(Some(value.parse()?))
}

fn parse_all<T: FromStr>(values: &[String]) -> Result<Vec<T>, ParseError>
where
    ParseError: From<T::Err>,
{
    values
        .iter()
        .map(|value| value.parse().map_err(ParseError::from))
        .collect()
}

fn bounded(field: &'static str, value: &str, max: usize) -> Result<(), ParseError> {
    if value.len() > max {
        return Err(ParseError::TooLong {
            field,
            length: value.len(),
            max,
        });
    }
    Ok(())
}

/// A plain Ed25519 key. A certificate is not a key (attack row 1): `PublicKey` does not parse one.
fn ssh_key(field: &'static str, value: &str) -> Result<PublicKey, ParseError> {
    bounded(field, value, 1024)?;
    if value.trim().is_empty() {
        return Err(ParseError::Missing(field));
    }
    let key = PublicKey::from_openssh(value.trim()).map_err(|_| ParseError::SshKey { field })?;
    if key.key_data().ed25519().is_none() {
        return Err(ParseError::SshKey { field });
    }
    Ok(key)
}

fn tls_key(field: &'static str, value: &[u8]) -> Result<[u8; 32], ParseError> {
    value.try_into().map_err(|_| ParseError::TlsKey {
        field,
        length: value.len(),
    })
}

/// Checks that a text is `host:port`.
///
/// # Errors
/// [`ParseError::Address`].
pub fn address(value: &str) -> Result<String, ParseError> {
    let host_is_fine = |host: &str| match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&host.len())
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
                && !host.starts_with('-')
        }
    };
    let valid = value.rsplit_once(':').is_some_and(|(host, port)| {
        host_is_fine(host) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if valid {
        Ok(value.to_owned())
    } else {
        Err(ParseError::Address(shown(value)))
    }
}

fn shown(value: &str) -> String {
    value
        .chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f x";

    fn login() -> v1::LoginRequest {
        v1::LoginRequest {
            user: "alice".into(),
            password: "hunter2".into(),
            ssh_public_key: KEY.into(),
            tls_public_key: vec![1; 32],
            ..v1::LoginRequest::default()
        }
    }

    #[test]
    fn a_login_parses_and_never_shows_its_password() {
        let parsed = Login::try_from(login()).unwrap();
        assert_eq!(parsed.ttl, None);
        assert!(!format!("{parsed:?}").contains("hunter2"));
    }

    #[test]
    fn keys_of_other_kinds_or_lengths_are_refused() {
        let mut short = login();
        short.tls_public_key.pop();
        assert_eq!(
            Login::try_from(short).unwrap_err(),
            ParseError::TlsKey {
                field: "tls_public_key",
                length: 31
            }
        );
        let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";
        for bad in ["ssh-ed25519 AAAA", "nonsense", ecdsa] {
            let mut other = login();
            other.ssh_public_key = bad.into();
            assert_eq!(
                Login::try_from(other).unwrap_err(),
                ParseError::SshKey {
                    field: "ssh_public_key"
                },
                "{bad}"
            );
        }
    }

    #[test]
    fn attack_64_long_fields_are_refused_before_any_work() {
        let mut long = login();
        long.password = "x".repeat(MAX_PASSWORD + 1);
        assert!(matches!(
            Login::try_from(long),
            Err(ParseError::TooLong { .. })
        ));
    }

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["db1:22", "10.0.0.1:2222", "[::1]:22", "db1.example.com:22"] {
            assert_eq!(address(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "db1",
            "db1:",
            "db1:0",
            "db1:99999",
            "-oProxyCommand=x:22",
            "a b:22",
            "[x]:22",
            "::1:22",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn logins_join_the_traits_of_a_new_user() {
        let message = v1::CreateUserRequest {
            name: "alice".into(),
            roles: vec!["access".into()],
            logins: vec!["root".into()],
            ..v1::CreateUserRequest::default()
        };
        let parsed = CreateUser::try_from(message).unwrap();
        assert_eq!(parsed.traits["logins"], ["root"]);
    }

    #[test]
    fn limits_have_a_default_and_a_ceiling() {
        assert_eq!((limit(0), limit(7), limit(u32::MAX)), (100, 7, 1000));
    }
}
