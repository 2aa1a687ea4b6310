//! Break-glass at the hub: which offline keys the nodes trust, and what the nodes report of their use. The private halves
//! never were here.

use mezite_api::document::Document;
use mezite_api::revocation::{BreakGlassMetadata, BreakGlassSpec};
use mezite_core::store::{Commit, Expect, Key, StoreError, Versioned};
use mezite_core::{EventId, Login, NodeId, RoleName, Serial, Span, UnixTime};
use mezite_rbac::{Resource, Verb};
use serde::{Deserialize, Serialize};
use ssh_key::HashAlg;

use crate::actor::Actor;
use crate::admin::Shown;
use crate::auth::Auth;
use crate::error::Error;
use crate::live;
use crate::record::{self, BreakGlassKey, prefix};

/// Most break-glass keys at a time. A few people hold one; more are more to lose.
pub const MAX_BREAK_GLASS_KEYS: usize = 16;

/// How long the mark of a use is kept. A node tells a use at each connection until it hears that it is in the log; one that
/// lost the answer and then was away for longer makes a second event, with the same id of the use: twice told is better
/// than never, and marks do not pile up.
const REMEMBERED: Span = Span::from_secs(30 * 24 * 60 * 60);

/// `break-glass-use/<node>/<report>`: when this hub wrote it down.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    noted: UnixTime,
}

/// What a node tells of one use, as it wrote it down before it let anybody in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the composition root fills it")]
pub struct BreakGlassReport {
    /// Drawn by the node: the same use has the same id however often it is told.
    pub id: EventId,
    /// When, by the node's clock.
    pub at: UnixTime,
    /// As which account.
    pub login: Login,
    /// Who served: `builtin` or `openssh`.
    pub mode: String,
    /// Of the certificate.
    pub serial: Serial,
    /// Of the certificate: whatever its maker wrote.
    pub key_id: String,
    /// Fingerprint of the certified key.
    pub key: String,
    /// Fingerprint of the break-glass key.
    pub authority: String,
    /// Where the client was, if the node knew.
    pub source: Option<std::net::IpAddr>,
}

impl Auth {
    /// Makes a node's report of one break-glass use an event, once.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a node that was removed, [`Error::Unavailable`]: the node keeps it and tells it again.
    pub async fn break_glass_used(
        &self,
        node: &NodeId,
        report: &BreakGlassReport,
    ) -> Result<(), Error> {
        let (_, node) = self.stored_node(node).await?;
        let key = record::key(
            prefix::BREAK_GLASS_USE,
            &format!("{}/{}", node.id, report.id),
        )?;
        let event = self.tell().break_glass_used(&node, report);
        // The mark stays for a while, so that an answer that was lost does not make two events of one use.
        let mark = record::write(&Mark { noted: self.now() })?;
        let mut commit = Commit::new(event).put(key, Expect::Absent, mark);
        for old in self.old_marks(&node.id).await? {
            commit = commit.remove(old, Expect::Any);
        }
        match self.commit(commit).await {
            Ok(_) | Err(StoreError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The marks of a node that no report can come for any more.
    async fn old_marks(&self, node: &NodeId) -> Result<Vec<Key>, Error> {
        let forgotten = self.now().minus(REMEMBERED);
        let mut old = Vec::new();
        for (key, stored) in self.marks(node).await? {
            if record::read::<Mark>(&key, &stored)?.noted < forgotten {
                old.push(key);
            }
        }
        Ok(old)
    }

    /// The marks of all uses that a node has told.
    pub(crate) async fn marks(&self, node: &NodeId) -> Result<Vec<(Key, Versioned)>, Error> {
        live::all(self.store(), &format!("{}{node}/", prefix::BREAK_GLASS_USE)).await
    }

    /// Makes nodes trust an offline key, or replaces nothing: a name and a key are taken once.
    pub(crate) async fn apply_break_glass(
        &self,
        actor: &Actor,
        document: Document<BreakGlassMetadata, BreakGlassSpec>,
    ) -> Result<(Shown, bool), Error> {
        self.guard(actor, Resource::Ca, Verb::Create, None).await?;
        let name = document.metadata.name;
        // Bounded like a role's.
        name.parse::<RoleName>()
            .map_err(|error| Error::Document(error.to_string()))?;
        let key = BreakGlassKey {
            name,
            public_key: document.spec.public_key,
        };
        self.check_break_glass(&key).await?;
        let place = record::key(prefix::BREAK_GLASS, &key.name)?;
        let event = self.tell().break_glass_added(actor, &key);
        let commit = Commit::new(event).put(place, Expect::Absent, record::write(&key)?);
        match self.commit(commit).await {
            Ok(_) => Ok((show(key), true)),
            Err(StoreError::Conflict(_)) => Err(Error::exists("break-glass key", &key.name)),
            Err(error) => Err(error.into()),
        }
    }

    async fn check_break_glass(&self, key: &BreakGlassKey) -> Result<(), Error> {
        let public = key.public_key.key();
        if public.key_data().ed25519().is_none() {
            return Err(Error::Unfit(format!(
                "a break-glass key is an Ed25519 key, not `{}`: make one with `ssh-keygen -t ed25519`",
                public.algorithm()
            )));
        }
        // A key in two rings would close both: every verifier refuses it.
        let print = public.fingerprint(HashAlg::Sha256).to_string();
        let trust = self.trust();
        if let Some(kind) = mezite_ca::KeyKind::ALL
            .into_iter()
            .find(|kind| trust.fingerprints(*kind).contains(&print))
        {
            return Err(Error::Unfit(format!(
                "this is the key of the {kind} authority, which no hub gives away: use a key of its own"
            )));
        }
        self.check_key(public)?;
        let found = live::all(self.store(), prefix::BREAK_GLASS).await?;
        if found.len() >= MAX_BREAK_GLASS_KEYS {
            return Err(Error::Unfit(format!(
                "there are {MAX_BREAK_GLASS_KEYS} break-glass keys already: revoke one first"
            )));
        }
        for (place, stored) in &found {
            let other: BreakGlassKey = record::read(place, stored)?;
            if other.public_key == key.public_key {
                return Err(Error::exists("break-glass key", &other.name));
            }
        }
        Ok(())
    }

    pub(crate) fn remove_break_glass(
        &self,
        actor: &Actor,
        place: &Key,
        stored: &Versioned,
    ) -> Result<Commit, Error> {
        let key: BreakGlassKey = record::read(place, stored)?;
        Ok(Commit::new(self.tell().break_glass_removed(actor, &key)))
    }
}

pub(crate) fn show(key: BreakGlassKey) -> Shown {
    let metadata = BreakGlassMetadata {
        name: key.name.clone(),
    };
    let spec = BreakGlassSpec {
        public_key: key.public_key,
    };
    Shown {
        kind: "break_glass",
        name: key.name,
        document: serde_json::json!(Document::v1("break_glass", metadata, spec)),
    }
}
