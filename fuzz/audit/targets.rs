//! What each fuzz target does with its input. The tests of mezite-audit include this file too and feed it the corpora,
//! so that what was found once is found again without a fuzzer.

use mezite_audit::bundle::Check;
use mezite_audit::checkpoint;
use mezite_audit::sequences::Sequences;
use mezite_audit::sink::syslog;
use mezite_audit::{Handover, NoteKey, Verifier};
use mezite_core::event::Facts;
use mezite_core::store::StoredEvent;

/// The key that signed the seeds: that of Ed25519's seed of 32 sevens.
pub(crate) const KEY: &str =
    "example/mezite-audit+a35fdf82+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs";

/// The key that followed it: that of a seed of 32 eights.
pub(crate) const NEXT: &str =
    "example/mezite-audit+2786572b+AROY9ixtGkV8UbpqS189vS9p/KkyFiGNyJl+QWvRfZPK";

pub(crate) fn key() -> NoteKey {
    NoteKey::parse(KEY).unwrap()
}

pub(crate) fn next() -> NoteKey {
    NoteKey::parse(NEXT).unwrap()
}

/// A note, a handover or a line of a key. What is read means what was written.
pub(crate) fn checkpoint(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(found) = checkpoint::open(text, &key()) {
        assert!(text.starts_with(&found.body()));
    }
    if let Ok(found) = Handover::open(text, &key(), &next()) {
        assert!(text.starts_with(&found.body()));
    }
    if let Ok(found) = NoteKey::parse(text) {
        assert_eq!(NoteKey::parse(&found.to_line()), Ok(found));
    }
    if let Ok(found) = text.parse::<Sequences>() {
        assert_eq!(found.to_string().parse(), Ok(found));
    }
}

/// The body of an event, as a database with a hostile administrator gives it.
pub(crate) fn event(data: &[u8]) {
    let stored = StoredEvent {
        sequence: 1,
        body: data.to_vec(),
    };
    let mut verifier = Verifier::new([]).unwrap();
    if verifier.push(&stored).is_ok() {
        let report = verifier.finish().unwrap();
        assert_eq!((report.size, report.vouched), (1, 0));
    }
    drop(Facts::parse(data));
    // Whatever it is, its frame ends where it says.
    let frame = syslog::event("hub", data);
    let space = frame.iter().position(|byte| *byte == b' ').unwrap();
    let length: usize = std::str::from_utf8(&frame[..space])
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(frame.len(), space + 1 + length);
    assert!(frame.ends_with(data));
}

/// A whole bundle, line by line, by somebody who knows the key.
pub(crate) fn bundle(data: &[u8]) {
    let mut check = Check::default().with_keys(vec![key()]);
    for line in data.split(|byte| *byte == b'\n') {
        if check.take_line(line).is_err() {
            return;
        }
    }
    if let Ok(verified) = check.finish() {
        let signed = checkpoint::open_any(&verified.newest, &verified.keys).unwrap();
        assert!(signed.checkpoint.size <= verified.report.size);
        assert_eq!(verified.report.vouched, signed.checkpoint.size);
    }
}
