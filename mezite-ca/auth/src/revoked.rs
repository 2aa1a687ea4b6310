//! Revocation: what the store says is revoked, asked before every yes, and given out as OpenSSH's list.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use mezite_api::document::Document;
use mezite_api::revocation::{RevocationMetadata, RevocationSpec, Revoked, Sha256Fingerprint};
use mezite_ca::krl::{Krl, KrlError, Scope};
use mezite_ca::verify::{Revocable, VerifiedPeer};
use mezite_ca::{KeyKind, TrustBundle};
use mezite_core::store::{Commit, Expect, Key, Store, StoreError, Versioned};
use mezite_core::{RoleName, Serial, UnixTime};
use mezite_rbac::{Resource, Verb};
use sha2::{Digest, Sha256};
use ssh_key::{Certificate, PublicKey};

use crate::actor::Actor;
use crate::admin::Shown;
use crate::auth::Auth;
use crate::error::Error;
use crate::live;
use crate::random;
use crate::record::{self, ListHead, Revocation, prefix};

/// Most revocations that a cluster keeps. Beyond that, key ids and the rotation of an authority are what helps.
pub const MAX_REVOCATIONS: usize = 10_000;

/// How often a change is tried while others change the list at the same moment.
const ATTEMPTS: usize = 8;

/// A list for others: the bytes that `RevokedKeys` of a stock sshd reads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishedList {
    /// Rises with each change.
    pub number: u64,
    /// PROTOCOL.krl.
    pub bytes: Vec<u8>,
    /// SHA-256 of the bytes.
    pub digest: [u8; 32],
}

