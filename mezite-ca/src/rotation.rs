//! Replacing one key of an authority by another while everything runs: `standby → init → update_clients →
//! update_servers → standby`, and back from each.
//!
//! | phase | trusted | signs for clients | signs for servers | goes on when |
//! | --- | --- | --- | --- | --- |
//! | standby | old | old | old | a new key is begun |
//! | init | old, new | old | old | every verifier trusts new; for gateway and host-TLS keys also: who logged in before has logged in again |
//! | update_clients | old, new | new | old | every verifier trusts new |
//! | update_servers | old, new | new | new | every verifier trusts new, every server holds a certificate by new, and what old signed for clients has expired |
//! | rollback | old, new | old | old | the same with old and new exchanged |
//!
//! Identity, session and user-TLS keys sign for clients; gateway, node and host-TLS keys for servers. Adoption is
//! measured: hubs and nodes say which keys they trust and which key signed what they hold, and who lags behind is named.
//! Users' clients check gateways and hubs too, and cannot be asked: they learn the keys when they log in, so a key that
//! they check stays in `init` until every login from before has run out.
//! Nothing here keeps time, stores or tells anybody: a [`Rotation`] is a value, and each step makes another.

mod adoption;
mod stored;

use std::fmt;

use mezite_core::{Span, UnixTime};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use adoption::{Adoption, Lag, Laggard, Party, PartyKind};

use crate::kind::KeyKind;
use crate::signer::{fingerprint, is_sound};
use crate::ssh::{IDENTITY_CEILING, SESSION_LIFE, SKEW};
use crate::tls::PEER_CEILING;
use crate::trust::{GenerationNote, GenerationState, TrustBundle};

/// The keys that are rotated so, in the order in which lists show them: the User CA's, then the Host CA's.
pub const KINDS: [KeyKind; 6] = [
    KeyKind::Identity,
    KeyKind::Session,
    KeyKind::UserTls,
    KeyKind::Gateway,
    KeyKind::Node,
    KeyKind::HostTls,
];

/// How far a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::exhaustive_enums,
    reason = "who shows or decides on a rotation must know every phase"
)]
pub enum Phase {
    /// One key, no rotation.
    Standby,
    /// The new key is told to everybody and signs nothing.
    Init,
    /// The new key signs what clients hold.
    UpdateClients,
    /// The new key signs everything.
    UpdateServers,
    /// The old key signs everything again; what the new one signed is still trusted.
    Rollback,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standby => "standby",
            Self::Init => "init",
            Self::UpdateClients => "update_clients",
            Self::UpdateServers => "update_servers",
            Self::Rollback => "rollback",
        })
    }
}

/// The public half of one generation of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Counts up from 1 and is never used twice, not even after a rollback.
    pub number: u64,
    /// The Ed25519 public key.
    pub public_key: [u8; 32],
    /// A TLS authority's own certificate, DER; `None` for SSH.
    pub certificate: Option<Vec<u8>>,
}

impl Generation {
    /// `SHA256:…` as OpenSSH prints it: how parties name the key when they report.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.public_key)
    }
}

/// Why a rotation did not move.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RotationError {
    /// A TLS key comes with its certificate, an SSH key without, and the certificate is for the key.
    #[error("the new {0} key and its certificate do not belong together")]
    Certificate(KeyKind),
    /// A rotation is under way.
    #[error("the {kind} key is being rotated already (phase {phase}): finish it or roll it back")]
    InProgress {
        /// Which key.
        kind: KeyKind,
        /// How far it is.
        phase: Phase,
    },
    /// Keys of this kind are not rotated so.
    #[error("the {0} key is not rotated in phases")]
    Kind(KeyKind),
    /// The key is no usable Ed25519 key, or one that this rotation has seen.
    #[error("the key {0} cannot be the new one: it is in use, or it is not a sound key")]
    Key(String),
    /// Somebody would be cut off.
    #[error("{0}")]
    NotAdopted(Adoption),
    /// No rotation is under way.
    #[error("the {0} key is not being rotated")]
    Standby(KeyKind),
    /// A generation's number is not the next.
    #[error("the new generation has the number {found}, and {expected} is the next")]
    Number {
        /// The next number.
        expected: u64,
        /// The number given.
        found: u64,
    },
    /// It is being rolled back: there is one way only.
    #[error("the rotation of the {0} key is being rolled back already: let it finish")]
    RollingBack(KeyKind),
    /// What was stored is no state of this machine.
    #[error("the stored rotation is not one that this machine wrote: {0}")]
    Stored(&'static str),
}

