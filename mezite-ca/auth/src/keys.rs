//! The cluster's private keys, by kind and generation: made and sealed when they are first needed, opened when the hub
//! starts or another hub has made one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use data_encoding::{BASE64, HEXLOWER};
use mezite_ca::rotation::{Generation, KINDS, Rotation};
use mezite_ca::seal::{Context, Sealer};
use mezite_ca::{
    GatewayKey, HostTls, IdentityKey, KeyKind, NodeKey, SessionKey, Signer, SoftwareKey,
    TrustBundle, UserTls,
};
use mezite_core::store::{Commit, Expect, Key, Revision, Store, StoreError};
use mezite_core::{ClusterName, Secret, UnixTime};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use tokio::sync::watch;

use crate::error::OpenError;
use crate::live::Picture;
use crate::random;
use crate::record::{self, AuditGeneration, SealedKey, prefix};
use crate::tell::Teller;

/// The generation of a key that was never rotated.
const FIRST: u64 = 1;

/// How often keys are read before it is believed that one is missing.
const ATTEMPTS: usize = 3;

/// Where keys lie, and what opens them.
#[derive(Clone, Debug)]
pub(crate) struct KeyStore {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealer: Arc<dyn Sealer>,
    pub(crate) cluster: ClusterName,
}

/// The keys as they are together at one moment: those that sign, each behind the type that says what it may sign, and
/// who is trusted.
pub(crate) struct Keys {
    pub(crate) identity: IdentityKey,
    pub(crate) session: SessionKey,
    pub(crate) gateway: GatewayKey,
    pub(crate) node: NodeKey,
    pub(crate) user_tls: UserTls,
    pub(crate) host_tls: HostTls,
    pub(crate) audit: AuditKey,
    trust: Arc<TrustBundle>,
    rotations: BTreeMap<KeyKind, Rotation>,
    opened: Opened,
}

/// Each generation that is trusted. Opening one can take a second, so it is done once.
type Opened = BTreeMap<(KeyKind, u64), Arc<SoftwareKey>>;

/// The key that signs checkpoints and recordings.
#[derive(Clone)]
pub(crate) struct AuditKey {
    pub(crate) generation: u64,
    pub(crate) key: Arc<SoftwareKey>,
}

/// The keys that are not rotated.
pub(crate) struct FixedKeys {
    pub(crate) recording: Secret<[u8; 32]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(redacted)")
    }
}

impl fmt::Debug for FixedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FixedKeys(redacted)")
    }
}

/// Tells when another set of authorities is trusted, or another key signs.
#[derive(Clone, Debug)]
pub struct TrustChanges(pub(crate) watch::Receiver<Arc<Keys>>);

impl TrustChanges {
    /// Waits until there is something newer than at the last return. `false`: the auth service is gone.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

impl Keys {
    /// The public halves of all authorities.
    pub(crate) fn trust(&self) -> &Arc<TrustBundle> {
        &self.trust
    }

    /// How far each key's rotation is.
    pub(crate) fn rotations(&self) -> impl Iterator<Item = &Rotation> {
        self.rotations.values()
    }

    /// Whether `key` counts as one of `kind` at this moment.
    pub(crate) fn trusts(&self, kind: KeyKind, key: &KeyData) -> bool {
        let rotation = self.rotations.get(&kind);
        let generations = rotation.map(Rotation::trusted).unwrap_or_default();
        generations
            .iter()
            .any(|(_, generation)| *key == KeyData::from(Ed25519PublicKey(generation.public_key)))
    }

    fn signing(&self, kind: KeyKind) -> Option<&Generation> {
        self.rotations.get(&kind).map(Rotation::signing)
    }

    /// `SHA256:…` of the key of `kind` that signs.
    pub(crate) fn signer(&self, kind: KeyKind) -> String {
        self.signing(kind)
            .map_or_else(String::new, Generation::fingerprint)
    }
}

#[async_trait]
impl Picture for Keys {
    type Source = KeyStore;

    const WATCHED: &'static [&'static str] = &[prefix::ROTATION];

    const WHAT: &'static str = "the cluster's keys";

    type Error = OpenError;

