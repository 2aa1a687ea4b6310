//! The fuzz targets' corpora, replayed; and their seeds.
//!
//! `MEZITE_WRITE_CORPUS=1 cargo test -p mezite-record corpus` writes the seeds anew (keys and nonces are drawn again).
use crate::common::{again, at, bulk, record, seal, session, whole};
use mezite_record::{Frame, Identity, Part, search};
use rand::SeedableRng;
use rand::rngs::StdRng;

#[path = "../../../fuzz/corpus.rs"]
mod corpora;
#[path = "../../../fuzz/record/targets.rs"]
mod targets;

use corpora::Corpora;

const CORPORA: Corpora = Corpora("record");

#[test]
fn the_corpus_of_decode_holds() {
    CORPORA.replay("decode", targets::decode);
}

#[test]
fn the_corpus_of_head_holds() {
    CORPORA.replay("head", targets::head);
}

#[test]
fn the_corpus_of_index_holds() {
    CORPORA.replay("index", targets::index);
}

#[test]
fn the_corpus_of_export_holds() {
    CORPORA.replay("export", targets::export);
}

/// What the seeds are, so that they can be written anew after a change of the format.
#[test]
fn the_seeds_of_the_corpora_can_be_made() {
    let identity: Identity = targets::identity();
    let output = [at(5, Frame::stdout(0, "line\n".repeat(2000)))];
    let (sealed, _) = seal(1, &identity, &session());
    let (long, _) = seal(1, &identity, &output);
    let (packed, _) = seal(1, &identity, &bulk());
    let (sink, _live) = record(1, &identity, &bulk());
    let packing = whole(sink.as_ref(), 1, Part::Journal);
    let (sink, _live) = record(1, &identity, &session());
    let journal = whole(sink.as_ref(), 1, Part::Journal);
    for (name, file) in [
        ("sealed", &sealed),
        ("bulk", &long),
        ("journal", &journal),
        ("packed", &packed),
        ("packing", &packing),
    ] {
        CORPORA.keep("decode", name, file);
        CORPORA.keep("head", name, &file[..file.len().min(900)]);
        let mut rng = StdRng::seed_from_u64(1);
        let index = search::build(&file[..], &[again(&identity)], &mut rng).unwrap();
        CORPORA.keep("index", name, &index);
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
        CORPORA.keep("export", name, output);
        targets::export(output);
    }
}
