//! The cluster's private keys: made and sealed on the first start, opened on every other.

use std::fmt;
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use mezite_ca::seal::{Context, Sealer};
use mezite_ca::{
    GatewayKey, HostTls, IdentityKey, KeyKind, NodeKey, SessionKey, Signer, SoftwareKey,
    TrustBundle, UserTls,
};
use mezite_core::store::{Commit, Expect, Store, StoreError};
use mezite_core::{Clock, ClusterName, Secret, UnixTime};

use crate::error::OpenError;
use crate::random;
use crate::record::{self, SealedKey};
use crate::tell::Teller;

/// All keys are of the first generation until they are rotated.
const GENERATION: u32 = 1;

/// The opened keys, each behind the type that says what it may sign.
pub(crate) struct Keys {
    pub(crate) identity: IdentityKey,
    pub(crate) session: SessionKey,
    pub(crate) gateway: GatewayKey,
    pub(crate) node: NodeKey,
    pub(crate) user_tls: UserTls,
    pub(crate) host_tls: HostTls,
    pub(crate) audit: Arc<SoftwareKey>,
    pub(crate) recording: Secret<[u8; 32]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(redacted)")
    }
}

/// Where keys come from.
pub(crate) struct Source<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) sealer: &'a dyn Sealer,
    pub(crate) cluster: &'a ClusterName,
    pub(crate) tell: Teller<'a>,
}

impl Source<'_> {
    /// Opens every key, after making those that are missing: all of them, the first time.
    pub(crate) async fn keys(&self) -> Result<Keys, OpenError> {
        match self.make_missing().await {
            // Another hub was faster: its keys are there now.
            Ok(()) | Err(OpenError::Store(StoreError::Conflict(_))) => {}
            Err(error) => return Err(error),
        }
        self.open_all().await
    }

    async fn make_missing(&self) -> Result<(), OpenError> {
        let now = self.clock.now();
        let mut commit: Option<Commit> = None;
        for kind in KeyKind::ALL {
            let key = record::ca_key(kind, GENERATION)?;
            if self.store.get(&key).await?.is_some() {
                continue;
            }
            let sealed = self.make(kind, now)?;
            let event = self.tell.ca_created(kind, sealed.fingerprint()?.as_deref());
            let value = record::write(&sealed)?;
            let next = match commit.take() {
                None => Commit::new(event),
                Some(before) => before.and_event(event),
            };
            commit = Some(next.put(key, Expect::Absent, value));
        }
        if let Some(commit) = commit {
            self.store.commit(commit).await?;
        }
        Ok(())
    }

    fn make(&self, kind: KeyKind, now: UnixTime) -> Result<SealedKey, OpenError> {
        let mut rng = random::rng();
        let key = Arc::new(SoftwareKey::generate(&mut rng));
        let sealed = self
            .sealer
            .seal(key.seed().expose(), &self.context(kind), &mut rng)
            .map_err(|source| OpenError::Seal { kind, source })?;
        let signer: Arc<dyn Signer> = Arc::<SoftwareKey>::clone(&key);
        let certificate = match kind {
            KeyKind::HostTls => Some(
                HostTls::create(signer, self.cluster, now, &mut rng)?
                    .certificate()
                    .to_vec(),
            ),
            KeyKind::UserTls => Some(
                UserTls::create(signer, self.cluster, now, &mut rng)?
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
        // The recording key does not sign: its public half is made where it is used.
        let public_key = if kind == KeyKind::Recording {
            String::new()
        } else {
            HEXLOWER.encode(&key.public_key())
        };
        Ok(SealedKey {
            cluster: self.cluster.clone(),
            sealed: BASE64.encode(&sealed),
            public_key,
            certificate: certificate.map(|der| BASE64.encode(&der)),
        })
    }

    async fn open_all(&self) -> Result<Keys, OpenError> {
        let (user_key, user_certificate) = self.tls(KeyKind::UserTls).await?;
        let (host_key, host_certificate) = self.tls(KeyKind::HostTls).await?;
        Ok(Keys {
            identity: IdentityKey::new(self.signer(KeyKind::Identity).await?),
            session: SessionKey::new(self.signer(KeyKind::Session).await?),
            gateway: GatewayKey::new(self.signer(KeyKind::Gateway).await?),
            node: NodeKey::new(self.signer(KeyKind::Node).await?),
            user_tls: UserTls::load(user_key, user_certificate.into(), self.cluster)?,
            host_tls: HostTls::load(host_key, host_certificate.into(), self.cluster)?,
            audit: self.signer(KeyKind::Audit).await?,
            recording: self.open(KeyKind::Recording).await?.0,
        })
    }

    async fn signer(&self, kind: KeyKind) -> Result<Arc<SoftwareKey>, OpenError> {
        let (seed, _) = self.open(kind).await?;
        Ok(Arc::new(SoftwareKey::from_seed(seed)))
    }

    async fn tls(&self, kind: KeyKind) -> Result<(Arc<dyn Signer>, Vec<u8>), OpenError> {
        let (seed, stored) = self.open(kind).await?;
        let certificate = decode(kind, &stored.certificate.unwrap_or_default())?;
        Ok((Arc::new(SoftwareKey::from_seed(seed)), certificate))
    }

    async fn open(&self, kind: KeyKind) -> Result<(Secret<[u8; 32]>, SealedKey), OpenError> {
        let key = record::ca_key(kind, GENERATION)?;
        let missing = || OpenError::Corrupt(format!("{key} is missing"));
        let found = self.store.get(&key).await?.ok_or_else(missing)?;
        let stored: SealedKey = record::read(&key, &found)?;
        if stored.cluster != *self.cluster {
            return Err(OpenError::Cluster {
                stored: stored.cluster,
                configured: self.cluster.clone(),
            });
        }
        let plain = self
            .sealer
            .open(&decode(kind, &stored.sealed)?, &self.context(kind))
            .map_err(|source| OpenError::Seal { kind, source })?;
        let seed = plain
            .expose()
            .as_slice()
            .try_into()
            .map_err(|_| OpenError::Corrupt(format!("{key} holds no 32 bytes")))?;
        Ok((Secret::new(seed), stored))
    }

    fn context(&self, kind: KeyKind) -> Context<'_> {
        Context {
            cluster: self.cluster,
            kind,
            generation: u64::from(GENERATION),
        }
    }
}

fn decode(kind: KeyKind, text: &str) -> Result<Vec<u8>, OpenError> {
    BASE64
        .decode(text.as_bytes())
        .map_err(|error| OpenError::Corrupt(format!("the {kind} key: {error}")))
}

impl Keys {
    /// The public halves of all authorities.
    pub(crate) fn trust(&self, cluster: &ClusterName) -> TrustBundle {
        TrustBundle {
            identity: vec![self.identity.public_key()],
            session: vec![self.session.public_key()],
            gateway: vec![self.gateway.public_key()],
            node: vec![self.node.public_key()],
            user_tls: vec![self.user_tls.certificate().to_vec()],
            host_tls: vec![self.host_tls.certificate().to_vec()],
            ..TrustBundle::empty(cluster.clone())
        }
    }
}
