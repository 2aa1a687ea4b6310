//! A directory that holds the log's tree as C2SP tlog-tiles serves it: `checkpoint`, `tile/<level>/…`, and where asked
//! `tile/entries/…`. It only grows: what it holds is never overwritten by something else, so whoever keeps one sees when the
//! hub shows another log than before.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use mezite_audit::Checkpoint;
use mezite_audit::merkle::{Hash, leaf_hash};
use mezite_audit::proof;
use mezite_audit::tile::{self, Place, Tiles, WIDTH, groups};

use crate::fail::Failure;
use crate::files::Output;

/// Most tiles that are asked for at once.
pub(crate) const AT_ONCE: usize = 64;

/// What is to be in the directory: a checkpoint whose signature was verified.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) note: String,
}

#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

/// The hub's log is not the one that the directory holds.
fn split(what: impl std::fmt::Display) -> Failure {
    Failure::failed(format_args!(
        "the hub shows another log than the one in the directory: {what}; keep both, they are the evidence"
    ))
}

impl Directory {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// The note that the directory ends with, if there is one.
    pub(crate) fn note(&self) -> Result<Option<String>, Failure> {
        let bytes = self.read("checkpoint")?;
        let text = bytes.map(String::from_utf8).transpose();
        text.map_err(|_| self.broken("`checkpoint` is no text"))
    }

    /// Takes the tree on from the checkpoint `from`, which the directory holds, to `target`. Nothing is written before all
    /// of it leads to the root that was signed. `fetch` gives level-0 tiles as the hub has them.
    pub(crate) async fn update(
        &self,
        from: Option<&Checkpoint>,
        target: &Target,
        mut fetch: impl AsyncFnMut(&[Place]) -> Result<Vec<Vec<u8>>, Failure>,
    ) -> Result<usize, Failure> {
        let (old, new) = (from.map_or(0, |from| from.size), target.checkpoint.size);
        if let Some(from) = from {
            self.check(from)?;
            if old > new {
                return Err(split(format_args!(
                    "it was signed over {old} events, and the newest checkpoint is over {new}"
                )));
            }
        }
        let edge = Tiles::edge(old);
        let contents = edge.iter().map(|(place, width)| match *width {
            0 => Ok(None),
            width => self.read(&place.path(count(width))),
        });
        let contents = contents.collect::<Result<Vec<_>, _>>()?;
        let mut tree = Tiles::load(old, &contents).map_err(|error| self.broken(error))?;
        let mut fresh: BTreeMap<Place, Vec<u8>> = BTreeMap::new();
        let places: Vec<Place> = (old / WIDTH..new.div_ceil(WIDTH))
            .map(|index| Place { level: 0, index })
            .collect();
        for chunk in places.chunks(AT_ONCE) {
            let found = fetch(chunk).await?;
            for (place, content) in chunk.iter().zip(&found) {
                let first = place.index * WIDTH;
                let width = (new - first).min(WIDTH);
                let hashes = tile::read(*place, width, content).map_err(split)?;
                let known = count(old.saturating_sub(first));
                self.same_start(*place, known, &hashes)?;
                for hash in hashes.iter().take(count(width)).skip(known) {
                    tree.append(*hash);
                }
            }
            if found.len() != chunk.len() {
                return Err(Failure::failed(
                    "the hub gave fewer tiles than it was asked for",
                ));
            }
            fresh.extend(tree.take_changed());
        }
        // As wide as the tree is: a tile that was complete before it is asked for again stays as it is.
        let source = |place: Place| match fresh.get(&place) {
            Some(content) => Some(content.clone()),
            None => self.tile(place, old).ok().flatten(),
        };
        let root = proof::root(&source, new).map_err(|error| self.broken(error))?;
        if root != target.checkpoint.root {
            return Err(split(format_args!(
                "at {new} events its root is {}, and these tiles lead to {}",
                BASE64.encode(&target.checkpoint.root),
                BASE64.encode(&root)
            )));
        }
        for (place, content) in &fresh {
            let width = content.len() / 32;
            self.put(&place.path(width), content)?;
            if width == count(WIDTH) {
                self.drop_partial(&place.path(width))?;
            }
        }
        Ok(fresh.len())
    }

    /// The last step: from here on the directory holds this checkpoint.
    pub(crate) fn finish(&self, target: &Target) -> Result<(), Failure> {
        self.replace("checkpoint", target.note.as_bytes())
    }

