//! The suite that every [`Store`] runs, the fake included: plain async functions that take a fresh, empty store.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test suite: a broken promise ends it"
)]

mod archive;
mod edges;
mod queries;
mod together;

use super::{Commit, Expect, Key, LogQuery, Order, Store, StoreError};
use crate::event::{Event, MAX_BYTES, MAX_TEXT_BYTES};
use crate::time::UnixTime;

/// Runs every case, each on a fresh store from `fresh`.
///
/// # Panics
/// When the store does not keep the contract, naming the case.
pub async fn all<S: Store, F: AsyncFn() -> S>(fresh: F) {
    reads_back_what_was_put(&fresh().await).await;
    refuses_a_stale_expectation_and_changes_nothing(&fresh().await).await;
    lists_in_byte_order_with_cursor_and_limit(&fresh().await).await;
    numbers_events_without_gap(&fresh().await).await;
    filters_and_orders_the_log(&fresh().await).await;
    refuses_an_event_that_is_too_long(&fresh().await).await;
    keeps_the_long_texts_of_an_event_beside_it(&fresh().await).await;
    wakes_watchers_of_the_prefix_only(&fresh().await).await;
    archive::prunes_what_an_event_tells(&fresh().await).await;
    archive::carries_everything_over(&fresh().await, &fresh().await).await;
    archive::restores_into_an_empty_store_only(&fresh().await, &fresh().await).await;
    archive::a_dump_that_breaks_off_restores_nothing(&fresh().await).await;
    edges::all(&fresh).await;
    queries::finds_by_every_combination(&fresh().await).await;
    together::all(&fresh).await;
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a valid key")
}

fn event(number: u8) -> Event {
    Event::new(
        "test.event",
        "MZ0000",
        UnixTime::from_secs(u64::from(number)),
        [[number; 16], [number; 16]],
    )
}

/// One of many: no two numbers give the same id.
fn numbered(number: u64) -> Event {
    let mut random = [0; 16];
    random
        .split_at_mut(8)
        .1
        .copy_from_slice(&number.to_be_bytes());
    Event::new("test.event", "MZ0000", UnixTime::from_secs(1), [random; 2])
}

/// The sequences that a query finds.
async fn sequences(store: &impl Store, query: LogQuery) -> Vec<u64> {
    let found = store.log(&query).await.expect("log");
    found.iter().map(|stored| stored.sequence).collect()
}

async fn reads_back_what_was_put(store: &impl Store) {
    assert_eq!(
        store.get(&key("a/1")).await,
        Ok(None),
        "an empty store holds nothing"
    );
    let first = store
        .commit(Commit::new(event(1)).put(key("a/1"), Expect::Absent, b"one".to_vec()))
        .await
        .expect("put");
    let found = store.get(&key("a/1")).await.expect("get").expect("there");
    assert_eq!(
        (found.value.as_slice(), found.revision),
        (&b"one"[..], first.revision)
    );
    let second = store
        .commit(Commit::new(event(2)).put(key("a/1"), Expect::Revision(first.revision), Vec::new()))
        .await;
    assert!(
        second.expect("swap").revision > first.revision,
        "revisions rise"
    );
    assert_eq!(
        store
            .get(&key("a/1"))
            .await
            .expect("get")
            .expect("there")
            .value,
        b"",
        "an empty value is a value"
    );
    store
        .commit(Commit::new(event(3)).remove(key("a/1"), Expect::Any))
        .await
        .expect("remove");
    assert_eq!(store.get(&key("a/1")).await, Ok(None), "removed");
}