/// Whether a step is taken although somebody would be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "it is forced or not")]
pub enum Force {
    /// The step is refused, and who lags behind is named.
    No,
    /// The step is taken, and who was cut off is named.
    Yes,
}

/// A step that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the step takes effect when it is stored"]
pub struct Advanced {
    /// What to store.
    pub rotation: Rotation,
    /// Who was passed over: complete unless the step was forced.
    pub despite: Adoption,
}

/// One key's rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    kind: KeyKind,
    phase: Phase,
    /// The only one in standby.
    old: Generation,
    /// There unless in standby.
    new: Option<Generation>,
    since: UnixTime,
    /// When signing passed from one generation to the other.
    switched: UnixTime,
    /// The highest number ever used.
    highest: u64,
}

impl Rotation {
    /// A key that is not being rotated.
    ///
    /// # Errors
    /// [`RotationError::Kind`], [`RotationError::Key`], [`RotationError::Certificate`].
    pub fn standby(
        kind: KeyKind,
        active: Generation,
        now: UnixTime,
    ) -> Result<Self, RotationError> {
        side(kind)?;
        check_generation(kind, &active)?;
        Ok(Self {
            kind,
            phase: Phase::Standby,
            highest: active.number,
            old: active,
            new: None,
            since: now,
            switched: now,
        })
    }

    /// Which key.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// How far it is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// When the phase began.
    #[must_use]
    pub const fn since(&self) -> UnixTime {
        self.since
    }

    /// The number that a new generation must have.
    #[must_use]
    pub const fn next_number(&self) -> u64 {
        self.highest.saturating_add(1)
    }

    /// The generation that signs now. A generation in `init` never does.
    #[must_use]
    pub fn signing(&self) -> &Generation {
        match &self.new {
            Some(new) if self.new_signs() => new,
            _ => &self.old,
        }
    }

    /// Every generation that is to be trusted, the signing one first.
    #[must_use]
    pub fn trusted(&self) -> Vec<(GenerationState, &Generation)> {
        let Some(new) = &self.new else {
            return vec![(GenerationState::Active, &self.old)];
        };
        if self.new_signs() {
            vec![
                (GenerationState::Active, new),
                (GenerationState::Retiring, &self.old),
            ]
        } else if self.phase == Phase::Rollback {
            vec![
                (GenerationState::Active, &self.old),
                (GenerationState::Retiring, new),
            ]
        } else {
            vec![
                (GenerationState::Active, &self.old),
                (GenerationState::Next, new),
            ]
        }
    }

    /// Writes this key's ring into a bundle, and the notes on its generations while there are two.
    pub fn write_to(&self, bundle: &mut TrustBundle) {
        let trusted = self.trusted();
        let ssh = || {
            trusted
                .iter()
                .map(|(_, generation)| crate::openssh::public_key(generation.public_key))
                .collect()
        };
        let tls = || {
            trusted
                .iter()
                .filter_map(|(_, generation)| generation.certificate.clone())
                .collect()
        };
        match self.kind {
            KeyKind::Identity => bundle.identity = ssh(),
            KeyKind::Session => bundle.session = ssh(),
            KeyKind::Gateway => bundle.gateway = ssh(),
            KeyKind::Node => bundle.node = ssh(),
            KeyKind::UserTls => bundle.user_tls = tls(),
            KeyKind::HostTls => bundle.host_tls = tls(),
            KeyKind::Audit | KeyKind::BreakGlass | KeyKind::Recording => {}
        }
        bundle.generations.retain(|note| note.kind != self.kind);
        if self.new.is_some() {
            let notes = trusted.iter().map(|(state, generation)| GenerationNote {
                kind: self.kind,
                number: generation.number,
                state: *state,
                fingerprint: generation.fingerprint(),
            });
            bundle.generations.extend(notes);
        }
    }

    /// Begins: standby → init.
    ///
    /// # Errors
    /// [`RotationError::InProgress`], [`RotationError::Number`], [`RotationError::Key`], [`RotationError::Certificate`].
    pub fn begin(&self, new: Generation, now: UnixTime) -> Result<Self, RotationError> {
        if self.phase != Phase::Standby {
            return Err(RotationError::InProgress {
                kind: self.kind,
                phase: self.phase,
            });
        }
        let expected = self.next_number();
        if new.number != expected {
            return Err(RotationError::Number {
                expected,
                found: new.number,
            });
        }
        check_generation(self.kind, &new)?;
        if new.public_key == self.old.public_key {
            return Err(RotationError::Key(new.fingerprint()));
        }
        Ok(Self {
            phase: Phase::Init,
            new: Some(new),
            since: now,
            highest: expected,
            ..self.clone()
        })
    }

