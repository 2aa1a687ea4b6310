//! Replacing the key that signs checkpoints. Nobody has to adopt the new one first: the old key names it in the log, and
//! who trusts the one trusts the other (`mezite_audit::handover`).

use mezite_audit::catalogue::AuditKeyRotated;
use mezite_audit::handover::{self, Handover};
use mezite_audit::keeper::{CHECKPOINT, HEAD};
use mezite_ca::{KeyKind, Signer as _};
use mezite_core::store::{Commit, Expect, LogQuery};
use mezite_rbac::{Resource, Verb};
use serde::Deserialize;

use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;
use crate::keys::{AuditKey, Made};
use crate::log::{corrupt, signed};
use crate::record::{self, AuditGeneration};

/// How often it is tried while the log's keeper moves the head at the same moment.
const ATTEMPTS: usize = 16;

/// Most rotations that are read at once.
const PAGE: usize = 1000;

/// The audit key after it was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RotatedAuditKey {
    /// Counts up from 1.
    pub generation: u64,
    /// The Ed25519 public key.
    pub public_key: [u8; 32],
    /// The same as auditors are given it.
    pub line: String,
}

/// What an event of a rotation says.
#[derive(Deserialize)]
struct Told {
    old_key: String,
    new_key: String,
    handover: String,
}

impl Auth {
    /// Replaces the audit key. One commit has the event, the sealed new key, the removal of the old private key, and the
    /// old key's last checkpoint, which names the new one: a hub that dies on the way has done all of it or nothing.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::Conflict`] when somebody else replaced it at the same moment; [`Error::Unavailable`].
    pub async fn rotate_audit_key(&self, actor: &Actor) -> Result<RotatedAuditKey, Error> {
        self.guard(actor, Resource::Ca, Verb::Update, None).await?;
        let next = self.audit_key().await?.generation.saturating_add(1);
        // Sealing can take a second, in which the keeper moves on: it is done once.
        let made = self
            .key_store()
            .make(KeyKind::Audit, next, self.now())
            .await?;
        for _ in 0..ATTEMPTS {
            match self.try_rotate_audit_key(actor, &made).await {
                Err(Error::Conflict) => {}
                outcome => return outcome,
            }
        }
        Err(Error::Conflict)
    }

    async fn try_rotate_audit_key(
        &self,
        actor: &Actor,
        made: &Made,
    ) -> Result<RotatedAuditKey, Error> {
        let Made {
            generation,
            sealed,
            signer,
        } = made;
        self.keep_log().await?;
        // In this order, as the keeper does it: whoever signs at the same moment with the old key is in conflict.
        let (stored, head) = self.head().await?;
        let (revision, signs) = self.key_store().audit_generation().await?;
        let old = self.audit_key().await?;
        if signs.generation != old.generation || generation.number != old.generation + 1 {
            return Err(Error::Conflict);
        }
        let handover = Handover {
            last: head.checkpoint(self.log_origin()),
            old: self.note_key(&old.key.public_key())?,
            new: self.note_key(&generation.public_key)?,
        };
        let body = handover.body();
        let note = handover
            .finish(&signed(&*old.key, &body)?, &signed(&**signer, &body)?)
            .map_err(corrupt)?;
        let (old_line, line) = (handover.old.to_line(), handover.new.to_line());
        let event = self.tell().event(|stamp| {
            AuditKeyRotated {
                user_name: actor.name(),
                client_ip: actor.source(),
                generation: generation.number,
                old_key: &old_line,
                new_key: &line,
                handover: &handover::field(&note),
            }
            .event(stamp)
        });
        let signs = AuditGeneration {
            generation: generation.number,
        };
        let (head_was, signs_was) = (
            stored.map_or(Expect::Absent, |stored| Expect::Revision(stored.revision)),
            revision.map_or(Expect::Absent, Expect::Revision),
        );
        let commit = Commit::new(event)
            .put(
                record::rotation_key(KeyKind::Audit)?,
                signs_was,
                record::write(&signs)?,
            )
            .put(
                record::ca_key(KeyKind::Audit, generation.number)?,
                Expect::Absent,
                record::write(sealed)?,
            )
            .remove(record::ca_key(KeyKind::Audit, old.generation)?, Expect::Any)
            .and_log_keeping(HEAD, head_was, head.write())
            .and_then(|commit| commit.and_log_keeping(CHECKPOINT, Expect::Any, note.into_bytes()))
            .map_err(corrupt)?;
        self.commit(commit).await?;
        Ok(RotatedAuditKey {
            generation: generation.number,
            public_key: generation.public_key,
            line,
        })
    }

    /// The audit key that signs by what the store says now: this hub may not have heard of a rotation yet.
    pub(crate) async fn audit_key(&self) -> Result<AuditKey, Error> {
        let (_, signs) = self.key_store().audit_generation().await?;
        let mut keys = self.keys();
        if keys.audit.generation != signs.generation {
            keys = self.newest_keys().await?;
        }
        if keys.audit.generation == signs.generation {
            Ok(keys.audit.clone())
        } else {
            Err(Error::Conflict)
        }
    }

    /// Every audit key that there was, the one that signs now last, and the checkpoints with which they handed over.
    pub(crate) async fn audit_keys(&self) -> Result<(Vec<[u8; 32]>, Vec<String>), Error> {
        let (mut keys, mut notes) = (Vec::new(), Vec::new());
        let query = LogQuery {
            event_type: Some(AuditKeyRotated::TYPE.to_owned()),
            ..LogQuery::after(0, PAGE)
        };
        for event in self.store().log(&query).await? {
            let told: Told = serde_json::from_slice(&event.body).map_err(corrupt)?;
            let handover = Handover::from_event(&told.old_key, &told.new_key, &told.handover);
            let handover = handover.map_err(corrupt)?;
            if keys.is_empty() {
                keys.push(handover.old.public_key());
            }
            keys.push(handover.new.public_key());
            notes.push(handover::note(&told.handover).map_err(corrupt)?);
        }
        if keys.is_empty() {
            keys.push(self.audit_key().await?.key.public_key());
        }
        Ok((keys, notes))
    }
}
