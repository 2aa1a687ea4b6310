//! A store of one's own: everything in one append-only file, with nothing but `mezite-core`.
//!
//! ```text
//! cargo run -p mezite-examples --no-default-features --features store --bin custom-store -- /tmp/my.store
//! ```
//!
//! It is a toy: it keeps all in memory and one commit waits for the other. What it promises is real, though: a commit is on
//! the disk before it is answered, whole or not at all, and it passes the suite that every store of Mezite runs (the tests
//! below; the feature `conformance` of `mezite-core` brings it).
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a program for people")]

mod file;
mod record;

use std::error::Error;
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use mezite_core::store::{Commit, Expect, Key, LogQuery, Store};
use mezite_core::{Event, UnixTime};

use file::FileStore;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1);
    let path = path.ok_or("give the file to keep things in, for example /tmp/my.store")?;
    let store = FileStore::open(&PathBuf::from(path))?;
    let now = UnixTime::from_secs(1_769_846_400);

    // No event, no change: there is no other way to write.
    let key = Key::new("note/greeting")?;
    let before = at_once(store.get(&key))?;
    let expect = before
        .as_ref()
        .map_or(Expect::Absent, |found| Expect::Revision(found.revision));
    let count = u8::try_from(at_once(store.log(&LogQuery::after(0, 255)))?.len())?;
    let event =
        Event::new("note.written", "EX0001", now, [[count; 16]; 2]).with("user_name", "alice");
    let committed =
        at_once(store.commit(Commit::new(event).put(key.clone(), expect, b"hello".to_vec())))?;
    println!("event {} is on the disk", committed.sequence);

    // Whoever read before that write, and writes now, is told.
    let event = Event::new("note.written", "EX0001", now, [[255; 16]; 2]);
    match at_once(store.commit(Commit::new(event).put(key, expect, b"late".to_vec()))) {
        Ok(_) => return Err("two writers won".into()),
        Err(error) => println!("the second writer: {error}"),
    }
    for stored in at_once(store.log(&LogQuery::after(0, 255)))? {
        println!("{}", String::from_utf8(stored.body)?);
    }
    Ok(())
}

/// This store does its work when it is asked, so its futures never wait and need no runtime.
fn at_once<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return output;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use mezite_core::store::{conformance, model};
    use proptest::test_runner::{Config, TestRunner};

    use super::*;

    #[test]
    fn conforms() {
        let directory = tempfile::tempdir().unwrap();
        let number = Cell::new(0);
        futures_executor::block_on(conformance::all(async || {
            number.set(number.get() + 1);
            FileStore::open(&directory.path().join(number.get().to_string())).unwrap()
        }));
    }

    #[test]
    fn follows_the_model() {
        let mut runner = TestRunner::new(Config {
            cases: 32,
            failure_persistence: None,
            ..Config::default()
        });
        let ran = runner.run(&model::steps(), |steps| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("store");
            let open = async |store: Option<FileStore>| {
                drop(store);
                FileStore::open(&path).unwrap()
            };
            futures_executor::block_on(model::follow(&steps, open));
            Ok(())
        });
        ran.unwrap();
    }

    fn commit(store: &FileStore, number: u8) -> mezite_core::store::Committed {
        let event = Event::new(
            "test.event",
            "EX0000",
            UnixTime::from_secs(1),
            [[number; 16]; 2],
        );
        let key = Key::new(format!("k/{number}")).unwrap();
        at_once(store.commit(Commit::new(event).put(key, Expect::Absent, vec![number; 100])))
            .unwrap()
    }

    /// Cut at every byte, the file opens with all whole commits before the cut, and goes on.
    #[test]
    fn attack_54_a_torn_tail_is_a_commit_that_never_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = FileStore::open(&path).unwrap();
        let ends: Vec<_> = (1..=3)
            .map(|number| {
                commit(&store, number);
                usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap()
            })
            .collect();
        drop(store);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let store = FileStore::open(&path).unwrap();
            let kept = ends.iter().filter(|end| **end <= cut).count();
            let log = at_once(store.log(&LogQuery::after(0, 9))).unwrap();
            let keys = at_once(store.list("", None, 9)).unwrap();
            assert_eq!((log.len(), keys.len()), (kept, kept), "cut at {cut}");
            let next = commit(&store, 9);
            assert_eq!(next.sequence, u64::try_from(kept).unwrap() + 1);
        }
    }

    #[test]
    fn a_flipped_byte_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = FileStore::open(&path).unwrap();
        commit(&store, 1);
        commit(&store, 2);
        drop(store);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[40] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let refused = FileStore::open(&path).unwrap_err();
        assert!(refused.to_string().contains("damaged"), "{refused}");
    }
}