    async fn read(source: &KeyStore, before: Option<&Self>) -> Result<Self, OpenError> {
        let nothing = Opened::new();
        let known = before.map_or(&nothing, |before| &before.opened);
        let mut attempt = 1;
        loop {
            match source.read(known).await {
                // Another hub may have ended a rotation between two reads.
                Err(OpenError::Corrupt(_)) if attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }
}

/// A rotation as it is stored.
pub(crate) struct StoredRotation {
    pub(crate) key: Key,
    /// `None` while the key was never rotated.
    pub(crate) revision: Option<Revision>,
    pub(crate) rotation: Rotation,
}

/// A key that was just made: its public half, what is stored of it, and the key itself.
pub(crate) struct Made {
    pub(crate) generation: Generation,
    pub(crate) sealed: SealedKey,
    pub(crate) signer: Arc<dyn Signer>,
}

impl KeyStore {
    /// Makes the keys that are missing: all of them, the first time.
    pub(crate) async fn make_missing(
        &self,
        now: UnixTime,
        tell: Teller<'_>,
    ) -> Result<(), OpenError> {
        let mut commit: Option<Commit> = None;
        for kind in KeyKind::ALL {
            let key = record::ca_key(kind, FIRST)?;
            // A key that has been rotated has later generations.
            if self.store.get(&key).await?.is_some()
                || self
                    .store
                    .get(&record::rotation_key(kind)?)
                    .await?
                    .is_some()
            {
                continue;
            }
            let made = self.make(kind, FIRST, now).await?;
            let event = tell.ca_created(kind, made.sealed.fingerprint()?.as_deref());
            let value = record::write(&made.sealed)?;
            let next = match commit.take() {
                None => Commit::new(event),
                Some(before) => before.and_event(event),
            };
            commit = Some(next.put(key, Expect::Absent, value));
        }
        let Some(commit) = commit else { return Ok(()) };
        match self.store.commit(commit).await {
            // Another hub was faster: its keys are there now.
            Ok(_) | Err(StoreError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A fresh key, sealed.
    pub(crate) async fn make(
        &self,
        kind: KeyKind,
        number: u64,
        now: UnixTime,
    ) -> Result<Made, OpenError> {
        let key = Arc::new(SoftwareKey::generate(&mut random::rng()));
        let sealed = {
            let key = Arc::clone(&key);
            let seal = move |sealer: &dyn Sealer, context: &Context<'_>| {
                sealer.seal(key.seed().expose(), context, &mut random::rng())
            };
            self.with_sealer(kind, number, seal).await?
        };
        let public_key = key.public_key();
        let signer: Arc<dyn Signer> = key;
        let own = || Arc::clone(&signer);
        let mut rng = random::rng();
        let certificate = match kind {
            KeyKind::HostTls => Some(
                HostTls::create(own(), &self.cluster, now, &mut rng)?
                    .certificate()
                    .to_vec(),
            ),
            KeyKind::UserTls => Some(
                UserTls::create(own(), &self.cluster, now, &mut rng)?
                    .certificate()
                    .to_vec(),
            ),
            KeyKind::Audit
            | KeyKind::BreakGlass
            | KeyKind::Gateway
            | KeyKind::Identity
            | KeyKind::Node
            | KeyKind::Recording
            | KeyKind::Session => None,
        };
        let sealed = SealedKey {
            cluster: self.cluster.clone(),
            sealed: BASE64.encode(&sealed),
            // The recording key does not sign: its public half is made where it is used.
            public_key: if kind == KeyKind::Recording {
                String::new()
            } else {
                HEXLOWER.encode(&public_key)
            },
            certificate: certificate.as_ref().map(|der| BASE64.encode(der)),
        };
        Ok(Made {
            generation: Generation {
                number,
                public_key,
                certificate,
            },
            sealed,
            signer,
        })
    }

    /// The keys that are not rotated.
    pub(crate) async fn fixed(&self) -> Result<FixedKeys, OpenError> {
        Ok(FixedKeys {
            recording: self.open(KeyKind::Recording, FIRST).await?,
        })
    }

    /// Every key as it is now; those in `known` are open already.
    async fn read(&self, known: &Opened) -> Result<Keys, OpenError> {
        let mut rotations = BTreeMap::new();
        let mut opened = Opened::new();
        let mut trust = TrustBundle::empty(self.cluster.clone());
        for kind in KINDS {
            let rotation = self.rotation(kind).await?.rotation;
            for (_, generation) in rotation.trusted() {
                let at = (kind, generation.number);
                let key = match known.get(&at) {
                    Some(key) => Arc::clone(key),
                    None => Arc::new(SoftwareKey::from_seed(self.open(at.0, at.1).await?)),
                };
                // Only the sealed key is authenticated: a public key beside it that is another is not believed.
                if key.public_key() != generation.public_key {
                    return Err(OpenError::Corrupt(format!(
                        "generation {} of the {kind} key is not the one that is sealed",
                        generation.number
                    )));
                }
                opened.insert(at, key);
            }
            rotation.write_to(&mut trust);
            rotations.insert(kind, rotation);
        }
        let (_, signs) = self.audit_generation().await?;
        let at = (KeyKind::Audit, signs.generation);
        let audit = match known.get(&at) {
            Some(key) => Arc::clone(key),
            None => Arc::new(SoftwareKey::from_seed(self.open(at.0, at.1).await?)),
        };
        opened.insert(at, Arc::clone(&audit));
        let signing = |kind: KeyKind| -> Result<(Arc<dyn Signer>, Vec<u8>), OpenError> {
            let missing = || OpenError::Corrupt(format!("the {kind} key is missing"));
            let generation = rotations
                .get(&kind)
                .map(Rotation::signing)
                .ok_or_else(missing)?;
            let key = opened.get(&(kind, generation.number)).ok_or_else(missing)?;
            Ok((
                Arc::<SoftwareKey>::clone(key),
                generation.certificate.clone().unwrap_or_default(),
            ))
        };
        let (user_key, user_certificate) = signing(KeyKind::UserTls)?;
        let (host_key, host_certificate) = signing(KeyKind::HostTls)?;
        Ok(Keys {
            identity: IdentityKey::new(signing(KeyKind::Identity)?.0),
            session: SessionKey::new(signing(KeyKind::Session)?.0),
            gateway: GatewayKey::new(signing(KeyKind::Gateway)?.0),
            node: NodeKey::new(signing(KeyKind::Node)?.0),
            user_tls: UserTls::load(user_key, user_certificate.into(), &self.cluster)?,
            host_tls: HostTls::load(host_key, host_certificate.into(), &self.cluster)?,
            audit: AuditKey {
                generation: signs.generation,
                key: audit,
            },
            trust: Arc::new(trust),
            rotations,
            opened,
        })
    }

    /// How far the rotation of a key is. One that was never rotated has no document: it is in standby since ever.
    pub(crate) async fn rotation(&self, kind: KeyKind) -> Result<StoredRotation, OpenError> {
        let key = record::rotation_key(kind)?;
        if let Some(found) = self.store.get(&key).await? {
            let rotation: Rotation = record::read(&key, &found)?;
            if rotation.kind() != kind {
                return Err(OpenError::Corrupt(format!("{key} is of another key")));
            }
            return Ok(StoredRotation {
                key,
                revision: Some(found.revision),
                rotation,
            });
        }
        let stored = self.sealed(kind, FIRST).await?;
        let generation = Generation {
            number: FIRST,
            public_key: stored
                .public_key()?
                .ok_or_else(|| OpenError::Corrupt(format!("the {kind} key has no public half")))?,
            certificate: stored
                .certificate
                .as_deref()
                .map(|text| decode(kind, text))
                .transpose()?,
        };
        let rotation = Rotation::standby(kind, generation, UnixTime::from_millis(0))
            .map_err(|error| OpenError::Corrupt(error.to_string()))?;
        Ok(StoredRotation {
            key,
            revision: None,
            rotation,
        })
    }

    /// Which generation of the audit key signs. One that was never rotated has no document.
    pub(crate) async fn audit_generation(
        &self,
    ) -> Result<(Option<Revision>, AuditGeneration), OpenError> {
        let key = record::rotation_key(KeyKind::Audit)?;
        let Some(found) = self.store.get(&key).await? else {
            return Ok((None, AuditGeneration { generation: FIRST }));
        };
        Ok((Some(found.revision), record::read(&key, &found)?))
    }

    async fn sealed(&self, kind: KeyKind, number: u64) -> Result<SealedKey, OpenError> {
        let key = record::ca_key(kind, number)?;
        let missing = || OpenError::Corrupt(format!("{key} is missing"));
        let found = self.store.get(&key).await?.ok_or_else(missing)?;
        let stored: SealedKey = record::read(&key, &found)?;
        if stored.cluster != self.cluster {
            return Err(OpenError::Cluster {
                stored: stored.cluster,
                configured: self.cluster.clone(),
            });
        }
        Ok(stored)
    }

    async fn open(&self, kind: KeyKind, number: u64) -> Result<Secret<[u8; 32]>, OpenError> {
        let stored = self.sealed(kind, number).await?;
        let sealed = decode(kind, &stored.sealed)?;
        let open = move |sealer: &dyn Sealer, context: &Context<'_>| sealer.open(&sealed, context);
        let plain = self.with_sealer(kind, number, open).await?;
        let seed = plain.expose().as_slice().try_into().map_err(|_| {
            OpenError::Corrupt(format!(
                "generation {number} of the {kind} key has not 32 bytes"
            ))
        })?;
        Ok(Secret::new(seed))
    }

    /// Seals or opens away from the runtime's threads: a passphrase takes a while.
    async fn with_sealer<T: Send + 'static>(
        &self,
        kind: KeyKind,
        number: u64,
        work: impl FnOnce(&dyn Sealer, &Context<'_>) -> Result<T, mezite_ca::seal::SealError>
        + Send
        + 'static,
    ) -> Result<T, OpenError> {
        let (sealer, cluster) = (Arc::clone(&self.sealer), self.cluster.clone());
        let done = tokio::task::spawn_blocking(move || {
            let context = Context {
                cluster: &cluster,
                kind,
                generation: number,
            };
            work(&*sealer, &context)
        });
        done.await
            .map_err(|error| OpenError::Corrupt(error.to_string()))?
            .map_err(|source| OpenError::Seal { kind, source })
    }
}

fn decode(kind: KeyKind, text: &str) -> Result<Vec<u8>, OpenError> {
    BASE64
        .decode(text.as_bytes())
        .map_err(|error| OpenError::Corrupt(format!("the {kind} key: {error}")))
}
