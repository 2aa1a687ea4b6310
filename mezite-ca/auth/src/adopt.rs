//! Who has adopted which keys: what hubs and agents tell of themselves, what a hub has measured, what an operator
//! states. A note is written, with its event, only when it says something new.

use std::collections::{BTreeMap, BTreeSet};

use mezite_ca::KeyKind;
use mezite_ca::rotation::{KINDS, Phase};
use mezite_core::store::{Commit, Expect, Key, StoreError};
use mezite_core::{NodeId, NodeName};
use mezite_rbac::{Resource, Verb};
use ssh_key::{Certificate, HashAlg, PublicKey};

use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;
use crate::live;
use crate::record::{self, Adopted, Node, prefix};
use crate::session::Permit;

/// Most keys of one kind that a report may name; a rotation has two.
const MOST_KEYS: usize = 8;

/// How often a note is tried again that somebody else wrote at the same moment.
const ATTEMPTS: usize = 4;

/// How it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The hub or agent says it of itself.
    Reported,
    /// A hub has seen it.
    Measured,
    /// An operator says it.
    Stated,
}

impl Evidence {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Measured => "measured",
            Self::Stated => "stated",
        }
    }
}

/// Of whom.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Adopter<'a> {
    Hub(&'a str),
    Node(&'a Node),
}

impl Adopter<'_> {
    fn key(self) -> Result<Key, Error> {
        match self {
            Self::Hub(name) => record::key(prefix::ADOPTED_HUB, name),
            Self::Node(node) => record::key(prefix::ADOPTED_NODE, node.id.as_str()),
        }
    }
}

impl Adopted {
    /// What an agent reports, as it comes from outside: fingerprints by the name of the key's kind.
    ///
    /// # Errors
    /// [`Error::Unfit`] for a kind that is not rotated, for what is no fingerprint, and for too many.
    pub fn reported(
        trusts: BTreeMap<String, BTreeSet<String>>,
        holds: BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let kind = |text: &str| {
            let kind = text.parse::<KeyKind>().ok();
            kind.filter(|kind| KINDS.contains(kind)).ok_or_else(|| {
                Error::Unfit(format!(
                    "`{}` is no key that is rotated",
                    text.escape_default()
                ))
            })
        };
        let fingerprint = |text: &String| {
            if text.starts_with("SHA256:") && text.len() == 50 && text.is_ascii() {
                return Ok(());
            }
            Err(Error::Unfit(
                "a report names what is no fingerprint".to_owned(),
            ))
        };
        let mut adopted = Self::default();
        for (name, keys) in trusts {
            if keys.len() > MOST_KEYS {
                return Err(Error::Unfit("a report names too many keys".to_owned()));
            }
            keys.iter().try_for_each(fingerprint)?;
            adopted.trusts.insert(kind(&name)?, keys);
        }
        for (name, key) in holds {
            fingerprint(&key)?;
            adopted.holds.insert(kind(&name)?, key);
        }
        Ok(adopted)
    }
}

impl Auth {
    /// Adds to a commit what this hub trusts: from then on it counts among those that must adopt a new key.
    pub(crate) fn adopts(&self, commit: Commit) -> Result<Commit, Error> {
        let hub = Adopter::Hub(&self.settings().hub);
        let mut adopted = Adopted::default();
        self.adopted_here(&mut adopted);
        let noted = self.tell().adopted(hub, Evidence::Reported, None, &adopted);
        Ok(commit
            .and_event(noted)
            .put(hub.key()?, Expect::Any, record::write(&adopted)?))
    }

    /// What this hub trusts is its picture of the keys, and it shows no gateway certificate that another key signed.
    fn adopted_here(&self, adopted: &mut Adopted) {
        let keys = self.keys();
        for kind in KINDS {
            adopted.trusts.insert(kind, keys.trust().fingerprints(kind));
        }
        adopted
            .holds
            .insert(KeyKind::Gateway, keys.signer(KeyKind::Gateway));
    }

    /// Notes what this hub trusts at this moment.
    pub(crate) async fn hub_adopts(&self) -> Result<(), Error> {
        let hub = Adopter::Hub(&self.settings().hub);
        self.note(hub, Evidence::Reported, None, |adopted| {
            self.adopted_here(adopted)
        })
        .await
    }

    /// Whether the authority in a TLS chain (DER, leaf first) is the one that signs at this moment.
    #[must_use]
    pub fn is_signed_now(&self, chain: &[Vec<u8>]) -> bool {
        mezite_ca::tls_signer(chain).is_ok_and(|by| by == self.keys().signer(KeyKind::HostTls))
    }

    /// This hub shows the TLS certificate `chain` (DER, leaf first) on new connections.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a chain without an authority, [`Error::Unavailable`].
    pub async fn hub_shows(&self, chain: &[Vec<u8>]) -> Result<(), Error> {
        let signer =
            mezite_ca::tls_signer(chain).map_err(|error| Error::Corrupt(error.to_string()))?;
        let hub = Adopter::Hub(&self.settings().hub);
        self.note(hub, Evidence::Reported, None, |adopted| {
            adopted.holds.insert(KeyKind::HostTls, signer.clone());
        })
        .await
    }

