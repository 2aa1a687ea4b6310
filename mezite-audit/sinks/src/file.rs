//! JSON lines: one event a line, exactly as it is sealed.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use mezite_audit::{Batch, Sink, SinkError};
use mezite_core::event::MAX_BYTES;
use serde::Deserialize;

use crate::failed;

/// Appends events to a file of its own. When the file has reached its size it is renamed after its last event
/// (`audit.jsonl.00000000000000001234`) and a new one begun; the newest few of the renamed are kept.
///
/// A file that somebody moves away (logrotate) is left alone from then on, and a new one begun.
///
/// The newest checkpoint lies beside it in `<file>.checkpoint`, for `mezctl audit verify --keep`.
#[derive(Debug)]
pub struct JsonLines {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    max_bytes: u64,
    keep: usize,
    /// Open since the last batch that went well.
    file: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
    last: u64,
}

impl JsonLines {
    /// A sink that appends to `path`, whose directory must be there; renames it when it has `max_bytes`, and keeps
    /// `keep` of the renamed.
    ///
    /// # Errors
    /// What the system says about the path.
    pub fn open(path: PathBuf, max_bytes: u64, keep: usize) -> Result<Self, SinkError> {
        let shared = Shared {
            path,
            max_bytes,
            keep,
            file: Mutex::default(),
        };
        shared.reopen()?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || work(&shared))
            .await
            .map_err(failed)?
    }
}

/// Where the newest checkpoint lies.
#[must_use]
pub fn checkpoint_path(path: &Path) -> PathBuf {
    with_suffix(path, "checkpoint")
}

#[async_trait]
impl Sink for JsonLines {
    async fn deliver(&self, batch: &Batch<'_>) -> Result<(), SinkError> {
        let mut lines = Vec::new();
        for event in batch.events {
            lines.extend_from_slice(&event.body);
            lines.push(b'\n');
        }
        let (last, note) = (batch.last(), batch.checkpoint.map(str::to_owned));
        self.blocking(move |shared| {
            if let Some(last) = last {
                shared.append(&lines, last)?;
            }
            note.map_or(Ok(()), |note| shared.write_checkpoint(&note))
        })
        .await
    }

    async fn acknowledged(&self) -> Result<u64, SinkError> {
        self.blocking(Shared::last).await
    }
}

impl Shared {
    fn told(&self, what: &str, error: &std::io::Error) -> SinkError {
        failed(format_args!(
            "cannot {what} `{}`: {error}",
            self.path.display()
        ))
    }

    fn last(&self) -> Result<u64, SinkError> {
        let known = self.slot().as_ref().map(|open| open.last);
        match known {
            Some(last) => Ok(last),
            None => self.reopen(),
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Open>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the file anew, without what a crash left half written at its end; gives the last sequence.
    fn reopen(&self) -> Result<u64, SinkError> {
        let opened = self.try_open();
        let open = opened.map_err(|error| self.told("append to", &error))?;
        let last = open.last;
        *self.slot() = Some(open);
        Ok(last)
    }

    fn try_open(&self) -> std::io::Result<Open> {
        let is_new = !self.path.try_exists()?;
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .custom_flags(NO_FOLLOW)
            .open(&self.path)?;
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("it is not a regular file"));
        }
        if is_new {
            sync_directory(&self.path)?;
        }
        let (length, last) = tail(&mut file)?;
        if file.metadata()?.len() != length {
            file.set_len(length)?;
            file.sync_all()?;
        }
        let last = match last {
            Some(last) => last,
            None => self.renamed()?.pop().map_or(0, |(last, _)| last),
        };
        Ok(Open { file, length, last })
    }

    fn append(&self, lines: &[u8], last: u64) -> Result<(), SinkError> {
        let mut slot = self.slot();
        // Taken out: after a failure the end of the file is looked at again.
        let taken = slot.take();
        let mut open = match taken.filter(|open| self.is_there(open)) {
            Some(open) => open,
            None => self
                .try_open()
                .map_err(|error| self.told("append to", &error))?,
        };
        let write = |open: &mut Open| {
            open.file.write_all(lines)?;
            open.file.sync_data()
        };
        write(&mut open).map_err(|error| self.told("append to", &error))?;
        open.length += u64::try_from(lines.len()).unwrap_or(u64::MAX);
        open.last = last;
        if open.length < self.max_bytes {
            *slot = Some(open);
            return Ok(());
        }
        self.rotate(last)
            .map_err(|error| self.told("rotate", &error))
    }

    /// Whether the path still leads to the open file.
    fn is_there(&self, open: &Open) -> bool {
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let named = std::fs::symlink_metadata(&self.path).map(identity);
        let ours = open.file.metadata().map(identity);
        matches!((named, ours), (Ok(named), Ok(ours)) if named == ours)
    }

    fn rotate(&self, last: u64) -> std::io::Result<()> {
        std::fs::rename(&self.path, with_suffix(&self.path, &format!("{last:020}")))?;
        sync_directory(&self.path)?;
        let renamed = self.renamed()?;
        let surplus = renamed.len().saturating_sub(self.keep);
        for (_, path) in renamed.into_iter().take(surplus) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }

    /// The renamed files, oldest first.
    fn renamed(&self) -> std::io::Result<Vec<(u64, PathBuf)>> {
        let (directory, name) = place(&self.path);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let Some(entry_name) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            let suffix = entry_name
                .strip_prefix(&name)
                .and_then(|rest| rest.strip_prefix('.'));
            let ours = |digits: &&str| digits.len() == 20;
            if let Some(last) = suffix.filter(ours).and_then(|digits| digits.parse().ok()) {
                found.push((last, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Replaced at once: a reader finds the old one or the new one.
    fn write_checkpoint(&self, note: &str) -> Result<(), SinkError> {
        let path = checkpoint_path(&self.path);
        let write = || {
            let new = with_suffix(&path, "new");
            let mut file = OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(NO_FOLLOW)
                .open(&new)?;
            file.write_all(note.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            sync_directory(&path)
        };
        write().map_err(|error| self.told("write the checkpoint beside", &error))
    }
}

/// A link in the place of the file is not followed (`O_NOFOLLOW`, Linux).
const NO_FOLLOW: i32 = 0o400_000;

/// Where whole lines end, and the sequence of the last one.
fn tail(file: &mut File) -> std::io::Result<(u64, Option<u64>)> {
    #[derive(Deserialize)]
    struct Numbered {
        sequence: u64,
    }
    // Two of the longest lines: the last whole one is in it, whatever is torn behind it.
    let window = 2 * u64::try_from(MAX_BYTES + 1).unwrap_or(u64::MAX);
    let length = file.metadata()?.len();
    let start = length.saturating_sub(window);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(window).read_to_end(&mut end)?;
    let Some(newline) = end.iter().rposition(|byte| *byte == b'\n') else {
        if start == 0 {
            return Ok((0, None));
        }
        return Err(std::io::Error::other(
            "it does not end like a file of events: move it away",
        ));
    };
    let whole = end.get(..newline).unwrap_or_default();
    let line = whole
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let last: Numbered = serde_json::from_slice(line).map_err(|error| {
        std::io::Error::new(
            ErrorKind::InvalidData,
            format!("its last line is no event ({error}): move it away"),
        )
    })?;
    let whole = start + u64::try_from(newline + 1).unwrap_or(u64::MAX);
    Ok((whole, Some(last.sequence)))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn place(path: &Path) -> (PathBuf, String) {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let name = path.file_name().unwrap_or_default();
    (directory, name.to_string_lossy().into_owned())
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(place(path).0)?.sync_all()
}
