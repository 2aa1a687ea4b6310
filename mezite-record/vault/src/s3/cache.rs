//! Copies of search indexes on the hub's disk, so that a search does not fetch each of them each time. Nothing is lost with a
//! copy, and little believed of it: its digest stands before it, and it is sealed like its original.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use mezite_core::SessionId;
use mezite_record::Stored;
use sha2::{Digest, Sha256};

use super::upload::lock;
use crate::layout::length;

/// Bytes of a SHA-256.
const DIGEST: usize = 32;

/// A bounded directory of files `<id>.<version>`: the SHA-256 of an index, and the index.
#[derive(Debug)]
pub(super) struct IndexCache {
    root: PathBuf,
    limit: u64,
    copies: Mutex<Copies>,
}

#[derive(Debug, Default)]
struct Copies {
    by_id: BTreeMap<SessionId, Copy>,
    bytes: u64,
    /// Grows with each use.
    clock: u64,
}

#[derive(Debug)]
struct Copy {
    version: String,
    bytes: u64,
    used: u64,
}

impl Copies {
    fn use_now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn insert(&mut self, id: SessionId, version: String, bytes: u64) {
        let used = self.use_now();
        self.bytes = self.bytes.saturating_add(bytes);
        let copy = Copy {
            version,
            bytes,
            used,
        };
        self.by_id.insert(id, copy);
    }

    fn remove(&mut self, id: &SessionId) -> Option<Copy> {
        let copy = self.by_id.remove(id)?;
        self.bytes = self.bytes.saturating_sub(copy.bytes);
        Some(copy)
    }
}

impl IndexCache {
    /// Uses the directory, with the copies that an earlier process left there.
    pub(super) fn open(root: PathBuf, limit: u64) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(&root) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(&root)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            match parse(&entry.file_name().to_string_lossy()) {
                Some((id, version)) => {
                    let written = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    found.push((written, id, version, meta.len()));
                }
                // It was being written when its writer died.
                None => drop(fs::remove_file(entry.path())),
            }
        }
        found.sort();
        let cache = Self {
            root,
            limit,
            copies: Mutex::default(),
        };
        for (_, id, version, bytes) in found {
            cache.enter(&mut lock(&cache.copies), id, version, bytes);
        }
        Ok(cache)
    }

    fn path(&self, id: &SessionId, version: &str) -> PathBuf {
        self.root.join(format!("{id}.{version}"))
    }

    /// The copy of what a survey found.
    pub(super) fn get(&self, stored: &Stored) -> Option<Vec<u8>> {
        let version = version(stored)?;
        let path = self.path(&stored.id, &version);
        {
            let mut copies = lock(&self.copies);
            let used = copies.use_now();
            let copy = copies.by_id.get_mut(&stored.id)?;
            if copy.version != version {
                return None;
            }
            copy.used = used;
        }
        let found = read(&path);
        if found.is_none() {
            let mut copies = lock(&self.copies);
            // Meanwhile another may have come in its place.
            if copies
                .by_id
                .get(&stored.id)
                .is_some_and(|copy| copy.version == version)
            {
                tracing::warn!(session = %stored.id, "the copy of a search index is damaged, and is fetched again");
                self.drop_copy(&mut copies, &stored.id);
            }
        }
        found
    }

    /// Keeps a copy. A disk that does not take it costs time and nothing else.
    pub(super) fn put(&self, stored: &Stored, index: &[u8]) {
        let digest = Sha256::digest(index);
        let bytes = length(&digest).saturating_add(length(index));
        let Some(version) = version(stored).filter(|_| bytes <= self.limit) else {
            return;
        };
        let path = self.path(&stored.id, &version);
        let mut copies = lock(&self.copies);
        self.drop_copy(&mut copies, &stored.id);
        match write(&path, &[&digest, index]) {
            Ok(()) => self.enter(&mut copies, stored.id, version, bytes),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "a search index is not copied");
            }
        }
    }

    /// Drops the copy of a recording that is removed.
    pub(super) fn forget(&self, id: &SessionId) {
        self.drop_copy(&mut lock(&self.copies), id);
    }

    /// Drops the copies of what a survey of all did not find: another hub removed it.
    pub(super) fn keep_only(&self, found: &[Stored]) {
        let found: BTreeSet<_> = found.iter().map(|it| it.id).collect();
        let mut copies = lock(&self.copies);
        let known: BTreeSet<_> = copies.by_id.keys().copied().collect();
        for id in known.difference(&found) {
            self.drop_copy(&mut copies, id);
        }
    }

    /// Counts a copy that is in its place. What was not used for the longest time makes room for it.
    fn enter(&self, copies: &mut Copies, id: SessionId, version: String, bytes: u64) {
        self.drop_copy(copies, &id);
        copies.insert(id, version, bytes);
        while copies.bytes > self.limit {
            let oldest = copies.by_id.iter().min_by_key(|(_, copy)| copy.used);
            let Some(oldest) = oldest.map(|(id, _)| *id) else {
                return;
            };
            self.drop_copy(copies, &oldest);
        }
    }

    fn drop_copy(&self, copies: &mut Copies, id: &SessionId) {
        if let Some(copy) = copies.remove(id) {
            // One that cannot be removed is counted again at the next start.
            drop(fs::remove_file(self.path(id, &copy.version)));
        }
    }
}

