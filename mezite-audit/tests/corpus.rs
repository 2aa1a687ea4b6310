//! The fuzz targets' corpora, replayed; and their seeds.
//!
//! `MEZITE_WRITE_CORPUS=1 cargo test -p mezite-audit --test corpus` writes the seeds anew.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use ed25519_dalek::{Signer, SigningKey};
use mezite_audit::catalogue::{self, AuditKeyRotated, AuditPruned, Stamp};
use mezite_audit::keeper::Head;
use mezite_audit::merkle::leaf_hash;
use mezite_audit::{Handover, NoteKey, bundle, checkpoint, handover};
use mezite_core::UnixTime;
use mezite_core::store::StoredEvent;

#[path = "../../fuzz/corpus.rs"]
mod corpora;
#[path = "../../fuzz/audit/targets.rs"]
mod targets;

use corpora::Corpora;

const CORPORA: Corpora = Corpora("audit");

fn events() -> Vec<StoredEvent> {
    let cluster = "example".parse().unwrap();
    let stamp = |sequence: u64| Stamp {
        now: UnixTime::from_secs(1_769_846_400 + sequence),
        random: [[u8::try_from(sequence).unwrap(); 16], [0xc3; 16]],
        cluster: &cluster,
    };
    let mut events: Vec<StoredEvent> = (1..)
        .zip(catalogue::all())
        .take(9)
        .map(|(sequence, entry)| StoredEvent {
            sequence,
            body: entry.example(&stamp(sequence)).render(sequence),
        })
        .collect();
    let pruned = AuditPruned {
        user_name: "hub:hub-1",
        rule: "user.login.failed after 30d",
        count: 2,
        ranges: "2-3",
    };
    events.push(StoredEvent {
        sequence: 10,
        body: pruned.event(&stamp(10)).render(10),
    });
    events
}

/// The same log after its key was rotated, and the old key's last note.
fn rotated() -> (Vec<StoredEvent>, String) {
    let mut log = events();
    let told = Handover {
        last: Head::default()
            .advance(&log)
            .unwrap()
            .checkpoint("example/mezite-audit"),
        old: targets::key(),
        new: targets::next(),
    };
    let [old, new] = [7, 8].map(|seed| {
        let signing = SigningKey::from_bytes(&[seed; 32]);
        signing.sign(told.body().as_bytes()).to_bytes()
    });
    let note = told.finish(&old, &new).unwrap();
    let event = AuditKeyRotated {
        user_name: "admin",
        client_ip: None,
        generation: 2,
        old_key: targets::KEY,
        new_key: targets::NEXT,
        handover: &handover::field(&note),
    };
    let stamp = Stamp {
        now: UnixTime::from_secs(1_769_846_411),
        random: [[11; 16], [0xc3; 16]],
        cluster: &"example".parse().unwrap(),
    };
    log.push(StoredEvent {
        sequence: 11,
        body: event.event(&stamp).render(11),
    });
    (log, note)
}

fn note(events: &[StoredEvent]) -> String {
    signed(events, 7, &targets::key())
}

fn signed(events: &[StoredEvent], seed: u8, key: &NoteKey) -> String {
    let signing = SigningKey::from_bytes(&[seed; 32]);
    let made = Head::default()
        .advance(events)
        .unwrap()
        .checkpoint("example/mezite-audit");
    let signature = signing.sign(made.body().as_bytes()).to_bytes();
    checkpoint::finish(&made, key, &signature).unwrap()
}

fn bundle_of(events: &[StoredEvent], pruned: &[u64]) -> String {
    bundle_by(&[targets::key()], &[note(events)], events, pruned)
}

fn bundle_of_rotated() -> String {
    let (log, note) = rotated();
    let notes = [note, signed(&log, 8, &targets::next())];
    bundle_by(&[targets::key(), targets::next()], &notes, &log, &[])
}

fn bundle_by(keys: &[NoteKey], notes: &[String], events: &[StoredEvent], pruned: &[u64]) -> String {
    let cluster = "example".parse().unwrap();
    let mut lines = vec![bundle::header(&cluster, "example/mezite-audit", keys)];
    lines.extend(notes.iter().map(|note| bundle::checkpoint_line(note)));
    for event in events {
        if pruned.contains(&event.sequence) {
            lines.push(bundle::pruned_line(event.sequence, &leaf_hash(&event.body)));
        } else {
            lines.push(String::from_utf8(event.body.clone()).unwrap());
        }
    }
    lines.join("\n")
}

/// Name and content of each seed.
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let log = events();
    let mut seeds = vec![
        ("checkpoint", "note".into(), note(&log).into_bytes()),
        ("checkpoint", "empty-log".into(), note(&[]).into_bytes()),
        ("checkpoint", "key".into(), targets::KEY.into()),
        ("checkpoint", "ranges".into(), b"1-9,12,40-41".to_vec()),
        ("checkpoint", "handover".into(), rotated().1.into_bytes()),
        ("bundle", "whole".into(), bundle_of(&log, &[]).into_bytes()),
        ("bundle", "rotated".into(), bundle_of_rotated().into_bytes()),
        (
            "bundle",
            "pruned".into(),
            bundle_of(&log, &[2, 3]).into_bytes(),
        ),
        (
            "bundle",
            "deleted".into(),
            bundle_of(&log, &[4]).into_bytes(),
        ),
    ];
    for event in &rotated().0 {
        seeds.push((
            "event",
            format!("event-{}", event.sequence),
            event.body.clone(),
        ));
    }
    seeds
}

#[test]
fn seeds_are_what_they_are_made_from() {
    for (target, name, content) in seeds() {
        CORPORA.keep(target, &name, &content);
        let path = CORPORA.directory(target).join(name);
        if target != "event" {
            assert!(path.exists(), "{}", path.display());
        }
    }
    let whole = bundle_of(&events(), &[2, 3]);
    let mut check = bundle::Check::default();
    for line in whole.lines() {
        check.take_line(line.as_bytes()).unwrap();
    }
    assert_eq!(check.finish().unwrap().report.pruned, 2);
    let mut check = bundle::Check::default().with_keys(vec![targets::key()]);
    for line in bundle_of_rotated().lines() {
        check.take_line(line.as_bytes()).unwrap();
    }
    assert_eq!(check.finish().unwrap().keys.len(), 2);
}

#[test]
fn the_corpus_of_checkpoint_holds() {
    CORPORA.replay("checkpoint", targets::checkpoint);
}

#[test]
fn the_corpus_of_event_holds() {
    CORPORA.replay("event", targets::event);
}

#[test]
fn the_corpus_of_bundle_holds() {
    CORPORA.replay("bundle", targets::bundle);
}