/// What is revoked at one moment.
pub(crate) struct List {
    head: ListHead,
    entries: Vec<Revoked>,
    /// What this hub asks. Its authorities sign for nobody else, so a serial number counts whoever signed.
    own: Krl,
    /// Of the keys that are revoked by themselves.
    keys: BTreeSet<[u8; 32]>,
    /// The list for others, for the authorities it was made for.
    published: Mutex<Option<(Vec<PublicKey>, Arc<PublishedList>)>>,
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List")
            .field("head", &self.head)
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl List {
    /// Reads the list. One that cannot be read whole is an error: it might have said no.
    pub(crate) async fn read(store: &dyn Store) -> Result<Self, Error> {
        let mut entries = Vec::new();
        for (key, stored) in live::all(store, prefix::REVOKED).await? {
            entries.push(record::read::<Revocation>(&key, &stored)?.spec.revoked);
        }
        let head = read_head(store).await?.1;
        Self::new(head, entries).map_err(|error| Error::Corrupt(error.to_string()))
    }

    pub(crate) fn head(&self) -> ListHead {
        self.head
    }

    fn new(head: ListHead, entries: Vec<Revoked>) -> Result<Self, KrlError> {
        let own = krl(&head, &entries, &[Scope::EveryAuthority])?;
        let keys = entries.iter().filter_map(key_digest).collect();
        Ok(Self {
            head,
            entries,
            own,
            keys,
            published: Mutex::default(),
        })
    }

    /// Whether an SSH certificate is revoked.
    pub(crate) fn revokes(&self, certificate: &Revocable<'_>) -> bool {
        self.own.revokes(certificate)
    }

    /// Whether a key is revoked, whatever certifies it.
    pub(crate) fn revokes_key(&self, key: &PublicKey) -> bool {
        self.own.revokes_key(key.key_data())
    }

    /// Whether a TLS certificate is revoked: itself, or the SSH certificate of the same holder, which has the same
    /// serial number, and whose key id follows from the name.
    pub(crate) fn revokes_peer(&self, peer: &VerifiedPeer) -> bool {
        let certificate = peer.revocable();
        let by_key_id = || {
            peer.peer().ssh_key_id().is_some_and(|key_id| {
                self.own.revokes(&Revocable {
                    key_id: &key_id,
                    ..certificate
                })
            })
        };
        let by_twin = || match peer.twin().map(str::parse::<Sha256Fingerprint>) {
            Some(Ok(print)) => self.keys.contains(print.digest()),
            Some(Err(_)) => true,
            None => false,
        };
        self.own.revokes(&certificate) || by_key_id() || by_twin()
    }

    /// The list for others. Serial numbers are those of this cluster's authorities: a node may trust other people's too.
    fn publish(&self, authorities: Vec<PublicKey>) -> Result<Arc<PublishedList>, KrlError> {
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((made_for, list)) = &*published
            && *made_for == authorities
        {
            return Ok(Arc::clone(list));
        }
        let scopes: Vec<_> = authorities.iter().map(Scope::Authority).collect();
        let bytes = krl(&self.head, &self.entries, &scopes)?.to_bytes()?;
        let list = Arc::new(PublishedList {
            number: self.head.number,
            digest: Sha256::digest(&bytes).into(),
            bytes,
        });
        *published = Some((authorities, Arc::clone(&list)));
        Ok(list)
    }
}

/// The SHA-256 of a key that is revoked by itself.
fn key_digest(revoked: &Revoked) -> Option<[u8; 32]> {
    match revoked {
        Revoked::Authority(print) | Revoked::Fingerprint(print) => Some(*print.digest()),
        Revoked::Key(line) => Some(*Sha256Fingerprint::of(line.key()).digest()),
        Revoked::KeyId(_) | Revoked::Serial(_) => None,
    }
}

/// The list in OpenSSH's format. `scopes` are the authorities whose serial numbers are meant.
fn krl(head: &ListHead, entries: &[Revoked], scopes: &[Scope<'_>]) -> Result<Krl, KrlError> {
    let changed = UnixTime::from_millis(head.changed_ms);
    let mut list = Krl::new(head.number, changed, "mezite");
    for revoked in entries {
        match revoked {
            Revoked::Authority(print) | Revoked::Fingerprint(print) => {
                list.revoke_fingerprint(*print.digest())?;
            }
            Revoked::Key(line) => list.revoke_key(line.key().key_data())?,
            Revoked::KeyId(id) => list.revoke_key_id(Scope::EveryAuthority, id.as_str())?,
            Revoked::Serial(serials) => {
                for scope in scopes {
                    list.revoke_serials(*scope, serials.first()..=serials.last())?;
                }
            }
        }
    }
    Ok(list)
}

async fn read_head(store: &dyn Store) -> Result<(Option<Versioned>, ListHead), Error> {
    let key = record::list_head_key()?;
    let stored = store.get(&key).await?;
    let head = match &stored {
        Some(stored) => record::read(&key, stored)?,
        None => ListHead::default(),
    };
    Ok((stored, head))
}

impl Auth {
    /// What is revoked, as OpenSSH reads it. The bytes stay the same until something changes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the list cannot be written.
    pub fn revocation_list(&self) -> Result<Arc<PublishedList>, Error> {
        let snapshot = self.snapshot();
        let mut authorities = ssh_authorities(&self.trust());
        authorities.extend(snapshot.break_glass().iter().cloned());
        let list = snapshot.revoked().publish(authorities);
        list.map_err(|error| Error::Corrupt(error.to_string()))
    }

    /// Whether an SSH certificate is revoked at this moment.
    #[must_use]
    pub fn is_revoked(&self, certificate: &Revocable<'_>) -> bool {
        self.snapshot().revoked().revokes(certificate)
    }

    /// Whether a peer's TLS certificate is revoked at this moment, by itself or with its SSH twin.
    #[must_use]
    pub fn is_peer_revoked(&self, peer: &VerifiedPeer) -> bool {
        self.snapshot().revoked().revokes_peer(peer)
    }

    /// Waits until a peer's TLS certificate is revoked; for ever, if it never is.
    pub async fn until_peer_is_revoked(&self, peer: &VerifiedPeer) {
        let mut changes = self.changes();
        while !self.is_peer_revoked(peer) {
            if !changes.changed().await {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Nothing revoked is certified: a certificate that would be refused everywhere is not handed out.
    pub(crate) fn check_issued(
        &self,
        certificate: &Certificate,
        authority: KeyKind,
    ) -> Result<(), Error> {
        let serial = Serial::from_u64(certificate.serial());
        let revocable = Revocable {
            serial,
            key_id: certificate.key_id(),
            key: certificate.public_key(),
            authority,
            authority_key: certificate.signature_key(),
        };
        if self.is_revoked(&revocable) {
            return Err(Error::Uncertifiable(certificate.key_id().to_owned()));
        }
        Ok(())
    }

    pub(crate) fn check_key(&self, key: &PublicKey) -> Result<(), Error> {
        if self.snapshot().revoked().revokes_key(key) {
            let print = Sha256Fingerprint::of(key);
            return Err(Error::Uncertifiable(print.to_string()));
        }
        Ok(())
    }

    /// Revokes what the document says. The same thing is revoked once.
    pub(crate) async fn apply_revocation(
        &self,
        actor: &Actor,
        document: Document<RevocationMetadata, RevocationSpec>,
    ) -> Result<(Shown, bool), Error> {
        self.guard(actor, Resource::Ca, Verb::Create, None).await?;
        let (given, spec) = (document.metadata.name, document.spec);
        if spec.reason.len() > 1024 {
            return Err(Error::Document(
                "`reason` is longer than 1024 bytes".to_owned(),
            ));
        }
        self.check_revoked(&spec.revoked)?;
        let name = given.unwrap_or_else(|| random::document_name(self.now()));
        // Bounded like a role's.
        name.parse::<RoleName>()
            .map_err(|error| Error::Document(error.to_string()))?;
        let revocation = Revocation { name, spec };
        let key = record::key(prefix::REVOKED, &revocation.name)?;
        for _ in 0..ATTEMPTS {
            self.check_new(&revocation).await?;
            let (stored, head) = read_head(self.store()).await?;
            let head = head.next(self.now());
            let event = self.tell().revoked(actor, &revocation, head.number);
            let commit =
                Commit::new(event).put(key.clone(), Expect::Absent, record::write(&revocation)?);
            match self.commit(put_head(commit, stored.as_ref(), &head)?).await {
                Ok(_) => return Ok((show(revocation), true)),
                // Another revocation came between; or this very one, which the next look finds.
                Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Conflict)
    }

    /// An authority is revoked by that name only, since everything it signed goes with it.
    fn check_revoked(&self, revoked: &Revoked) -> Result<(), Error> {
        let (Revoked::Key(_) | Revoked::Fingerprint(_)) = revoked else {
            return Ok(());
        };
        let trust = self.trust();
        let print =
            key_digest(revoked).map(|digest| ssh_key::Fingerprint::Sha256(digest).to_string());
        let mut kinds = KeyKind::ALL.into_iter();
        match kinds.find(|kind| {
            print
                .as_ref()
                .is_some_and(|print| trust.fingerprints(*kind).contains(print))
        }) {
            Some(kind) => Err(Error::Unfit(format!(
                "this is the key of the {kind} authority: to refuse everything that it ever signed, revoke it as an \
                 authority (`mezctl ca revoke --authority {}`)",
                print.unwrap_or_default()
            ))),
            None => Ok(()),
        }
    }

    async fn check_new(&self, revocation: &Revocation) -> Result<(), Error> {
        let found = live::all(self.store(), prefix::REVOKED).await?;
        if found.len() >= MAX_REVOCATIONS {
            return Err(Error::Unfit(format!(
                "{MAX_REVOCATIONS} things are revoked already: remove what has expired, revoke by key id, or rotate the authority"
            )));
        }
        for (key, stored) in &found {
            let other: Revocation = record::read(key, stored)?;
            if other.name == revocation.name || other.spec.revoked == revocation.spec.revoked {
                return Err(Error::exists("revocation", &other.name));
            }
        }
        Ok(())
    }

    /// What takes a revocation back.
    pub(crate) async fn remove_revocation(
        &self,
        actor: &Actor,
        key: &Key,
        stored: &Versioned,
    ) -> Result<Commit, Error> {
        let revocation: Revocation = record::read(key, stored)?;
        let (before, head) = read_head(self.store()).await?;
        let head = head.next(self.now());
        let event = self.tell().unrevoked(actor, &revocation, head.number);
        put_head(Commit::new(event), before.as_ref(), &head)
    }
}

fn put_head(commit: Commit, before: Option<&Versioned>, head: &ListHead) -> Result<Commit, Error> {
    let expect = before.map_or(Expect::Absent, |stored| Expect::Revision(stored.revision));
    Ok(commit.put(record::list_head_key()?, expect, record::write(head)?))
}

/// The hub's authorities whose SSH certificates somebody may meet.
fn ssh_authorities(trust: &TrustBundle) -> Vec<PublicKey> {
    [&trust.identity, &trust.session, &trust.gateway, &trust.node]
        .into_iter()
        .flatten()
        .cloned()
        .collect()
}

pub(crate) fn show(revocation: Revocation) -> Shown {
    let metadata = RevocationMetadata {
        name: Some(revocation.name.clone()),
    };
    let document = Document::v1("revocation", metadata, revocation.spec);
    Shown {
        kind: "revocation",
        name: revocation.name,
        document: serde_json::json!(document),
    }
}
