//! Where this hub's recordings lie: in a directory, or in a bucket behind a spool. Opens either, and says what is to be
//! recovered.

mod patient;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mezite_core::{Secret, SessionId};
use mezite_record::{Part, Sink, SinkError};
use mezite_vault::{AccessKey, DirectorySink, S3Error, S3Settings, S3Sink};

use crate::config;
use patient::Patient;

/// The variable that may hold the access key.
pub(crate) const ACCESS_KEY: &str = "MEZITE_RECORDINGS_S3_ACCESS_KEY";

/// How long a start waits for the bucket. One that is away stops no hub: the spool is there.
const LOOK: Duration = Duration::from_secs(5);

/// How long the gateway waits for one call of the store.
const PATIENCE: Duration = Duration::from_secs(30);

/// A piece of a running session goes up when its oldest byte is so old, or when it is so large.
const PIECE: (Duration, u64) = (Duration::from_secs(5), 5 * 1024 * 1024);

/// One of the two.
#[derive(Clone, Debug)]
pub(crate) enum Vault {
    Directory(Arc<DirectorySink>),
    Bucket {
        sink: Arc<S3Sink>,
        /// Hubs whose disks are gone.
        lost: Vec<String>,
    },
}

/// Where recordings are to lie. What only root may read is read.
#[derive(Debug)]
pub(crate) enum Source {
    Directory(PathBuf),
    Bucket {
        settings: Box<S3Settings>,
        lost: Vec<String>,
    },
}

impl Source {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// One sentence: what is wrong and what to do.
    pub(crate) fn read(
        recordings: &config::Recordings,
        hub: &str,
        data_dir: &Path,
    ) -> Result<Self, String> {
        let Some(s3) = &recordings.s3 else {
            let directory = recordings.directory.clone();
            let directory = directory.unwrap_or_else(|| data_dir.join("recordings"));
            return Ok(Self::Directory(directory));
        };
        Ok(Self::Bucket {
            settings: Box::new(settings(s3, hub, data_dir)?),
            lost: s3.lost_hubs.clone(),
        })
    }

    /// The directory on this machine.
    pub(crate) fn directory(&self) -> &Path {
        match self {
            Self::Directory(directory) => directory,
            Self::Bucket { settings, .. } => &settings.spool,
        }
    }
}

impl Vault {
    /// Opens it.
    ///
    /// # Errors
    /// One sentence: what is wrong and what to do.
    pub(crate) async fn open(source: Source) -> Result<Self, String> {
        let (settings, lost) = match source {
            Source::Directory(directory) => {
                let sink = DirectorySink::open(directory);
                let sink = sink.map_err(|error| format!("cannot keep recordings: {error}"))?;
                return Ok(Self::Directory(Arc::new(sink)));
            }
            Source::Bucket { settings, lost } => (settings, lost),
        };
        let sink = S3Sink::open(&settings).await;
        let sink = sink.map_err(|error| format!("cannot keep recordings: {error}"))?;
        match tokio::time::timeout(LOOK, sink.check()).await {
            Ok(Ok(())) => {}
            Ok(Err(error @ S3Error::Bucket { passing: true, .. })) => {
                tracing::error!(%error, "recordings stay in the spool for now");
            }
            Ok(Err(error)) => return Err(format!("cannot keep recordings: {error}")),
            Err(_) => tracing::error!(
                bucket = settings.bucket,
                "the bucket does not answer; recordings stay in the spool for now"
            ),
        }
        Ok(Self::Bucket {
            sink: Arc::new(sink),
            lost,
        })
    }

    pub(crate) fn sink(&self) -> Arc<dyn Sink> {
        match self {
            Self::Directory(sink) => sink.clone(),
            Self::Bucket { sink, .. } => sink.clone(),
        }
    }

    /// The same for the gateway, whose sessions end in time whatever the store does.
    pub(crate) fn for_sessions(&self) -> Arc<dyn Sink> {
        Arc::new(Patient::new(self.sink(), PATIENCE))
    }

    /// The file of a finished recording, where they are files.
    pub(crate) fn file(&self, id: &SessionId) -> Option<PathBuf> {
        match self {
            Self::Directory(sink) => Some(sink.sealed_path(id)),
            Self::Bucket { .. } => None,
        }
    }