async fn refuses_a_stale_expectation_and_changes_nothing(store: &impl Store) {
    let first = store
        .commit(Commit::new(event(1)).put(key("a"), Expect::Any, b"1".to_vec()))
        .await
        .expect("put");
    store
        .commit(Commit::new(event(2)).put(key("a"), Expect::Any, b"2".to_vec()))
        .await
        .expect("put");
    let commit = Commit::new(event(3))
        .put(key("b"), Expect::Any, b"must not appear".to_vec())
        .put(key("a"), Expect::Revision(first.revision), b"3".to_vec());
    assert_eq!(
        store.commit(commit).await,
        Err(StoreError::Conflict(key("a"))),
        "stale revision"
    );
    let absent = Commit::new(event(4)).put(key("a"), Expect::Absent, b"4".to_vec());
    assert_eq!(
        store.commit(absent).await,
        Err(StoreError::Conflict(key("a"))),
        "not absent"
    );
    let missing = Commit::new(event(5)).remove(key("c"), Expect::Revision(first.revision));
    assert_eq!(
        store.commit(missing).await,
        Err(StoreError::Conflict(key("c"))),
        "nothing to remove"
    );
    assert_eq!(
        store.get(&key("b")).await,
        Ok(None),
        "a refused commit writes nothing"
    );
    let log = store.log(&LogQuery::after(0, 10)).await.expect("log");
    assert_eq!(log.len(), 2, "a refused commit reports nothing");
}

async fn lists_in_byte_order_with_cursor_and_limit(store: &impl Store) {
    for name in ["b/1", "a/2", "a/1", "a/10", "ab", "a%", "a_1", "A/1"] {
        store
            .commit(Commit::new(event(1)).put(key(name), Expect::Absent, name.into()))
            .await
            .expect("put");
    }
    let names = |found: Vec<(Key, super::Versioned)>| -> Vec<String> {
        found
            .into_iter()
            .map(|(key, _)| key.as_str().to_owned())
            .collect()
    };
    let all = store.list("a/", None, 10).await.expect("list");
    assert_eq!(names(all), ["a/1", "a/10", "a/2"], "prefix in byte order");
    let rest = store.list("a/", Some(&key("a/1")), 1).await.expect("list");
    assert_eq!(names(rest), ["a/10"], "after, limit");
    assert_eq!(
        names(store.list("a_", None, 10).await.expect("list")),
        ["a_1"],
        "no wildcard in a prefix"
    );
    assert_eq!(
        names(store.list("a%", None, 10).await.expect("list")),
        ["a%"],
        "no wildcard in a prefix"
    );
    assert_eq!(
        store.list("", None, 10).await.expect("list").len(),
        8,
        "the empty prefix is everything"
    );
    assert!(
        store.list("a/", None, 0).await.expect("list").is_empty(),
        "limit 0 gives none"
    );
}

async fn numbers_events_without_gap(store: &impl Store) {
    let committed = store
        .commit(Commit::new(event(1)).and_event(event(2)))
        .await
        .expect("commit");
    assert_eq!(committed.sequence, 2, "two events");
    let keeping = Commit::for_log_keeping("tree", Expect::Absent, b"x".to_vec()).expect("name");
    assert_eq!(
        store.commit(keeping).await.expect("keep").sequence,
        2,
        "log keeping has no event"
    );
    assert_eq!(
        store
            .get(&key("log/tree"))
            .await
            .expect("get")
            .expect("there")
            .value,
        b"x"
    );
    assert_eq!(
        store
            .commit(Commit::new(event(3)))
            .await
            .expect("commit")
            .sequence,
        3
    );
    let log = store.log(&LogQuery::after(0, 10)).await.expect("log");
    let bodies: Vec<_> = log
        .iter()
        .map(|stored| (stored.sequence, stored.body.clone()))
        .collect();
    let wanted = [
        (1, event(1).render(1)),
        (2, event(2).render(2)),
        (3, event(3).render(3)),
    ];
    assert_eq!(bodies, wanted, "exact bytes in order");
}