/// What a version is called in a file's name, whatever characters the store uses.
fn version(stored: &Stored) -> Option<String> {
    let mut hash = Sha256::new();
    hash.update(stored.bytes.to_be_bytes());
    hash.update(stored.version.as_ref()?);
    Some(HEXLOWER.encode(&hash.finalize()))
}

fn parse(name: &str) -> Option<(SessionId, String)> {
    let (id, version) = name.split_once('.')?;
    let is_version = HEXLOWER
        .decode(version.as_bytes())
        .is_ok_and(|it| it.len() == DIGEST);
    Some((id.parse().ok()?, version.to_owned())).filter(|_| is_version)
}

/// The content of a copy, if it is what was written.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut file = fs::read(path).ok()?;
    let digest = *file.first_chunk::<DIGEST>()?;
    file.drain(..DIGEST);
    (Sha256::digest(&file).as_slice() == digest).then_some(file)
}

/// A file is whole or not there, unless the power is cut: then its digest shows it.
fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let fresh = path.with_extension("part");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(&fresh).and_then(|mut file| {
        parts.iter().try_for_each(|part| file.write_all(part))?;
        fs::rename(&fresh, path)
    });
    if written.is_err() {
        drop(fs::remove_file(&fresh));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use mezite_core::UnixTime;

    fn stored(number: u8, version: &str) -> Stored {
        Stored {
            id: SessionId::new(UnixTime::from_secs(1_767_225_600), [number; 16]),
            bytes: 100,
            version: Some(version.to_owned()),
        }
    }

    fn kept(cache: &IndexCache) -> Vec<u8> {
        (0..20)
            .filter(|number| cache.get(&stored(*number, "\"1/../a\"")).is_some())
            .collect()
    }

    fn files(cache: &IndexCache) -> usize {
        fs::read_dir(&cache.root).unwrap().count()
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room_and_a_start_goes_on() {
        let root = tempfile::tempdir().unwrap();
        let open = || IndexCache::open(root.path().join("indexes"), 500).unwrap();
        let cache = open();
        for number in 0..3 {
            cache.put(&stored(number, "\"1/../a\""), &[number; 100]);
        }
        assert_eq!(cache.get(&stored(0, "\"1/../a\"")), Some(vec![0; 100]));
        // 132 bytes each: the fourth does not fit beside the three.
        cache.put(&stored(3, "\"1/../a\""), &[3; 100]);
        assert_eq!(kept(&cache), [0, 2, 3]);
        assert_eq!(files(&cache), 3);
        cache.put(&stored(4, "\"1/../a\""), &[4; 1000]);
        assert_eq!(
            kept(&cache),
            [0, 2, 3],
            "what never fits drives out nothing"
        );
        fs::write(cache.root.join("half.part"), b"x").unwrap();
        drop(cache);
        let cache = open();
        assert_eq!(kept(&cache), [0, 2, 3]);
        assert_eq!(files(&cache), 3, "what was half written is gone");
        let smaller = IndexCache::open(root.path().join("indexes"), 300).unwrap();
        assert_eq!((kept(&smaller).len(), files(&smaller)), (2, 2));
    }

    #[test]
    fn another_version_is_another_index_and_replaces_it() {
        let root = tempfile::tempdir().unwrap();
        let cache = IndexCache::open(root.path().join("indexes"), 10_000).unwrap();
        cache.put(&stored(1, "a"), b"one");
        assert_eq!(cache.get(&stored(1, "b")), None);
        let longer = Stored {
            bytes: 101,
            ..stored(1, "a")
        };
        assert_eq!(cache.get(&longer), None);
        cache.put(&stored(1, "b"), b"two");
        assert_eq!(cache.get(&stored(1, "a")), None);
        assert_eq!(cache.get(&stored(1, "b")), Some(b"two".to_vec()));
        assert_eq!(files(&cache), 1);
        let nameless = Stored {
            version: None,
            ..stored(2, "")
        };
        cache.put(&nameless, b"three");
        assert_eq!(cache.get(&nameless), None, "a store that tells no versions");
    }

    #[test]
    fn what_was_changed_or_cut_is_no_copy() {
        let root = tempfile::tempdir().unwrap();
        let cache = IndexCache::open(root.path().join("indexes"), 10_000).unwrap();
        let stored = stored(1, "a");
        let path = cache.path(&stored.id, &version(&stored).unwrap());
        cache.put(&stored, b"index");
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut edited = whole.clone();
            edited[at] ^= 1;
            for damaged in [&edited[..], &whole[..at]] {
                fs::write(&path, damaged).unwrap();
                assert_eq!(cache.get(&stored), None, "{at}");
                assert!(!path.exists());
                cache.put(&stored, b"index");
                assert_eq!(cache.get(&stored), Some(b"index".to_vec()));
            }
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(cache.get(&stored), None);
    }

    #[test]
    fn what_is_removed_leaves_no_copy() {
        let root = tempfile::tempdir().unwrap();
        let cache = IndexCache::open(root.path().join("indexes"), 10_000).unwrap();
        let all = [1, 2, 3].map(|number| stored(number, "\"1/../a\""));
        for stored in &all {
            cache.put(stored, b"index");
        }
        cache.forget(&all[0].id);
        assert_eq!(kept(&cache), [2, 3]);
        cache.keep_only(&all[1..2]);
        assert_eq!(kept(&cache), [2]);
        assert_eq!(files(&cache), 1);
    }
}
