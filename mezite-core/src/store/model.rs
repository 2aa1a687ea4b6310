//! Random operations through a store and through a model of a few lines, which must agree: commits one by one and at
//! once, conflicts, removals, readers, watchers, and the store closed and opened again in between.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test suite: a broken promise ends it"
)]

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::future::join_all;
use proptest::prelude::{Just, Strategy, any, prop_oneof};

use super::{
    Commit, Committed, Expect, Key, LogQuery, Revision, Store, StoreError, StoredEvent, Versioned,
};
use crate::event::Event;
use crate::time::UnixTime;

/// One thing to do.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "made by `steps` alone")]
pub enum Step {
    /// Commits given at the same moment; one is a commit alone.
    Commits(Vec<Vec<Write>>),
    /// The store is closed and opened again.
    Restart,
}

/// One change in a commit.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made by `steps` alone")]
pub struct Write {
    /// Which of a few keys.
    pub key: u8,
    /// What it expects.
    pub hope: Hope,
    /// `None` removes.
    pub value: Option<Vec<u8>>,
}

/// What a writer believes of the key.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "made by `steps` alone")]
pub enum Hope {
    /// Nothing.
    Any,
    /// That it is not there.
    Absent,
    /// That it still is what was read before the step.
    AsRead,
    /// That it is at a revision which it never had.
    Wrong,
}

/// Up to 24 steps over eight keys.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let hope = prop_oneof![
        3 => Just(Hope::Any),
        2 => Just(Hope::Absent),
        4 => Just(Hope::AsRead),
        1 => Just(Hope::Wrong),
    ];
    let value = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Some),
        2 => Just(None),
    ];
    let write = (0_u8..8, hope, value).prop_map(|(key, hope, value)| Write { key, hope, value });
    let commit = proptest::collection::vec(write, 0..4);
    let step = prop_oneof![
        9 => proptest::collection::vec(commit, 1..8).prop_map(Step::Commits),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..24)
}

/// Does the steps on a store and on the model. `open` gets the store to close before it opens the same place again,
/// and at first nothing: then the place is empty.
///
/// # Panics
/// When store and model disagree, saying in what.
pub async fn follow<S: Store>(steps: &[Step], open: impl AsyncFn(Option<S>) -> S) {
    let mut store = open(None).await;
    let mut model = Model::default();
    let mut number = 0;
    for step in steps {
        match step {
            Step::Restart => store = open(Some(store)).await,
            Step::Commits(wanted) => {
                let commits: Vec<_> = wanted
                    .iter()
                    .map(|writes| {
                        number += 1;
                        model.commit(number, writes)
                    })
                    .collect();
                model.at_once(&store, commits).await;
            }
        }
        model.compare(&store).await;
    }
}

/// What a store must be: a map, a log, two counters.
#[derive(Clone, Debug, Default)]
struct Model {
    entries: BTreeMap<Key, Versioned>,
    revision: u64,
    log: Vec<StoredEvent>,
}

impl Model {
    /// Between one and three events and the writes, as somebody would who reads now.
    fn commit(&self, number: u64, writes: &[Write]) -> Commit {
        let events = (0..=number % 3).map(|part| event(number * 10 + part));
        let first = Commit::new(event(number * 10 + 9));
        let commit = events.fold(first, Commit::and_event);
        writes.iter().fold(commit, |commit, write| {
            let key = Key::new(format!("k/{}", write.key)).expect("a key");
            let found = self.entries.get(&key).map(|found| found.revision);
            let expect = match write.hope {
                Hope::Any => Expect::Any,
                Hope::Absent => Expect::Absent,
                Hope::AsRead => found.map_or(Expect::Absent, Expect::Revision),
                Hope::Wrong => Expect::Revision(Revision(u64::MAX)),
            };
            match &write.value {
                Some(value) => commit.put(key, expect, value.clone()),
                None => commit.remove(key, expect),
            }
        })
    }