    /// Takes the next step, if nobody would be cut off by it or it is forced.
    ///
    /// # Errors
    /// [`RotationError::Standby`], [`RotationError::NotAdopted`].
    pub fn advance(
        &self,
        parties: &[Party],
        now: UnixTime,
        force: Force,
    ) -> Result<Advanced, RotationError> {
        let next = match self.phase {
            Phase::Standby => return Err(RotationError::Standby(self.kind)),
            Phase::Init => Phase::UpdateClients,
            Phase::UpdateClients => Phase::UpdateServers,
            Phase::UpdateServers | Phase::Rollback => Phase::Standby,
        };
        let despite = self.adoption(parties, now);
        if force == Force::No && !despite.is_complete() {
            return Err(RotationError::NotAdopted(despite));
        }
        Ok(Advanced {
            rotation: self.enter(next, now),
            despite,
        })
    }

    /// Goes back: the old key signs again. If the new one has signed anything, what it signed stays trusted in the phase
    /// [`Phase::Rollback`]; if it has not, this is standby at once.
    ///
    /// # Errors
    /// [`RotationError::Standby`], [`RotationError::RollingBack`].
    pub fn rollback(&self, now: UnixTime) -> Result<Self, RotationError> {
        match self.phase {
            Phase::Standby => Err(RotationError::Standby(self.kind)),
            Phase::Rollback => Err(RotationError::RollingBack(self.kind)),
            Phase::Init | Phase::UpdateClients | Phase::UpdateServers => {
                let signed = self.new_signs();
                let back = if signed {
                    Phase::Rollback
                } else {
                    Phase::Standby
                };
                Ok(self.enter(back, now))
            }
        }
    }

    fn enter(&self, phase: Phase, now: UnixTime) -> Self {
        let mut next = Self {
            phase,
            since: now,
            ..self.clone()
        };
        if phase == Phase::Standby {
            let new = next.new.take();
            if let (Phase::UpdateServers, Some(new)) = (self.phase, new) {
                next.old = new;
            }
        }
        if next.signing() != self.signing() {
            next.switched = now;
        }
        next
    }

    fn new_signs(&self) -> bool {
        let clients = side(self.kind) == Ok(Side::Clients);
        match self.phase {
            Phase::UpdateServers => true,
            Phase::UpdateClients => clients,
            Phase::Standby | Phase::Init | Phase::Rollback => false,
        }
    }

    /// How long a client that logged in before a new key was told to anybody can go on without it.
    fn untold(&self) -> Option<Span> {
        match self.kind {
            KeyKind::Gateway | KeyKind::HostTls => Some(Span::from_millis(
                IDENTITY_CEILING.as_millis() + SKEW.as_millis(),
            )),
            KeyKind::Audit
            | KeyKind::BreakGlass
            | KeyKind::Identity
            | KeyKind::Node
            | KeyKind::Recording
            | KeyKind::Session
            | KeyKind::UserTls => None,
        }
    }

    /// How long what a generation signed for clients can still be shown after it stopped signing.
    fn remains(&self) -> Option<Span> {
        let life = match self.kind {
            KeyKind::Identity => IDENTITY_CEILING,
            KeyKind::Session => SESSION_LIFE,
            KeyKind::UserTls => PEER_CEILING,
            KeyKind::Audit
            | KeyKind::BreakGlass
            | KeyKind::Gateway
            | KeyKind::HostTls
            | KeyKind::Node
            | KeyKind::Recording => return None,
        };
        Some(Span::from_millis(life.as_millis() + SKEW.as_millis()))
    }
}

/// For whom a kind of key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Clients,
    Servers,
}

fn side(kind: KeyKind) -> Result<Side, RotationError> {
    match kind {
        KeyKind::Identity | KeyKind::Session | KeyKind::UserTls => Ok(Side::Clients),
        KeyKind::Gateway | KeyKind::HostTls | KeyKind::Node => Ok(Side::Servers),
        KeyKind::Audit | KeyKind::BreakGlass | KeyKind::Recording => Err(RotationError::Kind(kind)),
    }
}

fn check_generation(kind: KeyKind, generation: &Generation) -> Result<(), RotationError> {
    if !is_sound(&generation.public_key) {
        return Err(RotationError::Key(generation.fingerprint()));
    }
    let tls = matches!(kind, KeyKind::HostTls | KeyKind::UserTls);
    let fits = match &generation.certificate {
        Some(der) => {
            tls && crate::verify::Root::parse_self_signed(der)
                .is_ok_and(|root| root.public_key == generation.public_key)
        }
        None => !tls,
    };
    if fits {
        Ok(())
    } else {
        Err(RotationError::Certificate(kind))
    }
}