async fn filters_and_orders_the_log(store: &impl Store) {
    let users = ["alice", "bob", "alice", "alice"];
    for (number, user) in (1_u8..).zip(users) {
        let event = event(number)
            .with("user_name", user)
            .with("success", number != 3);
        store.commit(Commit::new(event)).await.expect("commit");
    }
    let sequences = async |query: LogQuery| -> Vec<u64> {
        let found = store.log(&query).await.expect("log");
        found.iter().map(|stored| stored.sequence).collect()
    };
    let alice = LogQuery {
        user_name: Some("alice".into()),
        limit: 10,
        ..LogQuery::default()
    };
    assert_eq!(sequences(alice.clone()).await, [1, 3, 4]);
    assert_eq!(
        sequences(LogQuery {
            limit: 2,
            order: Order::NewestFirst,
            ..alice.clone()
        })
        .await,
        [4, 3]
    );
    assert_eq!(
        sequences(LogQuery {
            before: Some(4),
            order: Order::NewestFirst,
            limit: 1,
            ..alice.clone()
        })
        .await,
        [3]
    );
    assert_eq!(
        sequences(LogQuery {
            success: Some(false),
            ..alice.clone()
        })
        .await,
        [3]
    );
    assert_eq!(
        sequences(LogQuery {
            event_type: Some("test.".into()),
            after: 2,
            ..alice.clone()
        })
        .await,
        [3, 4]
    );
    assert_eq!(
        sequences(LogQuery {
            event_type: Some("test".into()),
            ..alice.clone()
        })
        .await,
        [0; 0]
    );
    let named = LogQuery {
        id: Some(event(2).id),
        limit: 10,
        ..LogQuery::default()
    };
    assert_eq!(sequences(named).await, [2], "by the record's name");
    let window = LogQuery {
        since: Some(UnixTime::from_secs(2)),
        until: Some(UnixTime::from_secs(4)),
        limit: 9,
        ..LogQuery::default()
    };
    assert_eq!(sequences(window).await, [2, 3]);
    assert_eq!(
        sequences(LogQuery {
            session_id: Some("none".into()),
            ..alice
        })
        .await,
        [0; 0]
    );
}

async fn refuses_an_event_that_is_too_long(store: &impl Store) {
    let long = event(1).with("error_message", "x".repeat(MAX_BYTES));
    let refused = store
        .commit(Commit::new(long).put(key("a"), Expect::Any, b"1".to_vec()))
        .await;
    assert!(
        matches!(refused, Err(StoreError::EventTooLong(_))),
        "{refused:?}"
    );
    assert_eq!(store.get(&key("a")).await, Ok(None), "nothing was written");
    assert_eq!(
        store
            .commit(Commit::new(event(2)))
            .await
            .expect("commit")
            .sequence,
        1,
        "no number was used up"
    );
}

async fn keeps_the_long_texts_of_an_event_beside_it(store: &impl Store) {
    let mut long = event(1);
    long.set_text("command", "x".repeat(MAX_TEXT_BYTES));
    let at = Key::of_text(long.id, "command");
    store
        .commit(Commit::new(long.clone()))
        .await
        .expect("as long as it may be");
    let found = store.get(&at).await.expect("get").expect("there");
    assert_eq!(found.value.len(), MAX_TEXT_BYTES);
    let log = store.log(&LogQuery::after(0, 9)).await.expect("log");
    let bodies: Vec<_> = log.into_iter().map(|stored| stored.body).collect();
    assert_eq!(bodies, [long.render(1)], "the text is not in the leaf");
    let mut longer = event(2);
    longer.set_text("command", "x".repeat(MAX_TEXT_BYTES));
    longer.set_text("document", "y".to_owned());
    let refused = store
        .commit(Commit::new(longer).put(key("a"), Expect::Any, b"1".to_vec()))
        .await;
    assert_eq!(refused, Err(StoreError::TextTooLong(MAX_TEXT_BYTES + 1)));
    assert_eq!(store.get(&key("a")).await, Ok(None), "nothing was written");
    // A text and its event go together.
    let removed = Commit::new(event(3))
        .and_prune([1..=1])
        .remove(at.clone(), Expect::Any);
    store.commit(removed).await.expect("prune");
    assert_eq!(store.get(&at).await, Ok(None));
}

async fn wakes_watchers_of_the_prefix_only(store: &impl Store) {
    let mut watch = store.watch("a/");
    let other = store
        .commit(Commit::new(event(1)).put(key("b/1"), Expect::Any, Vec::new()))
        .await
        .expect("put");
    let first = store
        .commit(Commit::new(event(2)).put(key("a/1"), Expect::Any, Vec::new()))
        .await
        .expect("put");
    let second = store
        .commit(Commit::new(event(3)).remove(key("a/1"), Expect::Any))
        .await
        .expect("remove");
    assert!(other.revision < first.revision);
    assert_eq!(
        watch.changed().await,
        second.revision,
        "changes coalesce to the newest"
    );
}

#[cfg(test)]
mod tests {
    use super::super::MemoryStore;

    #[test]
    fn memory_store_conforms() {
        futures_executor::block_on(super::all(async || MemoryStore::new()));
    }
}
