//! Many callers at once, and those who wait for changes.

use futures_util::FutureExt;
use futures_util::future::{join, join_all};

use super::{Commit, Expect, LogQuery, Store, StoreError, event, key, numbered, sequences};

/// Callers at the same time.
const MANY: u64 = 100;

pub(super) async fn all<S: Store, F: AsyncFn() -> S>(fresh: &F) {
    attack_54_commits_at_once_leave_no_gap_and_lose_nothing(&fresh().await).await;
    one_of_many_racers_wins_a_compare_and_swap(&fresh().await).await;
    no_update_is_lost_between_readers_who_write(&fresh().await).await;
    a_refused_neighbour_leaves_no_trace(&fresh().await).await;
    a_caller_who_goes_away_breaks_nothing(&fresh().await).await;
    a_watcher_who_waits_is_woken_and_others_are_not(&fresh().await).await;
    a_watcher_who_comes_late_waits_for_the_next_change(&fresh().await).await;
}

async fn attack_54_commits_at_once_leave_no_gap_and_lose_nothing(store: &impl Store) {
    let commits = (0..MANY).map(|number| async move {
        let key = key(&format!("k/{number:03}"));
        let commit = Commit::new(numbered(number)).and_event(numbered(MANY + number));
        store
            .commit(commit.put(key.clone(), Expect::Absent, b"1".to_vec()))
            .await
    });
    let outcomes = join_all(commits).await;
    let mut last: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().expect("commit").sequence)
        .collect();
    last.sort_unstable();
    assert!(
        last.into_iter().eq((1..=MANY).map(|n| 2 * n)),
        "two numbers each"
    );
    let log = store
        .log(&LogQuery::after(0, usize::MAX))
        .await
        .expect("log");
    let found: Vec<_> = log.iter().map(|stored| stored.sequence).collect();
    assert!(found.into_iter().eq(1..=2 * MANY), "gap-free");
    for (number, outcome) in (0..MANY).zip(outcomes) {
        let committed = outcome.expect("commit");
        let at = |sequence: u64| {
            let found = log.iter().find(|stored| stored.sequence == sequence);
            found.map(|stored| stored.body.clone())
        };
        let (first, second) = (committed.sequence - 1, committed.sequence);
        assert_eq!(
            at(first),
            Some(numbered(number).render(first)),
            "its first event"
        );
        assert_eq!(
            at(second),
            Some(numbered(MANY + number).render(second)),
            "its second"
        );
        let found = store
            .get(&key(&format!("k/{number:03}")))
            .await
            .expect("get");
        assert_eq!(found.expect("there").revision, committed.revision);
    }
}

async fn one_of_many_racers_wins_a_compare_and_swap(store: &impl Store) {
    let race = (0..MANY).map(|number| {
        let value = number.to_string().into_bytes();
        store.commit(Commit::new(numbered(number)).put(key("a"), Expect::Absent, value))
    });
    let outcomes = join_all(race).await;
    let winners: Vec<_> = (0..MANY)
        .zip(&outcomes)
        .filter(|(_, outcome)| outcome.is_ok())
        .collect();
    let [(winner, _)] = winners.as_slice() else {
        panic!("{} racers won", winners.len());
    };
    let found = store.get(&key("a")).await.expect("get").expect("there");
    assert_eq!(found.value, winner.to_string().into_bytes());
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(refused, StoreError::Conflict(key("a")));
    }
    assert_eq!(
        sequences(store, LogQuery::after(0, 10)).await,
        [1],
        "one event"
    );
}

/// Each reads a number and writes the next one, until it was not overtaken.
async fn no_update_is_lost_between_readers_who_write(store: &impl Store) {
    let start = Commit::new(numbered(0)).put(key("sum"), Expect::Absent, b"0".to_vec());
    store.commit(start).await.expect("start");
    let add = async |number: u64| {
        loop {
            let found = store.get(&key("sum")).await.expect("get").expect("there");
            let text = String::from_utf8(found.value).expect("text");
            let sum: u64 = text.parse().expect("a number");
            let value = (sum + 1).to_string().into_bytes();
            let commit = Commit::new(numbered(number));
            let swap = commit.put(key("sum"), Expect::Revision(found.revision), value);
            match store.commit(swap).await {
                Ok(_) => return,
                Err(StoreError::Conflict(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    join_all((1..=10).map(add)).await;
    let found = store.get(&key("sum")).await.expect("get").expect("there");
    assert_eq!(found.value, b"10");
    assert_eq!(sequences(store, LogQuery::after(0, 99)).await.len(), 11);
}

async fn a_refused_neighbour_leaves_no_trace(store: &impl Store) {
    let put = |number, name: &str| {
        Commit::new(numbered(number)).put(key(name), Expect::Absent, b"1".to_vec())
    };
    let long = numbered(3).with("error_message", "x".repeat(crate::event::MAX_BYTES));
    let huge = vec![0; super::super::MAX_COMMIT_BYTES + 1];
    let commits = [
        put(0, "a"),
        put(1, "a").put(key("b"), Expect::Any, b"never".to_vec()),
        put(2, "c"),
        Commit::new(long).put(key("d"), Expect::Any, b"never".to_vec()),
        Commit::new(numbered(4)).put(key("e"), Expect::Any, huge),
        put(5, "f"),
    ];
    let outcomes = join_all(commits.map(|commit| store.commit(commit))).await;
    let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(done, 3, "{outcomes:?}");
    let found = store.list("", None, 10).await.expect("list");
    let names: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(names, ["a", "c", "f"]);
    assert_eq!(sequences(store, LogQuery::after(0, 10)).await, [1, 2, 3]);
}

async fn a_caller_who_goes_away_breaks_nothing(store: &impl Store) {
    // Begun and not waited for: it happens whole or not at all.
    let begun = store.commit(Commit::new(event(1)).put(key("a"), Expect::Any, b"1".to_vec()));
    drop(begun.now_or_never());
    let next = store.commit(Commit::new(event(2))).await.expect("commit");
    let log = sequences(store, LogQuery::after(0, 10)).await;
    assert!(log.into_iter().eq(1..=next.sequence), "no gap");
    let kept = store.get(&key("a")).await.expect("get").is_some();
    assert_eq!(kept, next.sequence == 2, "state and event together");
}

async fn a_watcher_who_waits_is_woken_and_others_are_not(store: &impl Store) {
    let (mut all, mut ours, mut others) = (store.watch(""), store.watch("a/"), store.watch("b/"));
    let put = Commit::new(event(1)).put(key("a/1"), Expect::Any, b"1".to_vec());
    let (seen, committed) = join(ours.changed(), store.commit(put)).await;
    assert_eq!(seen, committed.expect("commit").revision);
    assert_eq!(all.changed().await, seen, "the empty prefix is everything");
    assert_eq!(others.changed().now_or_never(), None, "another prefix");
    assert_eq!(ours.changed().now_or_never(), None, "told once");
    let refused = Commit::new(event(2)).put(key("a/1"), Expect::Absent, b"2".to_vec());
    store.commit(refused).await.expect_err("there");
    assert_eq!(ours.changed().now_or_never(), None, "nothing changed");
}

async fn a_watcher_who_comes_late_waits_for_the_next_change(store: &impl Store) {
    let put = |number| Commit::new(event(number)).put(key("a"), Expect::Any, vec![number]);
    store.commit(put(1)).await.expect("commit");
    let mut late = store.watch("a");
    assert_eq!(late.changed().now_or_never(), None, "from now on");
    drop(store.watch("a"));
    let second = store.commit(put(2)).await.expect("commit");
    assert_eq!(late.changed().await, second.revision, "whoever else left");
}
