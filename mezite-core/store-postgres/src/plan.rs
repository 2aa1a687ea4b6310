//! What a group of commits becomes: planned in memory, by whoever holds the lock on the counters.

use std::collections::BTreeMap;

use mezite_core::Event;
use mezite_core::event::{Facts, MAX_BYTES};
use mezite_core::store::{Change, Commit, Committed, Expect, Key, Revision, StoreError};

pub(crate) type Outcome = Result<Committed, StoreError>;

/// The numbers that the next commit continues. The database's integers have a sign; these never reach it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counter {
    pub(crate) revision: i64,
    pub(crate) sequence: i64,
    pub(crate) changed: i64,
}

/// Everything that one transaction writes, and what each caller hears afterwards.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) counter: Counter,
    /// Ranges of sequences that leave the log, before the events are written.
    pub(crate) pruned: Vec<(i64, i64)>,
    pub(crate) events: Vec<Row>,
    /// The last value of each key that changes, with its revision; `None` removes.
    pub(crate) entries: BTreeMap<&'a Key, Option<(&'a [u8], i64)>>,
}

/// One event as the table holds it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) sequence: i64,
    pub(crate) facts: Facts,
    pub(crate) body: Vec<u8>,
}

impl Row {
    pub(crate) fn new(sequence: i64, event: &Event) -> Result<Self, StoreError> {
        let body = event.render(sequence.unsigned_abs());
        if body.len() > MAX_BYTES {
            return Err(StoreError::EventTooLong(body.len()));
        }
        Ok(Self {
            sequence,
            facts: Facts::from(event),
            body,
        })
    }
}

/// The keys that some commit expects something of.
pub(crate) fn expected<'a>(commits: impl Iterator<Item = &'a Commit>) -> Vec<&'a Key> {
    let changes = commits.flat_map(Commit::changes);
    let expected = changes.filter(|change| change.expect != Expect::Any);
    let mut keys: Vec<&Key> = expected.map(|change| &change.key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Plans the commits in their order. `found` holds the revision of each [`expected`] key that is there.
pub(crate) fn plan<'a>(
    counter: Counter,
    found: BTreeMap<&'a Key, i64>,
    commits: impl Iterator<Item = &'a Commit>,
) -> Plan<'a> {
    let mut plan = Plan {
        counter,
        ..Plan::default()
    };
    let mut revisions = found;
    for commit in commits {
        let outcome = plan.add(commit, &mut revisions);
        plan.outcomes.push(outcome);
    }
    plan
}

impl<'a> Plan<'a> {
    /// Whether there is anything to write.
    pub(crate) fn writes(&self) -> bool {
        self.outcomes.iter().any(Result::is_ok)
    }

    fn add(&mut self, commit: &'a Commit, revisions: &mut BTreeMap<&'a Key, i64>) -> Outcome {
        for change in commit.changes() {
            if !holds(change, revisions) {
                return Err(StoreError::Conflict(change.key.clone()));
            }
        }
        let mut counter = Counter {
            revision: self.counter.revision + 1,
            ..self.counter
        };
        let mut rows = Vec::with_capacity(commit.events().len());
        for event in commit.events() {
            counter.sequence += 1;
            rows.push(Row::new(counter.sequence, event)?);
        }
        for range in commit.pruned() {
            let bound = |sequence: &u64| i64::try_from(*sequence).unwrap_or(i64::MAX);
            let (low, high) = (bound(range.start()), bound(range.end()));
            self.events
                .retain(|row| !(low..=high).contains(&row.sequence));
            self.pruned.push((low, high));
        }
        for change in commit.changes() {
            counter.changed = counter.revision;
            let value = change
                .value
                .as_deref()
                .map(|value| (value, counter.revision));
            match value {
                Some(_) => revisions.insert(&change.key, counter.revision),
                None => revisions.remove(&change.key),
            };
            self.entries.insert(&change.key, value);
        }
        self.events.append(&mut rows);
        self.counter = counter;
        Ok(Committed {
            revision: Revision(counter.revision.unsigned_abs()),
            sequence: counter.sequence.unsigned_abs(),
        })
    }
}

fn holds(change: &Change, revisions: &BTreeMap<&Key, i64>) -> bool {
    let found = revisions.get(&change.key);
    match change.expect {
        Expect::Any => true,
        Expect::Absent => found.is_none(),
        Expect::Revision(Revision(wanted)) => {
            found.is_some_and(|found| u64::try_from(*found) == Ok(wanted))
        }
    }
}

#[cfg(test)]
mod tests {
    use mezite_core::UnixTime;

    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn event(number: u8) -> Event {
        Event::new(
            "test.event",
            "MZ0000",
            UnixTime::from_secs(1),
            [[number; 16]; 2],
        )
    }

    #[test]
    fn a_commit_sees_those_before_it_and_a_refused_one_leaves_nothing() {
        let commits = [
            Commit::new(event(1)).put(key("a"), Expect::Revision(Revision(7)), b"1".to_vec()),
            Commit::new(event(2)).put(key("a"), Expect::Revision(Revision(7)), b"2".to_vec()),
            Commit::new(event(3)).remove(key("a"), Expect::Revision(Revision(11))),
            Commit::new(event(4)).put(key("a"), Expect::Absent, b"4".to_vec()),
            Commit::new(event(5).with("error_message", "x".repeat(MAX_BYTES)))
                .remove(key("a"), Expect::Any),
        ];
        let counter = Counter {
            revision: 10,
            sequence: 5,
            changed: 9,
        };
        let a = key("a");
        assert_eq!(expected(commits.iter()), [&a]);
        let plan = plan(counter, BTreeMap::from([(&a, 7)]), commits.iter());
        let made = |revision, sequence| {
            let revision = Revision(revision);
            Ok(Committed { revision, sequence })
        };
        assert_eq!(plan.outcomes[0], made(11, 6));
        assert_eq!(plan.outcomes[1], Err(StoreError::Conflict(key("a"))));
        assert_eq!(plan.outcomes[2], made(12, 7));
        assert_eq!(plan.outcomes[3], made(13, 8));
        assert!(matches!(plan.outcomes[4], Err(StoreError::EventTooLong(_))));
        assert_eq!(plan.entries, BTreeMap::from([(&a, Some((&b"4"[..], 13)))]));
        let sequences: Vec<_> = plan.events.iter().map(|row| row.sequence).collect();
        assert_eq!(sequences, [6, 7, 8]);
        let end = Counter {
            revision: 13,
            sequence: 8,
            changed: 13,
        };
        assert_eq!(plan.counter, end);
    }

    #[test]
    fn what_is_pruned_in_the_same_group_is_never_written() {
        let commits = [
            Commit::new(event(1)),
            Commit::new(event(2)).and_prune([1..=3]),
            Commit::new(event(3)),
        ];
        let plan = plan(Counter::default(), BTreeMap::new(), commits.iter());
        let sequences: Vec<_> = plan.events.iter().map(|row| row.sequence).collect();
        assert_eq!((sequences, plan.pruned), (vec![2, 3], vec![(1, 3)]));
    }

    #[test]
    fn only_refusals_are_nothing_to_write() {
        let commits = [Commit::new(event(1)).remove(key("a"), Expect::Revision(Revision(1)))];
        assert!(!plan(Counter::default(), BTreeMap::new(), commits.iter()).writes());
    }
}
