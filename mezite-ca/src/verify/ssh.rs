//! The four kinds of SSH certificates, each with its own line-up of the checklist.

use std::borrow::Cow;

use mezite_core::{Login, NodeId, Serial, SessionId, Span, UnixTime, UserName};
use ssh_key::PublicKey;
use ssh_key::public::{Ed25519PublicKey, KeyData};

use super::blob::Blob;
use super::{Context, Revocable, VerifyError, source};
use crate::kind::{KeyKind, escaped};
use crate::principal;
use crate::signer::{fingerprint, signed_by};
use crate::ssh::{
    BREAK_GLASS_CEILING, GATEWAY_LIFE, IDENTITY_CEILING, NODE_LIFE, SESSION_LIFE, SKEW, extension,
};

const USER: u32 = 1;
const HOST: u32 = 2;

/// What every verified SSH certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    serial: Serial,
    key_id: String,
    public_key: PublicKey,
    valid_after: UnixTime,
    valid_before: UnixTime,
    authority: KeyKind,
    authority_key: KeyData,
}

impl Facts {
    fn revocable(&self) -> Revocable<'_> {
        Revocable {
            serial: self.serial,
            key_id: &self.key_id,
            key: self.public_key.key_data(),
            authority: self.authority,
            authority_key: &self.authority_key,
        }
    }
}

/// Declares a type that only verification makes, with accessors to its facts.
macro_rules! verified {
    ($(#[$doc:meta])* $type:ident { $($field:ident: $kind:ty),* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[must_use]
        pub struct $type {
            facts: Facts,
            $($field: $kind,)*
        }

        impl $type {
            /// The serial number.
            #[must_use]
            pub const fn serial(&self) -> Serial {
                self.facts.serial
            }

            /// The key id, as logs show it.
            #[must_use]
            pub fn key_id(&self) -> &str {
                &self.facts.key_id
            }

            /// The certified key. The holder has yet to prove that they hold it.
            #[must_use]
            pub const fn public_key(&self) -> &PublicKey {
                &self.facts.public_key
            }

            /// The first moment of the window.
            #[must_use]
            pub const fn valid_after(&self) -> UnixTime {
                self.facts.valid_after
            }

            /// The first moment after the window.
            #[must_use]
            pub const fn valid_before(&self) -> UnixTime {
                self.facts.valid_before
            }

            /// By what it can be revoked after it was checked.
            #[must_use]
            pub fn revocable(&self) -> Revocable<'_> {
                self.facts.revocable()
            }
        }
    };
}

verified!(
    /// Somebody's identity certificate, checked in every point.
    VerifiedIdentity { user: UserName }
);
verified!(
    /// A session certificate, checked in every point against one node and one login.
    VerifiedSession { session_id: SessionId, user: UserName, login: Login, extensions: Vec<(String, String)> }
);
verified!(
    /// A node's host certificate, checked in every point against one node.
    VerifiedNode { node: NodeId }
);
verified!(
    /// A gateway's host certificate, checked in every point against one name.
    VerifiedGateway { name: String }
);

verified!(
    /// A break-glass certificate, checked in every point against one node and one login.
    VerifiedBreakGlass { login: Login, extensions: Vec<(String, String)> }
);

impl VerifiedBreakGlass {
    /// As which Unix account.
    #[must_use]
    pub const fn login(&self) -> &Login {
        &self.login
    }

    /// Whether the extension `permit-<what>` is there, as with [`VerifiedSession::permits`].
    #[must_use]
    pub fn permits(&self, what: &str) -> bool {
        let name = format!("permit-{what}");
        self.extensions.iter().any(|(known, _)| *known == name)
    }
}

impl VerifiedIdentity {
    /// Who it is.
    #[must_use]
    pub const fn user(&self) -> &UserName {
        &self.user
    }
}

impl VerifiedSession {
    /// The session it opens.
    #[must_use]
    pub const fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// Who acts.
    #[must_use]
    pub const fn user(&self) -> &UserName {
        &self.user
    }