    /// Checks all hashes against the checkpoint that the directory ends with: level by level, each tile against the one above
    /// it, and the edge against the signed root.
    pub(crate) fn check(&self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        let size = checkpoint.size;
        let source = |place: Place| self.tile(place, size).ok().flatten();
        let root = proof::root(&source, size).map_err(|error| self.broken(error))?;
        if root != checkpoint.root {
            return Err(self.broken("its tiles do not lead to the root that was signed"));
        }
        let (mut level, mut tiles) = (0_u8, size / WIDTH);
        while tiles > 0 {
            for index in 0..tiles {
                let (place, above) = (
                    Place { level, index },
                    Place {
                        level: level + 1,
                        index: index / WIDTH,
                    },
                );
                let (below, above) = (self.tile(place, size)?, self.tile(above, size)?);
                let below = below.unwrap_or_default();
                let hashes =
                    tile::read(place, WIDTH, &below).map_err(|error| self.broken(error))?;
                let told = above.and_then(|above| {
                    let at = count(index % WIDTH) * 32;
                    above.get(at..at + 32).map(<[u8]>::to_vec)
                });
                if told.as_deref() != Some(tile::root(&hashes).as_slice()) {
                    return Err(self.broken(format_args!(
                        "the tile `{}` is not the one that was written",
                        place.path(count(WIDTH))
                    )));
                }
            }
            level += 1;
            tiles /= WIDTH;
        }
        Ok(())
    }

    /// Adds events to `tile/entries`, 256 a file. Of those that were pruned there is no body, and a file with one of
    /// them is not written. Says how many were not.
    pub(crate) fn entries(
        &self,
        size: u64,
        mut bodies: impl Iterator<Item = Result<(u64, Option<Vec<u8>>), Failure>>,
        first: u64,
    ) -> Result<u64, Failure> {
        let mut skipped = 0;
        let mut index = first / WIDTH;
        while index * WIDTH < size {
            let width = (size - index * WIDTH).min(WIDTH);
            let place = Place { level: 0, index };
            let tile = self.tile(place, size)?.unwrap_or_default();
            let hashes = tile::read(place, width, &tile).map_err(|error| self.broken(error))?;
            let mut file = Some(Vec::new());
            for (sequence, hash) in (index * WIDTH + 1..).zip(hashes.iter().take(count(width))) {
                let (found, body) = bodies.next().unwrap_or(Ok((sequence, None)))?;
                if found != sequence {
                    return Err(split(format_args!("event {sequence} is missing")));
                }
                match (body, &mut file) {
                    (Some(body), _) if leaf_hash(&body) != *hash => {
                        return Err(split(format_args!(
                            "event {sequence} is not the one that was sealed"
                        )));
                    }
                    (Some(body), Some(file)) => append_entry(file, &body)?,
                    (None, _) => file = None,
                    (Some(_), None) => {}
                }
            }
            match file {
                Some(file) => {
                    let path = entries_path(index, width);
                    self.put(&path, &file)?;
                    if width == WIDTH {
                        self.drop_partial(&path)?;
                    }
                }
                None => skipped += 1,
            }
            index += 1;
        }
        Ok(skipped)
    }

    /// The hashes that the directory has of a tile must be those that the hub has.
    fn same_start(&self, place: Place, known: usize, hashes: &[Hash]) -> Result<(), Failure> {
        if known == 0 {
            return Ok(());
        }
        let own = self.read(&place.path(known))?.unwrap_or_default();
        let theirs = hashes.get(..known).map(<[Hash]>::concat);
        if theirs.as_deref() == Some(own.as_slice()) {
            return Ok(());
        }
        Err(split(format_args!(
            "its tile `{}` differs",
            place.path(known)
        )))
    }

    /// A tile of the tree of `size`, as wide as it is there.
    fn tile(&self, place: Place, size: u64) -> Result<Option<Vec<u8>>, Failure> {
        let hashes = size
            .checked_div(WIDTH.saturating_pow(u32::from(place.level)))
            .unwrap_or(0);
        let width = hashes.saturating_sub(place.index * WIDTH).min(WIDTH);
        match width {
            0 => Ok(None),
            width => self.read(&place.path(count(width))),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::failed(format_args!(
                "cannot read `{}`: {error}",
                path.display()
            ))),
        }
    }

    /// Writes what is not there yet. What is there and differs stays, and is told.
    fn put(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        match self.read(name)? {
            Some(found) if found == content => Ok(()),
            Some(_) => Err(split(format_args!("`{name}` is there and differs"))),
            None => self.replace(name, content),
        }
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let path = self.path.join(name);
        let cannot = |error: std::io::Error| {
            Failure::failed(format_args!("cannot write `{}`: {error}", path.display()))
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(cannot)?;
        }
        let mut output = Output::open(Some(&path))?;
        output.write_all(content).map_err(cannot)?;
        output.finish()
    }

    /// A complete tile stands for all incomplete ones of it.
    fn drop_partial(&self, name: &str) -> Result<(), Failure> {
        let path = self.path.join(format!("{name}.p"));
        match fs::remove_dir_all(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Failure::failed(format_args!(
                "cannot remove `{}`: {error}",
                path.display()
            ))),
        }
    }

    fn broken(&self, what: impl std::fmt::Display) -> Failure {
        Failure::failed(format_args!(
            "the directory `{}` was changed: {what}",
            self.path.display()
        ))
    }
}