    /// Commits that were given at once happened one after the other, in some order which their revisions tell.
    async fn at_once(&mut self, store: &impl Store, commits: Vec<Commit>) {
        let mut watch = store.watch("k/");
        let outcomes = join_all(commits.iter().map(|commit| store.commit(commit.clone()))).await;
        let mut made: Vec<(Committed, &Commit)> = Vec::new();
        let mut refused: Vec<(Key, &Commit)> = Vec::new();
        for (outcome, commit) in outcomes.into_iter().zip(&commits) {
            match outcome {
                Ok(committed) => made.push((committed, commit)),
                Err(StoreError::Conflict(key)) => refused.push((key, commit)),
                Err(error) => panic!("{error}"),
            }
        }
        made.sort_by_key(|(committed, _)| committed.revision);
        let mut moments = vec![self.clone()];
        let mut told = None;
        for (committed, commit) in made {
            self.apply(committed, commit);
            moments.push(self.clone());
            if !commit.changes().is_empty() {
                told = Some(committed.revision);
            }
        }
        for (key, commit) in refused {
            let explained = moments
                .iter()
                .any(|moment| moment.conflict(commit).as_ref() == Some(&key));
            assert!(
                explained,
                "no moment explains the conflict over `{key}` of {commit:?}"
            );
        }
        assert_eq!(
            watch.changed().now_or_never(),
            told,
            "watchers hear of the newest change"
        );
    }

    fn conflict(&self, commit: &Commit) -> Option<Key> {
        let broken = commit.changes().iter().find(|change| {
            let found = self.entries.get(&change.key).map(|found| found.revision);
            match change.expect {
                Expect::Any => false,
                Expect::Absent => found.is_some(),
                Expect::Revision(wanted) => found != Some(wanted),
            }
        });
        broken.map(|change| change.key.clone())
    }

    fn apply(&mut self, committed: Committed, commit: &Commit) {
        assert_eq!(
            self.conflict(commit),
            None,
            "made although it conflicts: {commit:?}"
        );
        assert!(committed.revision.0 > self.revision, "revisions rise");
        self.revision = committed.revision.0;
        for event in commit.events() {
            let sequence = self.events() + 1;
            let body = event.render(sequence);
            self.log.push(StoredEvent { sequence, body });
        }
        assert_eq!(committed.sequence, self.events(), "sequence");
        for change in commit.changes() {
            match &change.value {
                Some(value) => {
                    let (value, revision) = (value.clone(), committed.revision);
                    self.entries
                        .insert(change.key.clone(), Versioned { value, revision });
                }
                None => drop(self.entries.remove(&change.key)),
            }
        }
    }

    fn events(&self) -> u64 {
        u64::try_from(self.log.len()).expect("fewer than 2^64")
    }

    async fn compare(&self, store: &impl Store) {
        let listed = store.list("", None, usize::MAX).await.expect("list");
        assert!(
            listed
                .iter()
                .map(|(key, value)| (key, value))
                .eq(&self.entries),
            "entries: {listed:?} are not {:?}",
            self.entries
        );
        let some = Key::new("k/0").expect("a key");
        let found = store.get(&some).await.expect("get");
        assert_eq!(found.as_ref(), self.entries.get(&some));
        let log = store
            .log(&LogQuery::after(0, usize::MAX))
            .await
            .expect("log");
        assert_eq!(log, self.log, "the log");
    }
}

fn event(number: u64) -> Event {
    let mut random = [0; 16];
    random
        .split_at_mut(8)
        .1
        .copy_from_slice(&number.to_be_bytes());
    Event::new("test.event", "MZ0000", UnixTime::from_secs(1), [random; 2])
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, proptest};

    use super::*;
    use crate::store::MemoryStore;

    proptest! {
        #[test]
        fn the_memory_store_follows_the_model(steps in steps()) {
            // What was in memory is gone with it, so nothing is closed here.
            let open = async |store: Option<MemoryStore>| store.unwrap_or_default();
            futures_executor::block_on(follow(&steps, open));
            prop_assert!(true);
        }
    }
}