    /// As which Unix account.
    #[must_use]
    pub const fn login(&self) -> &Login {
        &self.login
    }

    /// The value of the obligation `<name>@mezite`.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.value(&extension(name))
    }

    /// Whether the extension `permit-<what>` is there: `pty`, `port-forwarding`, `agent-forwarding`,
    /// `X11-forwarding`.
    #[must_use]
    pub fn permits(&self, what: &str) -> bool {
        self.value(&format!("permit-{what}")).is_some()
    }

    fn value(&self, name: &str) -> Option<&str> {
        let (_, value) = self.extensions.iter().find(|(known, _)| known == name)?;
        Some(value)
    }
}

impl VerifiedNode {
    /// The node.
    #[must_use]
    pub const fn node(&self) -> &NodeId {
        &self.node
    }
}

impl VerifiedGateway {
    /// The name that was dialled.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Checks what a user shows a gateway: the blob of an identity certificate.
///
/// # Errors
/// The first miss of the checklist.
pub fn identity(cert: &[u8], context: &Context<'_>) -> Result<VerifiedIdentity, VerifyError> {
    let blob = check(cert, &IDENTITY, context)?;
    let principal = only_principal(&blob)?;
    let wrong = || VerifyError::WrongPrincipal {
        expected: format!("mezite:{}:<user>", context.trust.cluster),
        found: escaped(principal),
    };
    let (cluster, user) = principal::parse_identity(principal).ok_or_else(wrong)?;
    if cluster != context.trust.cluster {
        return Err(VerifyError::WrongCluster {
            expected: context.trust.cluster.to_string(),
            found: cluster.to_string(),
        });
    }
    Ok(VerifiedIdentity {
        facts: facts(&blob, &IDENTITY, context)?,
        user,
    })
}

/// Checks what a hub shows a node: the blob of a session certificate, for one login on this node.
///
/// That a serial number is used once is the caller's to see.
///
/// # Errors
/// The first miss of the checklist.
pub fn session(
    cert: &[u8],
    node: &NodeId,
    login: &Login,
    context: &Context<'_>,
) -> Result<VerifiedSession, VerifyError> {
    let blob = check(cert, &SESSION, context)?;
    exact_principal(&blob, &principal::session(node, login))?;
    let session_id = parsed_extension(&blob, "session-id@mezite")?;
    let user = parsed_extension(&blob, "user@mezite")?;
    Ok(VerifiedSession {
        facts: facts(&blob, &SESSION, context)?,
        session_id,
        user,
        login: login.clone(),
        extensions: owned_extensions(&blob),
    })
}

/// Checks what somebody shows a node while the hub is down: the blob of a certificate by a break-glass key, made with
/// `ssh-keygen -s` for instance. It lives `ceiling` at most, and [`BREAK_GLASS_CEILING`] in any case, and names this login
/// on this node; it may name other logins and nodes beside it, and nothing else.
///
/// Its use is to be reported to the hub: that is the caller's to do.
///
/// # Errors
/// The first miss of the checklist.
pub fn break_glass(
    cert: &[u8],
    node: &NodeId,
    login: &Login,
    ceiling: Span,
    context: &Context<'_>,
) -> Result<VerifiedBreakGlass, VerifyError> {
    let line = Line {
        ring: KeyKind::BreakGlass,
        cert_type: USER,
        most: ceiling.min(BREAK_GLASS_CEILING),
    };
    let blob = check(cert, &line, context)?;
    if blob.principals.is_empty() {
        return Err(VerifyError::PrincipalCount(0));
    }
    if let Some(bad) = blob
        .principals
        .iter()
        .find(|found| principal::parse_session(found).is_none())
    {
        return Err(VerifyError::PrincipalForm(escaped(bad)));
    }
    let expected = principal::session(node, login);
    if !blob.principals.contains(&expected.as_str()) {
        let found = escaped(&blob.principals.join(", "));
        return Err(VerifyError::WrongPrincipal { expected, found });
    }
    Ok(VerifiedBreakGlass {
        facts: facts(&blob, &line, context)?,
        login: login.clone(),
        extensions: owned_extensions(&blob),
    })
}

/// Checks what a node shows a hub: the blob of a node's host certificate, for one node.
///
/// # Errors
/// The first miss of the checklist.
pub fn node_host(
    cert: &[u8],
    node: &NodeId,
    context: &Context<'_>,
) -> Result<VerifiedNode, VerifyError> {
    let blob = check(cert, &NODE, context)?;
    exact_principal(&blob, &principal::node_host(node, &context.trust.cluster))?;
    Ok(VerifiedNode {
        facts: facts(&blob, &NODE, context)?,
        node: node.clone(),
    })
}

/// Checks what a gateway shows a client: the blob of a gateway's host certificate, for the name that was dialled,
/// in lower case and without a port.
///
/// # Errors
/// The first miss of the checklist.
pub fn gateway_host(
    cert: &[u8],
    name: &str,
    context: &Context<'_>,
) -> Result<VerifiedGateway, VerifyError> {
    let blob = check(cert, &GATEWAY, context)?;
    if blob.principals.is_empty() {
        return Err(VerifyError::PrincipalCount(0));
    }
    if let Some(bad) = blob
        .principals
        .iter()
        .find(|name| !principal::is_host_name(name))
    {
        return Err(VerifyError::PrincipalForm(escaped(bad)));
    }
    if !blob.principals.contains(&name) {
        let found = escaped(&blob.principals.join(", "));
        return Err(VerifyError::WrongPrincipal {
            expected: escaped(name),
            found,
        });
    }
    Ok(VerifiedGateway {
        facts: facts(&blob, &GATEWAY, context)?,
        name: name.to_owned(),
    })
}

/// What the kinds of certificates differ in.
struct Line {
    ring: KeyKind,
    cert_type: u32,
    most: Span,
}

const IDENTITY: Line = Line {
    ring: KeyKind::Identity,
    cert_type: USER,
    most: IDENTITY_CEILING,
};
const SESSION: Line = Line {
    ring: KeyKind::Session,
    cert_type: USER,
    most: SESSION_LIFE,
};
const NODE: Line = Line {
    ring: KeyKind::Node,
    cert_type: HOST,
    most: NODE_LIFE,
};
const GATEWAY: Line = Line {
    ring: KeyKind::Gateway,
    cert_type: HOST,
    most: GATEWAY_LIFE,
};

/// The part of the checklist that all kinds share.
fn check<'a>(cert: &'a [u8], line: &Line, context: &Context<'_>) -> Result<Blob<'a>, VerifyError> {
    let blob = Blob::parse(cert)?;
    check_authority(&blob.authority, line.ring, context)?;
    if !signed_by(&blob.authority, blob.signed, &blob.signature) {
        return Err(VerifyError::BadSignature);
    }
    if blob.cert_type != line.cert_type {
        return Err(VerifyError::WrongType {
            expected: line.cert_type,
            found: blob.cert_type,
        });
    }
    check_window(&blob, line.most, context.now)?;
    check_options(&blob, context)?;
    Ok(blob)
}

fn check_authority(
    key: &[u8; 32],
    ring: KeyKind,
    context: &Context<'_>,
) -> Result<(), VerifyError> {
    let trusts = |keys: &[PublicKey]| {
        keys.iter().any(|known| {
            known
                .key_data()
                .ed25519()
                .is_some_and(|known| known.0 == *key)
        })
    };
    let found: Vec<KeyKind> = context
        .trust
        .rings()
        .into_iter()
        .filter(|(_, keys)| trusts(keys))
        .map(|(kind, _)| kind)
        .collect();
    match found.as_slice() {
        [] => Err(VerifyError::UnknownAuthority(fingerprint(key))),
        [found] if *found == ring => Ok(()),
        [found] => Err(VerifyError::WrongRing {
            expected: ring,
            found: *found,
        }),
        _ => Err(VerifyError::SharedAuthority(fingerprint(key))),
    }
}

/// "valid after <= current time < valid before"; and no longer than this authority issues.
fn check_window(blob: &Blob<'_>, most: Span, now: UnixTime) -> Result<(), VerifyError> {
    let Blob {
        valid_after,
        valid_before,
        ..
    } = *blob;
    let most = most.as_secs() + SKEW.as_secs();
    if valid_before
        .checked_sub(valid_after)
        .is_none_or(|life| life > most)
    {
        return Err(VerifyError::Life {
            valid_after,
            valid_before,
            most,
        });
    }
    if now.as_secs() < valid_after {
        return Err(VerifyError::NotYetValid {
            valid_after: UnixTime::from_secs(valid_after),
            now,
        });
    }
    if now.as_secs() >= valid_before {
        return Err(VerifyError::Expired {
            valid_before: UnixTime::from_secs(valid_before),
            now,
        });
    }
    Ok(())
}

/// Every critical option is honoured or refuses. PROTOCOL.certkeys defines none for hosts.
pub(super) fn check_options(blob: &Blob<'_>, context: &Context<'_>) -> Result<(), VerifyError> {
    for (name, value) in &blob.critical_options {
        match *name {
            "source-address" if blob.cert_type == USER => source::check(value, context.source)?,
            "force-command" => return Err(VerifyError::ForceCommand(escaped(value))),
            other => return Err(VerifyError::CriticalOption(escaped(other))),
        }
    }
    let restriction =
        |name: &str| matches!(name, "force-command" | "source-address" | "verify-required");
    match blob.extensions.iter().find(|(name, _)| restriction(name)) {
        Some((name, _)) => Err(VerifyError::RestrictionAsExtension(escaped(name))),
        None => Ok(()),
    }
}

fn owned_extensions(blob: &Blob<'_>) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, Cow<'_, str>)| ((*name).to_owned(), value.to_string());
    blob.extensions.iter().map(owned).collect()
}

