//! The fuzz targets' corpora, replayed; and their seeds.
//!
//! `MEZITE_WRITE_CORPUS=1 cargo test -p mezite-record corpus` writes the seeds anew (keys and nonces are drawn again).
use std::path::{Path, PathBuf};

use crate::common::{again, at, record, seal, session, whole};
use mezite_record::{Frame, Identity, Part, search};
use rand::SeedableRng;
use rand::rngs::StdRng;

#[path = "../../../fuzz/record/targets.rs"]
mod targets;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/record/corpus")
        .join(target)
}

fn replay(target: &str, run: fn(&[u8])) {
    let directory = corpus(target);
    let entries =
        std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let mut count = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        let outcome = std::panic::catch_unwind(|| run(&input));
        assert!(outcome.is_ok(), "{} fails", path.display());
        // Cut and edited, a seed is another input.
        for cut in (0..input.len()).step_by(input.len() / 20 + 1) {
            let mut edited = input.clone();
            edited[cut] ^= 0x41;
            let outcome = std::panic::catch_unwind(|| {
                run(&edited);
                run(&input[..cut]);
            });
            assert!(outcome.is_ok(), "{} fails at {cut}", path.display());
        }
        count += 1;
    }
    assert!(count >= 3, "{directory:?} holds seeds");
}

#[test]
fn the_corpus_of_decode_holds() {
    replay("decode", targets::decode);
}

#[test]
fn the_corpus_of_head_holds() {
    replay("head", targets::head);
}

#[test]
fn the_corpus_of_index_holds() {
    replay("index", targets::index);
}

#[test]
fn the_corpus_of_export_holds() {
    replay("export", targets::export);
}

fn keep(target: &str, name: &str, content: &[u8]) {
    if std::env::var_os("MEZITE_WRITE_CORPUS").is_some() {
        std::fs::create_dir_all(corpus(target)).unwrap();
        std::fs::write(corpus(target).join(name), content).unwrap();
    }
}

/// What the seeds are, so that they can be written anew after a change of the format.
#[test]
fn the_seeds_of_the_corpora_can_be_made() {
    let identity: Identity = targets::identity();
    let bulk = [at(5, Frame::stdout(0, "line\n".repeat(2000)))];
    let (sealed, _) = seal(1, &identity, &session());
    let (long, _) = seal(1, &identity, &bulk);
    let (sink, _live) = record(1, &identity, &session());
    let journal = whole(sink.as_ref(), 1, Part::Journal);
    for (name, file) in [("sealed", &sealed), ("bulk", &long), ("journal", &journal)] {
        keep("decode", name, file);
        keep("head", name, &file[..file.len().min(900)]);
        let mut rng = StdRng::seed_from_u64(1);
        let index = search::build(&file[..], &[again(&identity)], &mut rng).unwrap();
        keep("index", name, &index);
        targets::index(&index);
    }
    for (name, output) in [
        (
            "shell",
            &b"\x01\x50\x18\x09$ ls\r\n\x1b[?2004l\rfile\r\n"[..],
        ),
        (
            "editor",
            b"\x01\x28\x0a\x06\x1b[?1049h\x1b[2J\x1b[3;5Htext\x1b[1;3r\x1b[L\x1b[?1049l",
        ),
        (
            "hostile",
            b"\x01\x50\x18\x03\x1b]52;c;eA==\x07\x1bP$q m\x1b\\\x1b[6n\x9b\xff\xfe\x1b[9999b",
        ),
        ("pipe", b"\x00\x00\x00\x05one\ntwo\rover\n\x00\xe2\x82\xac"),
    ] {
        keep("export", name, output);
        targets::export(output);
    }
}