/// C2SP tlog-tiles: the length in two bytes, then the entry.
fn append_entry(file: &mut Vec<u8>, body: &[u8]) -> Result<(), Failure> {
    let length = u16::try_from(body.len())
        .map_err(|_| Failure::failed("an event is too long for a bundle of entries"))?;
    file.extend(length.to_be_bytes());
    file.extend(body);
    Ok(())
}

fn entries_path(index: u64, width: u64) -> String {
    let partial = if width == WIDTH {
        String::new()
    } else {
        format!(".p/{width}")
    };
    format!("tile/entries/{}{partial}", groups(index))
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};
    use mezite_audit::keeper::Head;
    use mezite_audit::{NoteKey, checkpoint};
    use mezite_core::store::StoredEvent;
    use signed_note::{Note, StandardVerifier, VerifierList};
    use tlog_tiles::{Tile, TileHashReader, TileReader};

    use super::*;

    const ORIGIN: &str = "example/mezite-audit";

    fn events(count: u64, salt: &str) -> Vec<StoredEvent> {
        let stored = |sequence: u64| StoredEvent {
            sequence,
            body: format!("{{\"sequence\":{sequence},\"salt\":\"{salt}\"}}").into_bytes(),
        };
        (1..=count).map(stored).collect()
    }

    fn key() -> (SigningKey, NoteKey) {
        let signing = SigningKey::from_bytes(&[7; 32]);
        let key = NoteKey::new(ORIGIN, &signing.verifying_key().to_bytes()).unwrap();
        (signing, key)
    }

    fn target(events: &[StoredEvent]) -> Target {
        let (signing, key) = key();
        let checkpoint = Head::default().advance(events).unwrap().checkpoint(ORIGIN);
        let signature = signing.sign(checkpoint.body().as_bytes()).to_bytes();
        Target {
            note: checkpoint::finish(&checkpoint, &key, &signature).unwrap(),
            checkpoint,
        }
    }

    /// What a hub with these events serves.
    fn served(events: &[StoredEvent]) -> BTreeMap<Place, Vec<u8>> {
        let mut edge = Tiles::default();
        for event in events {
            edge.append(leaf_hash(&event.body));
        }
        edge.take_changed().into_iter().collect()
    }

    /// One run of `audit tiles` up to `size`, while the hub already has more.
    async fn run(directory: &Path, log: &[StoredEvent], size: usize) -> Result<usize, Failure> {
        let (tiles, target) = (served(log), target(&log[..size]));
        let directory = Directory::new(directory);
        let own = directory.note()?;
        let from = own.map(|note| checkpoint::open(&note, &key().1).unwrap());
        let written = directory
            .update(from.as_ref(), &target, async |places: &[Place]| {
                Ok(places.iter().map(|place| tiles[place].clone()).collect())
            })
            .await?;
        let first = from.map_or(0, |from| from.size) / WIDTH * WIDTH;
        let bodies = log[count(first)..size]
            .iter()
            .map(|event| Ok((event.sequence, Some(event.body.clone()))));
        assert_eq!(directory.entries(target.checkpoint.size, bodies, first)?, 0);
        directory.finish(&target)?;
        Ok(written)
    }

    /// Somebody who has nothing but the files, and a library that is not ours.
    struct Stranger<'a>(&'a Path);

    impl TileReader for Stranger<'_> {
        fn height(&self) -> u8 {
            8
        }

        fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
            let read = |tile: &Tile| {
                // Their paths have the tile's height in front, as Go's checksum database has it.
                let path = tile.path().replacen("tile/8/", "tile/", 1);
                fs::read(self.0.join(path)).map_err(|_| tlog_tiles::Error::InvalidTile)
            };
            tiles.iter().map(read).collect()
        }

        fn save_tiles(&self, _tiles: &[Tile], _data: &[Vec<u8>]) {}
    }

    /// Size and root that the stranger reads, after the signature was verified.
    fn read_by_a_stranger(directory: &Path) -> (u64, tlog_tiles::Hash) {
        let bytes = fs::read(directory.join("checkpoint")).unwrap();
        let verifier = StandardVerifier::new(&key().1.to_line()).unwrap();
        let note = Note::from_bytes(&bytes).unwrap();
        note.verify(&VerifierList::new(vec![Box::new(verifier)]))
            .unwrap();
        let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
        (checkpoint.size(), *checkpoint.hash())
    }

    /// The entries of a bundle as the stranger cuts them.
    fn entries(bundle: &[u8]) -> Vec<&[u8]> {
        let (mut rest, mut found) = (bundle, Vec::new());
        while let [high, low, tail @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            found.push(&tail[..length]);
            rest = &tail[length..];
        }
        found
    }

    #[tokio::test]
    async fn attack_55_a_stranger_proves_from_the_directory_alone_and_sees_what_was_changed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path();
        let log = events(1000, "a");
        for size in [3, 3, 256, 300, 999] {
            run(path, &log, size).await.unwrap();
        }
        let (size, root) = read_by_a_stranger(path);
        assert_eq!(size, 999);
        let stranger = Stranger(path);
        for sequence in [1_u64, 256, 257, 768, 999] {
            let reader = TileHashReader::new(size, root, &stranger);
            let path_up = tlog_tiles::prove_record(size, sequence - 1, &reader).unwrap();
            let bundle = match (sequence - 1) / 256 {
                3 => "tile/entries/003.p/231".to_owned(),
                index => format!("tile/entries/00{index}"),
            };
            let bundle = fs::read(path.join(bundle)).unwrap();
            let entry = entries(&bundle)[count((sequence - 1) % 256)];
            assert_eq!(entry, log[count(sequence - 1)].body);
            let leaf = tlog_tiles::record_hash(entry);
            tlog_tiles::check_record(&path_up, size, root, sequence - 1, leaf).unwrap();
        }
        assert!(
            !path.join("tile/0/000.p").exists(),
            "the whole tile stands for it"
        );
        let tile = path.join("tile/0/001");
        let mut bytes = fs::read(&tile).unwrap();
        bytes[40] ^= 1;
        fs::write(&tile, &bytes).unwrap();
        let reader = TileHashReader::new(size, root, &stranger);
        let leaf = tlog_tiles::record_hash(&log[300].body);
        let proven = tlog_tiles::prove_record(size, 300, &reader);
        let holds =
            proven.is_ok_and(|path| tlog_tiles::check_record(&path, size, root, 300, leaf).is_ok());
        assert!(!holds, "a tile that was changed proves nothing");
        let refused = run(path, &log, 1000).await.unwrap_err().to_string();
        assert!(
            refused.contains("was changed") && refused.contains("tile/0/001"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn attack_55_a_hub_that_shows_another_log_than_before_is_found_and_nothing_is_overwritten()
     {
        let log = events(700, "a");
        let mut rewritten = log.clone();
        rewritten[270].body = b"{\"sequence\":271}".to_vec();
        let mut tail = log.clone();
        tail[698].body = b"{\"sequence\":699}".to_vec();
        for (from, other, size) in [
            // A rewritten event in the last tile, in an earlier one, and a log that was cut.
            (300, &rewritten, 700),
            (600, &rewritten, 700),
            (600, &log, 500),
            (700, &tail, 700),
        ] {
            let home = tempfile::tempdir().unwrap();
            run(home.path(), &log, from).await.unwrap();
            let before = read_by_a_stranger(home.path());
            let refused = run(home.path(), other, size).await.unwrap_err();
            assert!(refused.to_string().contains("another log"), "{refused}");
            assert_eq!(read_by_a_stranger(home.path()).0, before.0);
            run(home.path(), &log, 700).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_bundle_with_a_pruned_event_is_not_written() {
        let home = tempfile::tempdir().unwrap();
        let log = events(600, "a");
        let (tiles, target) = (served(&log), target(&log));
        let directory = Directory::new(home.path());
        directory
            .update(None, &target, async |places: &[Place]| {
                Ok(places.iter().map(|place| tiles[place].clone()).collect())
            })
            .await
            .unwrap();
        let bodies = log.iter().map(|event| {
            let body = (event.sequence != 300).then(|| event.body.clone());
            Ok((event.sequence, body))
        });
        assert_eq!(directory.entries(600, bodies, 0).unwrap(), 1);
        assert!(home.path().join("tile/entries/000").exists());
        assert!(!home.path().join("tile/entries/001").exists());
        assert!(home.path().join("tile/entries/002.p/88").exists());
    }
}
