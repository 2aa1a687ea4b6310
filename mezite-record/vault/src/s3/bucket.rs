//! One bucket, as the sink uses it: few operations, object names of sessions, and one kind of error.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::TryStreamExt;
use mezite_core::SessionId;
use mezite_record::{Part, Sink, Stored};
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::path::Path;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt,
    PutMode, PutOptions, RetryConfig,
};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::OnceCell;

use super::{S3Error, S3Settings};
use crate::DirectorySink;
use crate::layout::{self, File, length};

/// Bytes that go up in one request; a larger file goes in parts of this size.
const REQUEST: u64 = 8 * 1024 * 1024;

/// S3 takes at most 10,000 parts of one upload.
const PARTS: u64 = 9000;

/// Of what a store says no more is told.
const TOLD: usize = 400;

/// Why an operation did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Fault {
    /// There is an object of this name.
    #[error("the name is taken")]
    Taken,
    /// There is none.
    #[error("there is no such object")]
    Missing,
    /// The store overwrites what it must not.
    #[error(
        "the bucket ignores `If-None-Match: *`, so that a recording could be overwritten: use a store that knows conditional writes"
    )]
    Overwrites,
    /// The store or the way to it failed.
    #[error("{0}")]
    Failed(String),
}

impl From<object_store::Error> for Fault {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all others are told in words"
    )]
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Missing,
            object_store::Error::AlreadyExists { .. } => Self::Taken,
            error => Self::Failed(told(&error)),
        }
    }
}

/// One line of what went wrong. An answer of the store may be in it: text from outside.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text.chars()
        .take(TOLD)
        .flat_map(char::escape_debug)
        .collect()
}

/// The bucket. Its objects:
///
/// - `recordings/<month>/<id>.mzr` a finished recording,
/// - `indexes/<month>/<id>.mzi` its search index,
/// - `live/<id>/<hub>/<offset>` a piece of the journal of a session,
/// - `live/<id>/claim` the digest of the one file that may become its recording.
pub(super) struct Bucket {
    store: AmazonS3,
    prefix: Path,
    name: String,
    refuses: OnceCell<()>,
}

