//! Replacing the authorities' keys, step by step: who may, what is stored, what is told. The steps themselves are
//! [`mezite_ca::rotation`].

use std::collections::BTreeMap;

use mezite_api::request::{RotateKey, RotationStep};
use mezite_ca::KeyKind;
use mezite_ca::rotation::{
    Adoption, Force, KINDS, Lag, Laggard, Party, PartyKind, Phase, Rotation, RotationError,
};
use mezite_core::store::{Commit, Expect};
use mezite_rbac::{Resource, Verb};

use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;
use crate::keys::{Made, StoredRotation};
use crate::record::{self, Adopted, Node, prefix};

/// How far one key is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RotationStatus {
    /// Phase and generations.
    pub rotation: Rotation,
    /// Who would be cut off by the next step.
    pub adoption: Adoption,
    /// The same laggards, each with what helps.
    pub behind: Vec<Behind>,
}

/// Somebody who lags behind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Behind {
    /// Who, and why.
    pub laggard: Laggard,
    /// What an operator can do about it.
    pub hint: String,
}

/// A step that was taken, for its event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken<'a> {
    pub(crate) step: RotationStep,
    pub(crate) before: &'a Rotation,
    pub(crate) after: &'a Rotation,
    /// Who was passed over, in words.
    pub(crate) passed_over: &'a [String],
}

impl Auth {
    /// How far each key's rotation is, and who lags behind.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unavailable`].
    pub async fn rotations(&self, actor: &Actor) -> Result<Vec<RotationStatus>, Error> {
        self.guard(actor, Resource::Ca, Verb::Read, None).await?;
        let parties = self.parties().await?;
        let mut found = Vec::new();
        for kind in KINDS {
            let stored = self.key_store().rotation(kind).await?;
            found.push(self.status(stored.rotation, &parties));
        }
        Ok(found)
    }

    /// Takes one step in the rotation of one key. The new private key is made and sealed in the same commit that begins,
    /// the old one is removed in the commit that ends it.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotAdopted`] names who would be cut off; [`Error::Rotation`] when this is not the
    /// step to take; [`Error::Conflict`] when somebody else took one at the same moment; [`Error::Unavailable`].
    pub async fn rotate(&self, actor: &Actor, wanted: RotateKey) -> Result<RotationStatus, Error> {
        self.guard(actor, Resource::Ca, Verb::Update, None).await?;
        let now = self.now();
        let stored = self.key_store().rotation(wanted.kind).await?;
        let before = &stored.rotation;
        let mut made: Option<Made> = None;
        let mut passed_over = Vec::new();
        let after = match wanted.step {
            RotationStep::Begin => {
                if before.phase() != Phase::Standby {
                    return Err(Error::Rotation(RotationError::InProgress {
                        kind: wanted.kind,
                        phase: before.phase(),
                    }));
                }
                let number = before.next_number();
                let new = self.key_store().make(wanted.kind, number, now).await?;
                let begun = before.begin(new.generation.clone(), now)?;
                made = Some(new);
                begun
            }
            RotationStep::Advance(force) => {
                let parties = self.parties().await?.of(wanted.kind);
                let advanced = before.advance(&parties, now, force)?;
                passed_over = words(&advanced.despite);
                advanced.rotation
            }
            RotationStep::Rollback => before.rollback(now)?,
        };
        let taken = Taken {
            step: wanted.step,
            before,
            after: &after,
            passed_over: &passed_over,
        };
        let commit = self.commit_of(actor, &stored, &taken, made)?;
        self.commit(commit).await?;
        // At once, so that whoever looks next does not find this very hub behind.
        self.hub_adopts().await?;
        Ok(self.status(after, &self.parties().await?))
    }

    fn commit_of(
        &self,
        actor: &Actor,
        stored: &StoredRotation,
        taken: &Taken<'_>,
        made: Option<Made>,
    ) -> Result<Commit, Error> {
        let kind = taken.after.kind();
        let expect = stored.revision.map_or(Expect::Absent, Expect::Revision);
        let mut commit = Commit::new(self.tell().rotation(actor, taken)).put(
            stored.key.clone(),
            expect,
            record::write(taken.after)?,
        );
        if let Some(made) = made {
            let Made {
                generation, sealed, ..
            } = made;
            let key = record::ca_key(kind, generation.number)?;
            commit = commit.put(key, Expect::Absent, record::write(&sealed)?);
        }
        if let Some(number) = taken.removed() {
            commit = commit.remove(record::ca_key(kind, number)?, Expect::Any);
        }
        Ok(commit)
    }

