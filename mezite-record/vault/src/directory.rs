//! Recordings as files below one directory.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use mezite_core::SessionId;
use mezite_record::{Part, Sink, SinkError};

use crate::layout::{self, File, length};

/// Keeps recordings in files. A journal is locked (`flock(2)`) by the process that writes it, so that a second process
/// does not recover a session that still runs.
#[derive(Debug)]
pub struct DirectorySink {
    root: PathBuf,
    /// Journals that this process opened, and how long each is.
    live: Mutex<BTreeMap<SessionId, Arc<Mutex<Live>>>>,
}

#[derive(Debug)]
struct Live {
    file: fs::File,
    length: u64,
    /// How much of it survives a power cut.
    synced: u64,
}

impl Live {
    /// Adds whole `bytes` or nothing: what was written of them before a failure is taken back.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all_at(bytes, self.length);
        if let Err(error) = written {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += length(bytes);
        Ok(())
    }

    /// An idle session has nothing to sync, and costs the disk nothing.
    fn sync(&mut self) -> io::Result<()> {
        if self.synced < self.length {
            self.file.sync_data()?;
            self.synced = self.length;
        }
        Ok(())
    }
}

impl DirectorySink {
    /// Uses the directory `root`, which is made if it is missing (mode 0700; its parent must exist).
    ///
    /// # Errors
    /// When the directory cannot be made or is not a directory.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        // What is above a directory that is there already may be none of ours to open.
        let made = !root.is_dir();
        make_directory(&root)?;
        let parent = root.parent().filter(|it| !it.as_os_str().is_empty());
        if let Some(parent) = parent.filter(|_| made) {
            sync_directory(parent)?;
        }
        Ok(Self {
            root,
            live: Mutex::default(),
        })
    }

    /// Where the finished recording of a session lies or will lie.
    #[must_use]
    pub fn sealed_path(&self, id: &SessionId) -> PathBuf {
        layout::path(&self.root, id, File::Sealed)
    }

    fn path(&self, id: &SessionId, file: File) -> PathBuf {
        layout::path(&self.root, id, file)
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<SessionId, Arc<Mutex<Live>>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the journal that this process writes. Other sessions do not wait for it.
    fn with_live(
        &self,
        id: &SessionId,
        act: impl FnOnce(&mut Live) -> io::Result<()>,
    ) -> Result<(), SinkError> {
        let live = self.live().get(id).cloned();
        let live = live.ok_or(SinkError::Missing(*id))?;
        let mut live = live.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut live).map_err(|error| unavailable(&self.path(id, File::Journal), &error))
    }

    fn exists(&self, id: &SessionId, file: File) -> Result<bool, SinkError> {
        let path = self.path(id, file);
        path.try_exists()
            .map_err(|error| unavailable(&path, &error))
    }

    fn create_journal(&self, id: &SessionId, head: &[u8]) -> io::Result<Live> {
        let month = layout::month(&self.root, id);
        make_directory(&month)?;
        sync_directory(&self.root)?;
        let path = self.path(id, File::Journal);
        let file = new_file().create_new(true).open(&path)?;
        file.try_lock()?;
        let mut live = Live {
            file,
            length: 0,
            synced: 0,
        };
        let written = live
            .append(head)
            .and_then(|()| live.file.sync_data())
            .and_then(|()| sync_directory(&month));
        if let Err(error) = written {
            // No session began: an empty journal would be taken for one that lost everything.
            fs::remove_file(&path)?;
            return Err(error);
        }
        Ok(live)
    }

    /// Takes over a journal that this process does not write. Its lock is free only if its writer died.
    fn adopt(&self, id: &SessionId) -> Result<(), SinkError> {
        if self.live().contains_key(id) {
            return Ok(());
        }
        let path = self.path(id, File::Journal);
        let adopted = new_file().open(&path).and_then(|file| {
            file.try_lock()?;
            let length = file.metadata()?.len();
            Ok(Live {
                file,
                length,
                synced: 0,
            })
        });
        let live = adopted.map_err(|error| {
            if error.kind() == ErrorKind::WouldBlock {
                let what = format!("session {id} is being recorded by another process");
                return SinkError::Unavailable(what);
            }
            failure(id, &path, &error)
        })?;
        self.live().insert(*id, Arc::new(Mutex::new(live)));
        Ok(())
    }

    fn write_staged(&self, id: &SessionId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(id, File::Staged);
        if offset == 0 {
            remove(&path)?;
        }
        let mut file = new_file().create_new(offset == 0).open(&path)?;
        if file.seek(SeekFrom::End(0))? != offset {
            let what = format!("a piece at {offset} does not follow the piece before");
            return Err(io::Error::new(ErrorKind::InvalidInput, what));
        }
        file.write_all(bytes)
    }

    /// Publishes the staged file. `link` fails where the name is taken, which `rename` would not.
    fn publish(&self, id: &SessionId) -> io::Result<()> {
        let month = layout::month(&self.root, id);
        let staged = self.path(id, File::Staged);
        fs::File::open(&staged)?.sync_all()?;
        fs::hard_link(&staged, self.path(id, File::Sealed))?;
        sync_directory(&month)?;
        fs::remove_file(&staged)?;
        remove(&self.path(id, File::Journal))?;
        sync_directory(&month)
    }

    /// Writes an index beside its recording. A crash leaves the one before, or none.
    fn write_index(&self, id: &SessionId, bytes: &[u8]) -> io::Result<()> {
        fs::metadata(self.sealed_path(id))?;
        let fresh = self.path(id, File::NewIndex);
        let mut file = new_file().create(true).truncate(true).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&fresh, self.path(id, File::Index))
    }

    /// The recording goes last: a crash leaves one without an index, which is made anew, and never an index without one.
    fn remove_sealed(&self, id: &SessionId) -> io::Result<()> {
        let sealed = self.sealed_path(id);
        fs::metadata(&sealed)?;
        for file in [File::NewIndex, File::Index] {
            remove(&self.path(id, file))?;
        }
        fs::remove_file(&sealed)?;
        sync_directory(&layout::month(&self.root, id))
    }

    fn months(&self) -> io::Result<Vec<PathBuf>> {
        let mut months = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                months.push(entry.path());
            }
        }
        Ok(months)
    }

    fn sessions(&self, file: File) -> io::Result<Vec<SessionId>> {
        let mut found = Vec::new();
        for month in self.months()? {
            for entry in fs::read_dir(month)? {
                let name = entry?.file_name();
                found.extend(name.to_str().and_then(|it| layout::session(it, file)));
            }
        }
        // A file in the directory of another month is none of ours.
        found.retain(|id| self.path(id, file).is_file());
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Removes what is left of a session whose sealed file is in place: the process died just before it would have.
    fn clear_leftovers(&self, id: &SessionId) -> io::Result<()> {
        for file in [File::Staged, File::Journal] {
            remove(&self.path(id, file))?;
        }
        sync_directory(&layout::month(&self.root, id))
    }

    fn unfinished(&self) -> io::Result<Vec<SessionId>> {
        let mut unfinished = Vec::new();
        for id in self.sessions(File::Journal)? {
            if self.path(&id, File::Sealed).try_exists()? {
                self.clear_leftovers(&id)?;
            } else {
                unfinished.push(id);
            }
        }
        Ok(unfinished)
    }
}