    /// An agent has told what it trusts and holds. What it leaves out is as it was known before.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a node that was removed, [`Error::Unavailable`].
    pub async fn node_reports(&self, id: &NodeId, report: &Adopted) -> Result<(), Error> {
        let (_, node) = self.stored_node(id).await?;
        self.note(Adopter::Node(&node), Evidence::Reported, None, |adopted| {
            adopted.trusts.extend(report.trusts.clone());
            adopted.holds.extend(report.holds.clone());
        })
        .await
    }

    /// A node has shown a host certificate that `signer` signed, and this hub has checked it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a node that was removed, [`Error::Unavailable`].
    pub async fn node_shows(&self, id: &NodeId, signer: &PublicKey) -> Result<(), Error> {
        let (_, node) = self.stored_node(id).await?;
        let signer = signer.fingerprint(HashAlg::Sha256).to_string();
        self.note(Adopter::Node(&node), Evidence::Measured, None, |adopted| {
            adopted.holds.insert(KeyKind::Node, signer.clone());
        })
        .await
    }

    /// Nodes whose host certificate is not known to be by the key that is to stay, while that holds a rotation up:
    /// somebody should look at it, and say so to [`Auth::node_shows`].
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn nodes_to_look_at(&self) -> Result<Vec<Node>, Error> {
        let keys = self.keys();
        let last = keys.rotations().any(|rotation| {
            rotation.kind() == KeyKind::Node
                && matches!(rotation.phase(), Phase::UpdateServers | Phase::Rollback)
        });
        if !last {
            return Ok(Vec::new());
        }
        let signer = keys.signer(KeyKind::Node);
        let known = self.notes(prefix::ADOPTED_NODE).await?;
        let snapshot = self.snapshot();
        let holds = |node: &&Node| {
            let adopted = known.get(node.id.as_str());
            adopted.and_then(|adopted| adopted.holds.get(&KeyKind::Node)) != Some(&signer)
        };
        Ok(snapshot.nodes().filter(holds).cloned().collect())
    }

    /// A node has let the holder of a session certificate in, so it trusts the key that signed it. Worth a note only of
    /// a node that cannot tell by itself, and while the key is rotated.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a node that was removed, [`Error::Unavailable`].
    pub async fn node_accepted(
        &self,
        permit: &Permit,
        certificate: &Certificate,
    ) -> Result<(), Error> {
        let keys = self.keys();
        let rotated = keys.rotations().any(|rotation| {
            rotation.kind() == KeyKind::Session && rotation.phase() != Phase::Standby
        });
        if permit.node().address.is_none() || !rotated {
            return Ok(());
        }
        let trusted = keys.trust().fingerprints(KeyKind::Session);
        let signer = certificate
            .signature_key()
            .fingerprint(HashAlg::Sha256)
            .to_string();
        let (_, node) = self.stored_node(&permit.node().id).await?;
        self.note(Adopter::Node(&node), Evidence::Measured, None, |adopted| {
            let known = adopted.trusts.entry(KeyKind::Session).or_default();
            known.insert(signer.clone());
            known.retain(|key| trusted.contains(key));
        })
        .await
    }

    /// An operator states that a node without an agent trusts every session key of now.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::Unfit`] for a node with an agent, [`Error::Unavailable`].
    pub async fn state_adoption(&self, actor: &Actor, name: &NodeName) -> Result<(), Error> {
        self.guard(actor, Resource::Ca, Verb::Update, None).await?;
        let snapshot = self.snapshot();
        let node = snapshot
            .node_named(name)
            .ok_or_else(|| Error::not_found("node", name.as_str()))?;
        if node.address.is_none() {
            return Err(Error::Unfit(format!(
                "the agent of `{name}` tells by itself which keys it trusts: start it, and look again"
            )));
        }
        let trusted = self.trust().fingerprints(KeyKind::Session);
        self.note(
            Adopter::Node(node),
            Evidence::Stated,
            Some(actor),
            |adopted| {
                adopted.trusts.insert(KeyKind::Session, trusted.clone());
            },
        )
        .await
    }

    /// Changes the note on somebody, if that changes anything.
    async fn note(
        &self,
        whom: Adopter<'_>,
        evidence: Evidence,
        by: Option<&Actor>,
        change: impl Fn(&mut Adopted),
    ) -> Result<(), Error> {
        let key = whom.key()?;
        let mut attempt = 1;
        loop {
            let stored = self.store().get(&key).await?;
            let before: Adopted = match &stored {
                Some(stored) => record::read(&key, stored)?,
                None => Adopted::default(),
            };
            let mut after = before.clone();
            change(&mut after);
            if after == before {
                return Ok(());
            }
            let expect = stored.map_or(Expect::Absent, |stored| Expect::Revision(stored.revision));
            let event = self.tell().adopted(whom, evidence, by, &after);
            let commit = Commit::new(event).put(key.clone(), expect, record::write(&after)?);
            match self.commit(commit).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Conflict(_)) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The notes on all hubs or all nodes, by hub's name or node's id.
    pub(crate) async fn notes(
        &self,
        prefix: &'static str,
    ) -> Result<BTreeMap<String, Adopted>, Error> {
        let found = live::all(self.store(), prefix).await?;
        found
            .iter()
            .map(|(key, stored)| {
                let name = key.as_str().strip_prefix(prefix).unwrap_or_default();
                Ok((name.to_owned(), record::read(key, stored)?))
            })
            .collect()
    }
}
