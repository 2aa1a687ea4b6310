//! Tools that are not ours (crates `signed_note` and `tlog_tiles`) accept what this crate writes, and refuse what was
//! changed.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use ed25519_dalek::{Signer, SigningKey};
use mezite_audit::keeper::Head;
use mezite_audit::merkle::leaf_hash;
use mezite_audit::tile::{Place, Tiles};
use mezite_audit::{Handover, NoteKey, checkpoint, proof};
use mezite_core::store::StoredEvent;
use mezite_core::{Event, UnixTime};
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::{Tile, TileHashReader, TileReader};

const ORIGIN: &str = "example/mezite-audit";
const SIZE: u64 = 66_000;

fn events(count: u64) -> Vec<StoredEvent> {
    let stored = |sequence: u64| {
        let mut random = [7; 16];
        random[..8].copy_from_slice(&sequence.to_le_bytes());
        let event = Event::new(
            "test.event",
            "MZ0000",
            UnixTime::from_secs(sequence),
            [random; 2],
        );
        StoredEvent {
            sequence,
            body: event.render(sequence),
        }
    };
    (1..=count).map(stored).collect()
}

/// A log as the keeper leaves it: the tiles, and signed notes at some sizes.
struct Log {
    events: Vec<StoredEvent>,
    tiles: BTreeMap<Place, Vec<u8>>,
    key: NoteKey,
    signing: SigningKey,
}

impl Log {
    fn new() -> Self {
        let events = events(SIZE);
        let mut edge = Tiles::default();
        for event in &events {
            edge.append(leaf_hash(&event.body));
        }
        let signing = SigningKey::from_bytes(&[7; 32]);
        Self {
            tiles: edge.take_changed().into_iter().collect(),
            key: NoteKey::new(ORIGIN, &signing.verifying_key().to_bytes()).unwrap(),
            events,
            signing,
        }
    }

    fn note(&self, size: u64) -> String {
        let part = &self.events[..usize::try_from(size).unwrap()];
        let checkpoint = Head::default().advance(part).unwrap().checkpoint(ORIGIN);
        let signature = self.signing.sign(checkpoint.body().as_bytes()).to_bytes();
        checkpoint::finish(&checkpoint, &self.key, &signature).unwrap()
    }
}

/// What the other library reads in a note, after it has verified the signature.
fn opened(note: &str, key: &NoteKey) -> Option<(u64, tlog_tiles::Hash)> {
    let verifier = StandardVerifier::new(&key.to_line()).unwrap();
    let note = Note::from_bytes(note.as_bytes()).ok()?;
    note.verify(&VerifierList::new(vec![Box::new(verifier)]))
        .ok()?;
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).ok()?;
    assert_eq!(checkpoint.origin(), ORIGIN);
    Some((checkpoint.size(), *checkpoint.hash()))
}

fn theirs(path: Vec<[u8; 32]>) -> Vec<tlog_tiles::Hash> {
    path.into_iter().map(tlog_tiles::Hash).collect()
}

impl TileReader for Log {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &Tile| {
            let place = Place {
                level: tile.level(),
                index: tile.level_index(),
            };
            let width = usize::try_from(tile.width()).unwrap();
            // Their paths have the tile's height in front, as Go's checksum database has it.
            let path = place.path(width).replacen("tile/", "tile/8/", 1);
            assert_eq!(tile.path(), path);
            self.tiles[&place][..width * 32].to_vec()
        };
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _tiles: &[Tile], _data: &[Vec<u8>]) {}
}

#[test]
fn another_library_accepts_our_checkpoints_proofs_and_tiles() {
    let log = Log::new();
    let source = |place| log.tiles.get(&place).cloned();
    let (size, root) = opened(&log.note(SIZE), &log.key).unwrap();
    assert_eq!(size, SIZE);
    for sequence in [1, 2, 255, 256, 257, 4096, 65_536, 65_537, SIZE] {
        let path = theirs(proof::inclusion(&source, sequence, size).unwrap());
        let body = &log.events[usize::try_from(sequence).unwrap() - 1].body;
        let leaf = tlog_tiles::record_hash(body);
        tlog_tiles::check_record(&path, size, root, sequence - 1, leaf).unwrap();
        let other = tlog_tiles::record_hash(b"another event");
        assert!(tlog_tiles::check_record(&path, size, root, sequence - 1, other).is_err());
        // They make the same proof from our tiles, which they check against the root first.
        let reader = TileHashReader::new(size, root, &log);
        assert_eq!(
            tlog_tiles::prove_record(size, sequence - 1, &reader).unwrap(),
            path
        );
    }
    for old in [1, 3, 256, 1000, 65_536, SIZE - 1] {
        let (before, old_root) = opened(&log.note(old), &log.key).unwrap();
        assert_eq!(before, old);
        let path = theirs(proof::consistency(&source, old, size).unwrap());
        tlog_tiles::check_tree(&path, size, root, old, old_root).unwrap();
        assert!(tlog_tiles::check_tree(&path, size, root, old, root).is_err());
    }
}

#[test]
fn another_library_refuses_what_was_changed() {
    let log = Log::new();
    let note = log.note(5);
    assert!(opened(&note, &log.key).is_some());
    assert!(opened(&note.replace("\n5\n", "\n6\n"), &log.key).is_none());
    let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
    assert!(opened(&note, &NoteKey::new(ORIGIN, &other).unwrap()).is_none());
}

#[test]
fn another_library_reads_a_handover_with_either_key_and_later_checkpoints_with_the_new_one_alone() {
    let log = Log::new();
    let other = SigningKey::from_bytes(&[8; 32]);
    let new = NoteKey::new(ORIGIN, &other.verifying_key().to_bytes()).unwrap();
    let handover = Handover {
        last: Head::default()
            .advance(&log.events[..300])
            .unwrap()
            .checkpoint(ORIGIN),
        old: log.key.clone(),
        new: new.clone(),
    };
    let signatures = [&log.signing, &other].map(|key| key.sign(handover.body().as_bytes()));
    let [old, by_new] = signatures.map(|signature| signature.to_bytes());
    let note = handover.finish(&old, &by_new).unwrap();
    for key in [&log.key, &new] {
        let (size, root) = opened(&note, key).unwrap();
        assert_eq!((size, root.0), (300, handover.last.root));
    }
    // With both keys known, both signatures are found good.
    let verifiers = [&log.key, &new].map(|key| {
        let verifier: Box<dyn signed_note::Verifier> =
            Box::new(StandardVerifier::new(&key.to_line()).unwrap());
        verifier
    });
    let read = Note::from_bytes(note.as_bytes()).unwrap();
    let (verified, _) = read.verify(&VerifierList::new(verifiers.into())).unwrap();
    assert_eq!(verified.len(), 2);
    let later = Log {
        key: new.clone(),
        signing: other,
        ..log
    };
    let note = later.note(301);
    assert_eq!(opened(&note, &new).map(|(size, _)| size), Some(301));
    let retired = NoteKey::new(
        ORIGIN,
        &SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes(),
    );
    assert!(opened(&note, &retired.unwrap()).is_none());
}