    fn status(&self, rotation: Rotation, parties: &Parties) -> RotationStatus {
        let adoption = rotation.adoption(&parties.of(rotation.kind()), self.now());
        let behind = adoption.laggards.iter().map(|laggard| Behind {
            laggard: laggard.clone(),
            hint: self.hint(laggard, parties),
        });
        RotationStatus {
            behind: behind.collect(),
            rotation,
            adoption,
        }
    }

    /// What helps somebody who lags behind.
    fn hint(&self, laggard: &Laggard, parties: &Parties) -> String {
        let name = &laggard.name;
        let node = parties
            .nodes
            .iter()
            .find(|(node, _)| node.name.as_str() == name);
        let Some((node, _)) = node else {
            return "it has lost the database or died: start it again, or stop it in order; a hub that has stopped does \
                    not count"
                .to_owned();
        };
        match (&node.address, laggard.lag) {
            (Some(_), Lag::DoesNotTrust) => format!(
                "write `mezctl ca export --format user-ca` to the file that its TrustedUserCAKeys names, then say \
                 `mezctl ca adopted {name}`"
            ),
            (Some(_), _) => format!(
                "sign its host key again with `mezctl ca sign-host {name}`, and reload its sshd; a hub looks every 15 s"
            ),
            (None, _) if !self.is_online(&node.id) => format!(
                "its agent is not connected to this hub: start it, or remove the node with `mezctl rm node/{name}`"
            ),
            (None, Lag::DoesNotTrust) => {
                "its agent is connected and was told: if it stays so, see the agent's log"
                    .to_owned()
            }
            (None, _) => "its agent renews by itself; in mode openssh reload its sshd".to_owned(),
        }
    }

    async fn parties(&self) -> Result<Parties, Error> {
        let hubs = self.notes(prefix::ADOPTED_HUB).await?;
        let mut told = self.notes(prefix::ADOPTED_NODE).await?;
        let snapshot = self.snapshot();
        let nodes = snapshot.nodes().map(|node| {
            let adopted = told.remove(node.id.as_str()).unwrap_or_default();
            (node.clone(), adopted)
        });
        Ok(Parties {
            nodes: nodes.collect(),
            hubs,
        })
    }
}

/// Everybody who takes part, with what is known of them.
struct Parties {
    hubs: BTreeMap<String, Adopted>,
    nodes: Vec<(Node, Adopted)>,
}

impl Parties {
    /// As the rotation of one key sees them.
    fn of(&self, key: KeyKind) -> Vec<Party> {
        let party = |kind, name: &str, adopted: &Adopted| Party {
            kind,
            name: name.to_owned(),
            trusts: adopted.trusts.get(&key).cloned().unwrap_or_default(),
            holds: adopted.holds.get(&key).cloned(),
        };
        let hubs = self
            .hubs
            .iter()
            .map(|(name, adopted)| party(PartyKind::Hub, name, adopted));
        // A node with nothing but a stock sshd speaks no TLS.
        let concerned = |node: &Node| node.address.is_none() || key != KeyKind::HostTls;
        let nodes = self
            .nodes
            .iter()
            .filter(|(node, _)| concerned(node))
            .map(|(node, adopted)| party(PartyKind::Node, node.name.as_str(), adopted));
        hubs.chain(nodes).collect()
    }
}

impl Taken<'_> {
    /// The generation that is trusted no more, whose private key goes.
    pub(crate) fn removed(&self) -> Option<u64> {
        let numbers = |rotation: &Rotation| {
            let trusted = rotation.trusted();
            trusted
                .iter()
                .map(|(_, generation)| generation.number)
                .collect::<Vec<_>>()
        };
        let stays = numbers(self.after);
        numbers(self.before)
            .into_iter()
            .find(|number| !stays.contains(number))
    }

    pub(crate) fn forced(&self) -> bool {
        self.step == RotationStep::Advance(Force::Yes)
    }
}

/// Who was passed over, one sentence each.
fn words(despite: &Adoption) -> Vec<String> {
    let mut words: Vec<String> = despite.laggards.iter().map(Laggard::to_string).collect();
    words.extend(
        despite
            .until
            .map(|until| format!("certificates by the other key until {until}")),
    );
    words.extend(
        despite
            .logins_until
            .map(|until| format!("logins from before the rotation until {until}")),
    );
    words
}