    /// The sessions whose recorder died, as this machine knows it.
    pub(crate) async fn unfinished(&self) -> Result<Vec<SessionId>, SinkError> {
        match self {
            Self::Directory(sink) => sink.list(Part::Journal).await,
            Self::Bucket { sink, .. } => sink.unfinished().await,
        }
    }

    /// Brings back what hubs with lost disks had uploaded, to be recovered.
    pub(crate) async fn fetch_lost(&self) -> Result<Vec<SessionId>, S3Error> {
        match self {
            Self::Directory(_) => Ok(Vec::new()),
            Self::Bucket { sink, lost } => sink.fetch_lost(lost).await,
        }
    }

    /// Gives uploads some time. What is not done by then goes on at the next start.
    pub(crate) async fn drain(&self, patience: Duration) {
        if let Self::Bucket { sink, .. } = self
            && !sink.drained(patience).await
        {
            tracing::warn!("recordings wait in the spool; the next start goes on uploading them");
        }
    }
}

/// Says where recordings lie, after having looked whether that can be used. A bucket is written to, once.
///
/// # Errors
/// One sentence: what is wrong and what to do.
pub(crate) async fn check(
    recordings: &config::Recordings,
    hub: &str,
    data_dir: &Path,
) -> Result<String, String> {
    let Some(s3) = &recordings.s3 else {
        let directory = recordings.directory.clone();
        let directory = directory.unwrap_or_else(|| data_dir.join("recordings"));
        return Ok(directory.display().to_string());
    };
    let mut settings = settings(s3, hub, data_dir)?;
    // A running hub has its own.
    let scratch = std::env::temp_dir().join(format!("mezhub-check-{}", std::process::id()));
    settings.spool = scratch.clone();
    let checked = async { S3Sink::open(&settings).await?.check().await };
    let checked = checked.await;
    drop(std::fs::remove_dir_all(scratch));
    checked.map_err(|error| format!("recordings.s3: {error}"))?;
    Ok(format!("bucket {} at {}", s3.bucket, s3.place()))
}

fn settings(s3: &config::S3, hub: &str, data_dir: &Path) -> Result<S3Settings, String> {
    let ca_pem = s3.ca_file.as_deref().map(|path| {
        std::fs::read(path).map_err(|error| {
            format!(
                "cannot read recordings.s3.ca_file `{}`: {error}",
                path.display()
            )
        })
    });
    let (piece_every, piece_bytes) = PIECE;
    Ok(S3Settings {
        bucket: s3.bucket.clone(),
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        prefix: s3.prefix.clone(),
        access_key: access_key(s3)?,
        ca_pem: ca_pem.transpose()?,
        hub: hub.to_owned(),
        spool: s3.spool.clone().unwrap_or_else(|| data_dir.join("spool")),
        spool_limit: s3.spool_limit.0,
        index_cache: s3.index_cache.0,
        piece_every,
        piece_bytes,
    })
}

/// From the one place that has it.
fn access_key(s3: &config::S3) -> Result<AccessKey, String> {
    let what = "access key of S3";
    let (place, bytes) = match (&s3.access_key_file, &s3.access_key_credential) {
        (Some(path), _) => (path.display().to_string(), crate::read_secret(what, path)?),
        (None, Some(name)) => {
            let path = crate::credential("recordings.s3.access_key_credential", name)?;
            (path.display().to_string(), crate::read_secret(what, &path)?)
        }
        (None, None) => {
            let value = std::env::var(ACCESS_KEY).map_err(|_| {
                format!(
                    "recordings.s3 has no access key: set access_key_file, access_key_credential or the variable {ACCESS_KEY}"
                )
            })?;
            (ACCESS_KEY.to_owned(), value.into_bytes())
        }
    };
    let bytes = Secret::new(bytes);
    let text = std::str::from_utf8(bytes.expose()).ok();
    let parts = text.and_then(|text| text.trim().split_once(':'));
    match parts {
        Some((id, secret)) if !id.is_empty() && !secret.is_empty() => Ok(AccessKey {
            id: id.to_owned(),
            secret: Secret::new(secret.to_owned()),
        }),
        _ => Err(format!(
            "the {what} in `{place}` is not one: write `ID:SECRET` in one line"
        )),
    }
}