#[async_trait]
impl Sink for DirectorySink {
    async fn open(&self, id: &SessionId, head: &[u8]) -> Result<(), SinkError> {
        if self.exists(id, File::Sealed)? {
            return Err(SinkError::Exists(*id));
        }
        let live = self
            .create_journal(id, head)
            .map_err(|error| failure(id, &self.path(id, File::Journal), &error))?;
        self.live().insert(*id, Arc::new(Mutex::new(live)));
        Ok(())
    }

    async fn append(&self, id: &SessionId, bytes: &[u8]) -> Result<(), SinkError> {
        self.with_live(id, |live| live.append(bytes))
    }

    async fn sync(&self, id: &SessionId) -> Result<(), SinkError> {
        self.with_live(id, Live::sync)
    }

    async fn stage(&self, id: &SessionId, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        if self.exists(id, File::Sealed)? {
            return Err(SinkError::Exists(*id));
        }
        self.adopt(id)?;
        self.write_staged(id, offset, bytes)
            .map_err(|error| unavailable(&self.path(id, File::Staged), &error))
    }

    async fn finish(&self, id: &SessionId) -> Result<(), SinkError> {
        self.publish(id)
            .map_err(|error| failure(id, &self.sealed_path(id), &error))?;
        self.live().remove(id);
        Ok(())
    }

    async fn put_index(&self, id: &SessionId, bytes: &[u8]) -> Result<(), SinkError> {
        self.write_index(id, bytes)
            .map_err(|error| failure(id, &self.path(id, File::Index), &error))
    }

    async fn remove(&self, id: &SessionId) -> Result<(), SinkError> {
        self.remove_sealed(id)
            .map_err(|error| failure(id, &self.sealed_path(id), &error))
    }

    async fn read(
        &self,
        id: &SessionId,
        part: Part,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<u8>, SinkError> {
        let path = self.path(id, file_of(part));
        read_piece(&path, offset, limit).map_err(|error| failure(id, &path, &error))
    }

    async fn length(&self, id: &SessionId, part: Part) -> Result<u64, SinkError> {
        let path = self.path(id, file_of(part));
        let found = fs::metadata(&path);
        found
            .map(|found| found.len())
            .map_err(|error| failure(id, &path, &error))
    }

    async fn list(&self, part: Part) -> Result<Vec<SessionId>, SinkError> {
        let found = match part {
            Part::Journal => self.unfinished(),
            Part::Sealed => self.sessions(File::Sealed),
            Part::Index => self.sessions(File::Index),
        };
        found.map_err(|error| unavailable(&self.root, &error))
    }
}

fn file_of(part: Part) -> File {
    match part {
        Part::Journal => File::Journal,
        Part::Sealed => File::Sealed,
        Part::Index => File::Index,
    }
}

/// Removes a file if it is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn read_piece(path: &Path, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let behind = file.metadata()?.len().saturating_sub(offset);
    let count = behind.min(u64::try_from(limit).unwrap_or(u64::MAX));
    if count == 0 {
        return Ok(Vec::new());
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut piece = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
    file.take(count).read_to_end(&mut piece)?;
    Ok(piece)
}

/// Files that the owner alone reads and writes.
fn new_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// Makes the names in a directory survive a power cut.
fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// What a failed file call means for the session.
fn failure(id: &SessionId, path: &Path, error: &io::Error) -> SinkError {
    if error.kind() == ErrorKind::NotFound {
        SinkError::Missing(*id)
    } else if error.kind() == ErrorKind::AlreadyExists {
        SinkError::Exists(*id)
    } else {
        unavailable(path, error)
    }
}

fn unavailable(path: &Path, error: &io::Error) -> SinkError {
    SinkError::Unavailable(format!("`{}`: {error}", path.display()))
}