impl std::fmt::Debug for Bucket {
    /// The client holds the secret key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket")
            .field("name", &self.name)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    /// A client; nothing is asked yet.
    pub(super) fn new(settings: &S3Settings) -> Result<Self, S3Error> {
        let failed = |error: object_store::Error| S3Error::Settings(told(&error));
        let mut client = ClientOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            .with_read_timeout(Duration::from_secs(30))
            .with_timeout(Duration::from_secs(120));
        if let Some(pem) = &settings.ca_pem {
            let certificates = Certificate::from_pem_bundle(pem).map_err(failed)?;
            if certificates.is_empty() {
                let what = "there is no certificate in the PEM of the authority";
                return Err(S3Error::Settings(what.to_owned()));
            }
            for certificate in certificates {
                client = client.with_root_certificate(certificate);
            }
        }
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            max_retries: 4,
            retry_timeout: Duration::from_secs(10),
        };
        let key = &settings.access_key;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_access_key_id(&key.id)
            .with_secret_access_key(key.secret.expose())
            .with_checksum_algorithm(Checksum::SHA256)
            // Not every store that speaks S3 deletes in bulk.
            .with_disable_bulk_delete(true)
            .with_retry(retry);
        if let Some(endpoint) = &settings.endpoint {
            let plain = endpoint.starts_with("http://");
            client = client.with_allow_http(plain);
            builder = builder.with_endpoint(endpoint);
        }
        let store = builder.with_client_options(client).build();
        Ok(Self {
            store: store.map_err(failed)?,
            prefix: Path::parse(&settings.prefix)
                .map_err(|error| S3Error::Settings(told(&error)))?,
            name: settings.bucket.clone(),
            refuses: OnceCell::new(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn key<'a>(&'a self, parts: impl IntoIterator<Item = &'a str>) -> Path {
        let mut path = self.prefix.clone();
        for part in parts {
            path = path.join(part);
        }
        path
    }

    pub(super) fn sealed(&self, id: &SessionId) -> Path {
        let (month, name) = (layout::month_name(id), layout::name(id, File::Sealed));
        self.key(["recordings", &month, &name])
    }

    pub(super) fn index(&self, id: &SessionId) -> Path {
        let (month, name) = (layout::month_name(id), layout::name(id, File::Index));
        self.key(["indexes", &month, &name])
    }

    pub(super) fn claim(&self, id: &SessionId) -> Path {
        self.key(["live", &id.to_string(), "claim"])
    }

    pub(super) fn piece(&self, id: &SessionId, hub: &str, offset: u64) -> Path {
        self.key(["live", &id.to_string(), hub, &format!("{offset:020}")])
    }

    /// Makes an object, unless there is one.
    pub(super) async fn put_new(&self, key: &Path, bytes: Bytes) -> Result<(), Fault> {
        let options = PutOptions::from(PutMode::Create);
        self.store.put_opts(key, bytes.into(), options).await?;
        Ok(())
    }

    /// Makes an object, in place of one that is there; gives what the store calls this content.
    pub(super) async fn put(&self, key: &Path, bytes: Bytes) -> Result<Option<String>, Fault> {
        Ok(self.store.put(key, bytes.into()).await?.e_tag)
    }

    /// Makes a new object of the finished recording in the spool, which has `size` bytes. Whether the name is free in the
    /// moment in which a file of several parts appears is for the caller to see to.
    pub(super) async fn put_file(
        &self,
        key: &Path,
        size: u64,
        spool: &DirectorySink,
        id: &SessionId,
    ) -> Result<(), Fault> {
        if size <= REQUEST {
            let whole = spooled(spool, id, 0, size).await?;
            return self.put_new(key, whole).await;
        }
        let part = REQUEST.max(size / PARTS);
        let mut upload = self.store.put_multipart(key).await?;
        let mut offset = 0;
        while offset < size {
            let sent = match spooled(spool, id, offset, part.min(size - offset)).await {
                Ok(bytes) => {
                    offset += length(&bytes);
                    upload.put_part(bytes.into()).await.map_err(Fault::from)
                }
                Err(fault) => Err(fault),
            };
            if let Err(fault) = sent {
                // Parts that nobody completes cost money. If this fails too, the rule that the README asks for removes them.
                drop(upload.abort().await);
                return Err(fault);
            }
        }
        upload.complete().await?;
        Ok(())
    }

    /// The size of an object.
    pub(super) async fn size(&self, key: &Path) -> Result<u64, Fault> {
        Ok(self.store.head(key).await?.size)
    }

    pub(super) async fn exists(&self, key: &Path) -> Result<bool, Fault> {
        match self.size(key).await {
            Ok(_) => Ok(true),
            Err(Fault::Missing) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Up to `limit` bytes from `offset`; none behind the end.
    pub(super) async fn read(
        &self,
        key: &Path,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<u8>, Fault> {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let range = match offset.checked_add(limit) {
            Some(end) if limit > 0 => GetRange::Bounded(offset..end),
            _ => GetRange::Offset(offset),
        };
        let options = GetOptions {
            // The whole of an empty object is no range of it.
            range: (offset > 0 || limit < u64::MAX).then_some(range),
            ..GetOptions::default()
        };
        let read = async { self.store.get_opts(key, options).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(bytes.into()),
            // A range behind the end is an error of the store's own kind.
            Err(error) => match Fault::from(error) {
                Fault::Failed(why) if self.size(key).await? > offset => Err(Fault::Failed(why)),
                Fault::Failed(_) => Ok(Vec::new()),
                fault @ (Fault::Taken | Fault::Missing | Fault::Overwrites) => Err(fault),
            },
        }
    }

    /// SHA-256 in hex of an object as the store gives it back.
    pub(super) async fn digest(&self, key: &Path) -> Result<String, Fault> {
        let size = self.size(key).await?;
        let (mut hash, mut offset) = (Sha256::new(), 0);
        let most = usize::try_from(REQUEST).unwrap_or(usize::MAX);
        while offset < size {
            let piece = self.read(key, offset, most).await?;
            if piece.is_empty() {
                return Err(Fault::Failed(String::from("an object became shorter")));
            }
            offset += length(&piece);
            hash.update(&piece);
        }
        Ok(HEXLOWER.encode(&hash.finalize()))
    }

    /// Removes an object if it is there.
    pub(super) async fn remove(&self, key: &Path) -> Result<(), Fault> {
        match self.store.delete(key).await.map_err(Fault::from) {
            Err(fault) if fault != Fault::Missing => Err(fault),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The finished recordings.
    pub(super) async fn recordings(&self) -> Result<Vec<Stored>, Fault> {
        self.named("recordings", File::Sealed, |id| self.sealed(id))
            .await
    }

    /// The search indexes.
    pub(super) async fn indexes(&self) -> Result<Vec<Stored>, Fault> {
        self.named("indexes", File::Index, |id| self.index(id))
            .await
    }

    /// The objects below `place`, by their sessions.
    async fn named(
        &self,
        place: &str,
        file: File,
        key: impl Fn(&SessionId) -> Path,
    ) -> Result<Vec<Stored>, Fault> {
        let root = self.key([place]);
        let mut listed = self.store.list(Some(&root));
        let mut found = Vec::new();
        while let Some(object) = listed.try_next().await? {
            let name = object.location.filename().unwrap_or_default();
            // An object in the place of another month is none of ours.
            let id = layout::session(name, file).filter(|id| key(id) == object.location);
            found.extend(id.map(|id| Stored {
                id,
                bytes: object.size,
                version: object.e_tag,
            }));
        }
        Ok(found)
    }

    /// The sessions of which something live is here.
    pub(super) async fn live(&self) -> Result<Vec<SessionId>, Fault> {
        let found = self
            .store
            .list_with_delimiter(Some(&self.key(["live"])))
            .await?;
        let names = found.common_prefixes.iter();
        Ok(names.filter_map(|it| it.filename()?.parse().ok()).collect())
    }

    /// The pieces of a session's journal, in order.
    pub(super) async fn pieces(&self, id: &SessionId) -> Result<Vec<Piece>, Fault> {
        let root = self.key(["live", &id.to_string()]);
        let listed = self.store.list(Some(&root)).map_ok(|object| {
            let names: Vec<_> = object.location.prefix_match(&root)?.collect();
            let [hub, offset] = names.as_slice() else {
                return None;
            };
            Some(Piece {
                offset: offset.as_ref().parse().ok()?,
                hub: hub.as_ref().to_owned(),
                size: object.size,
                key: object.location.clone(),
            })
        });
        let mut pieces: Vec<Piece> = listed
            .try_filter_map(async |it| Ok(it))
            .try_collect()
            .await?;
        pieces.sort_by_key(|piece| piece.offset);
        Ok(pieces)
    }

    /// Sees, once, that the store refuses to overwrite, by trying it on an object that is made for that.
    pub(super) async fn refuses_to_overwrite(&self) -> Result<(), Fault> {
        let tried = self.refuses.get_or_try_init(async || {
            let name = HEXLOWER.encode(&rand::random::<[u8; 16]>());
            let key = self.key(["probe", &name]);
            self.put_new(&key, Bytes::from_static(b"first")).await?;
            let second = self.put_new(&key, Bytes::from_static(b"second")).await;
            self.remove(&key).await?;
            match second {
                Err(Fault::Taken) => Ok(()),
                Ok(()) => Err(Fault::Overwrites),
                Err(fault) => Err(fault),
            }
        });
        tried.await.map(|_| ())
    }
}

async fn spooled(
    spool: &DirectorySink,
    id: &SessionId,
    offset: u64,
    count: u64,
) -> Result<Bytes, Fault> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let read = spool.read(id, Part::Sealed, offset, count).await;
    match read {
        Ok(piece) if piece.is_empty() => Err(Fault::Failed(format!(
            "the spooled recording of session {id} is cut"
        ))),
        Ok(piece) => Ok(piece.into()),
        Err(error) => Err(Fault::Failed(error.to_string())),
    }
}

/// A piece of a journal.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) offset: u64,
    /// Who wrote it, as it stands in the name.
    pub(super) hub: String,
    pub(super) size: u64,
    pub(super) key: Path,
}