fn only_principal<'a>(blob: &Blob<'a>) -> Result<&'a str, VerifyError> {
    match blob.principals.as_slice() {
        [principal] => Ok(principal),
        other => Err(VerifyError::PrincipalCount(other.len())),
    }
}

fn exact_principal(blob: &Blob<'_>, expected: &str) -> Result<(), VerifyError> {
    let found = only_principal(blob)?;
    if found == expected {
        return Ok(());
    }
    Err(VerifyError::WrongPrincipal {
        expected: expected.to_owned(),
        found: escaped(found),
    })
}

fn parsed_extension<T: std::str::FromStr>(
    blob: &Blob<'_>,
    name: &'static str,
) -> Result<T, VerifyError> {
    let found = blob.extensions.iter().find(|(known, _)| *known == name);
    let (_, value): &(_, Cow<'_, str>) = found.ok_or(VerifyError::MissingExtension(name))?;
    value.parse().map_err(|_| VerifyError::BadExtension {
        name,
        value: escaped(value),
    })
}

/// The last check, revocation, and what is handed on.
fn facts(blob: &Blob<'_>, line: &Line, context: &Context<'_>) -> Result<Facts, VerifyError> {
    let key: &KeyData = &blob.public_key;
    let facts = Facts {
        serial: Serial::from_u64(blob.serial),
        key_id: blob.key_id.to_owned(),
        public_key: PublicKey::from(key.clone()),
        valid_after: UnixTime::from_secs(blob.valid_after),
        valid_before: UnixTime::from_secs(blob.valid_before),
        authority: line.ring,
        authority_key: KeyData::from(Ed25519PublicKey(blob.authority)),
    };
    if (context.revoked)(&facts.revocable()) {
        return Err(VerifyError::Revoked(facts.serial));
    }
    Ok(facts)
}
