//! Who would be cut off by the next step.

use std::collections::BTreeSet;
use std::fmt;

use mezite_core::UnixTime;

use super::{Phase, Rotation};
use crate::kind::{KeyKind, escaped};

/// Most names that a message lists.
const MOST_NAMED: usize = 10;

/// What takes part in a rotation and can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "users cannot be asked; bots come and go"
)]
pub enum PartyKind {
    /// A hub.
    Hub,
    /// A node.
    Node,
}

impl fmt::Display for PartyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hub => "hub",
            Self::Node => "node",
        })
    }
}

/// What a hub or node last said. One that said nothing trusts nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Hub or node.
    pub kind: PartyKind,
    /// Its name.
    pub name: String,
    /// The fingerprints of the keys that it trusts in the ring of the rotated key.
    pub trusts: BTreeSet<String>,
    /// The fingerprint of the key that signed the certificate of this kind that it holds, if it holds one.
    pub holds: Option<String>,
}

/// Why somebody would be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "a party trusts and holds, no more")]
pub enum Lag {
    /// It does not trust the key that is to stay.
    DoesNotTrust,
    /// What it holds is not signed by the key that is to stay.
    HoldsOther,
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DoesNotTrust => "does not trust it yet",
            Self::HoldsOther => "holds no certificate by it yet",
        })
    }
}

/// Somebody who would be cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laggard {
    /// Hub or node.
    pub kind: PartyKind,
    /// Its name.
    pub name: String,
    /// Why.
    pub lag: Lag,
}

impl fmt::Display for Laggard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}` {}", self.kind, escaped(&self.name), self.lag)
    }
}

/// How far the key that is to stay was adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The fingerprint of the key that is to stay.
    pub fingerprint: String,
    /// How many hubs and nodes count for this key.
    pub parties: usize,
    /// Who lags behind.
    pub laggards: Vec<Laggard>,
    /// When the last certificate that the other key signed for a client has expired, if that is not over.
    pub until: Option<UnixTime>,
    /// When the last login from before the key was told to anybody has ended, if that is not over: until then some
    /// clients know only the other key.
    pub logins_until: Option<UnixTime>,
}

impl Adoption {
    /// Whether nobody would be cut off.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.laggards.is_empty() && self.until.is_none() && self.logins_until.is_none()
    }
}

impl fmt::Display for Adoption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.fingerprint;
        if self.is_complete() {
            return write!(
                f,
                "the key {key} is adopted by all {} parties",
                self.parties
            );
        }
        write!(f, "the key {key} is not adopted by everybody")?;
        for (at, laggard) in self.laggards.iter().take(MOST_NAMED).enumerate() {
            write!(f, "{} {laggard}", if at == 0 { ":" } else { ";" })?;
        }
        if self.laggards.len() > MOST_NAMED {
            write!(f, "; and {} more", self.laggards.len() - MOST_NAMED)?;
        }
        if let Some(until) = self.until {
            write!(f, "; certificates by the other key are valid until {until}")?;
        }
        if let Some(until) = self.logins_until {
            write!(
                f,
                "; users who logged in before it was made know only the other key until {until}"
            )?;
        }
        f.write_str(" (who goes on with --force cuts them off)")
    }
}

impl Rotation {
    /// Who would be cut off by the next step. In standby, and by a rollback, nobody is.
    #[must_use]
    pub fn adoption(&self, parties: &[Party], now: UnixTime) -> Adoption {
        let stays = match (self.phase, &self.new) {
            (Phase::Rollback | Phase::Standby, _) | (_, None) => &self.old,
            (_, Some(new)) => new,
        };
        let fingerprint = stays.fingerprint();
        // Only the last step takes the other key's trust away.
        let last = matches!(self.phase, Phase::UpdateServers | Phase::Rollback);
        let (verifiers, holders) = (verifiers(self.kind), holders(self.kind));
        let concerned = |party: &&Party| {
            self.phase != Phase::Standby
                && (verifiers.contains(&party.kind) || holders.contains(&party.kind))
        };
        let laggards = parties.iter().filter(concerned).filter_map(|party| {
            let trusts = party.trusts.contains(&fingerprint);
            let holds = party.holds.as_ref() == Some(&fingerprint);
            let lag = if verifiers.contains(&party.kind) && !trusts {
                Lag::DoesNotTrust
            } else if last && holders.contains(&party.kind) && !holds {
                Lag::HoldsOther
            } else {
                return None;
            };
            Some(Laggard {
                kind: party.kind,
                name: party.name.clone(),
                lag,
            })
        });
        let over = self.remains().map(|span| self.switched.plus(span));
        let told = self.untold().map(|span| self.since.plus(span));
        Adoption {
            laggards: laggards.collect(),
            parties: parties.iter().filter(concerned).count(),
            until: over.filter(|over| last && now < *over),
            logins_until: told.filter(|told| self.phase == Phase::Init && now < *told),
            fingerprint,
        }
    }
}

/// Who checks what a key signs and can be asked. Users' clients check gateways and hubs too: [`Rotation::untold`].
const fn verifiers(kind: KeyKind) -> &'static [PartyKind] {
    match kind {
        KeyKind::Session => &[PartyKind::Node],
        KeyKind::HostTls => &[PartyKind::Hub, PartyKind::Node],
        KeyKind::Gateway | KeyKind::Identity | KeyKind::Node | KeyKind::UserTls => {
            &[PartyKind::Hub]
        }
        KeyKind::Audit | KeyKind::BreakGlass | KeyKind::Recording => &[],
    }
}

/// Who holds what a key signs for servers.
const fn holders(kind: KeyKind) -> &'static [PartyKind] {
    match kind {
        KeyKind::Gateway => &[PartyKind::Hub],
        KeyKind::Node => &[PartyKind::Node],
        KeyKind::HostTls => &[PartyKind::Hub, PartyKind::Node],
        KeyKind::Audit
        | KeyKind::BreakGlass
        | KeyKind::Identity
        | KeyKind::Recording
        | KeyKind::Session
        | KeyKind::UserTls => &[],
    }
}
