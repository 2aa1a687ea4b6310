//! What lies at the edges: the largest values, the strangest keys and texts, cursors beyond either end.

use super::{Commit, Expect, Key, LogQuery, Order, Store, StoreError, event, key, sequences};
use crate::event::MAX_BYTES;
use crate::store::MAX_COMMIT_BYTES;

pub(super) async fn all<S: Store, F: AsyncFn() -> S>(fresh: &F) {
    keeps_every_byte_of_a_value(&fresh().await).await;
    takes_the_largest_commit_and_refuses_a_larger_one(&fresh().await).await;
    attack_75_a_value_of_more_than_4_gib_is_refused_alone(&fresh().await).await;
    attack_75_lists_in_byte_order_whatever_the_collation(&fresh().await).await;
    pages_through_a_list_from_any_cursor(&fresh().await).await;
    a_key_named_twice_keeps_its_last_value(&fresh().await).await;
    attack_56_finds_events_by_strange_text(&fresh().await).await;
    a_long_field_is_found_by_all_of_it(&fresh().await).await;
    reads_the_log_from_any_cursor(&fresh().await).await;
    an_event_of_the_largest_size_is_kept(&fresh().await).await;
}

async fn keeps_every_byte_of_a_value(store: &impl Store) {
    let value: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
    let commit = Commit::new(event(1)).put(key("a"), Expect::Absent, value.clone());
    store.commit(commit).await.expect("put");
    let found = store.get(&key("a")).await.expect("get").expect("there");
    assert!(found.value == value, "every byte comes back");
}

async fn takes_the_largest_commit_and_refuses_a_larger_one(store: &impl Store) {
    let largest = vec![0xa5; MAX_COMMIT_BYTES - "a".len()];
    let commit = Commit::new(event(1)).put(key("a"), Expect::Absent, largest.clone());
    store.commit(commit).await.expect("the largest");
    let found = store.get(&key("a")).await.expect("get").expect("there");
    assert!(found.value == largest, "it comes back whole");
    // Together too large, each alone not.
    let commit = Commit::new(event(2))
        .put(key("b"), Expect::Absent, vec![1; MAX_COMMIT_BYTES / 2])
        .put(key("c"), Expect::Absent, vec![1; MAX_COMMIT_BYTES / 2]);
    let refused = store.commit(commit).await;
    assert_eq!(
        refused,
        Err(StoreError::CommitTooLarge(MAX_COMMIT_BYTES + 2))
    );
    assert_eq!(store.get(&key("b")).await, Ok(None), "nothing was written");
}

async fn attack_75_a_value_of_more_than_4_gib_is_refused_alone(store: &impl Store) {
    let Ok(bytes) = usize::try_from((1_u64 << 32) + 1) else {
        return;
    };
    // Fresh zeroed pages take no memory until they are touched, and a refused value never is.
    let commit = Commit::new(event(1)).put(key("a"), Expect::Absent, vec![0; bytes]);
    assert_eq!(
        store.commit(commit).await,
        Err(StoreError::CommitTooLarge(bytes + 1))
    );
    let next = store.commit(Commit::new(event(2))).await;
    assert_eq!(next.expect("commit").sequence, 1, "no number was used up");
}

/// Every character that a key may hold, alone, before and behind others; and the longest keys.
fn strange_keys() -> Vec<Key> {
    let mut texts: Vec<String> = Vec::new();
    for byte in b'!'..=b'~' {
        let character = char::from(byte);
        texts.extend([format!("k{character}"), format!("k{character}{character}")]);
        texts.extend([format!("k{character}a"), format!("k{character}Z")]);
    }
    texts.extend([
        format!("k{}", "~".repeat(511)),
        format!("k{}", "!".repeat(511)),
    ]);
    let mut keys: Vec<Key> = texts.iter().map(|text| key(text)).collect();
    keys.sort();
    keys.dedup();
    keys
}

async fn attack_75_lists_in_byte_order_whatever_the_collation(store: &impl Store) {
    let keys = strange_keys();
    let put = keys
        .iter()
        .rev()
        .fold(Commit::new(event(1)), |commit, key| {
            commit.put(key.clone(), Expect::Absent, key.as_str().into())
        });
    store.commit(put).await.expect("put");
    let found = store.list("k", None, usize::MAX).await.expect("list");
    assert!(
        found.iter().map(|(key, _)| key).eq(&keys),
        "in the order of their bytes"
    );
    for key in &keys {
        let found = store.get(key).await.expect("get").expect("there");
        assert_eq!(
            found.value,
            key.as_str().as_bytes(),
            "`{key}` is itself alone"
        );
        let wanted: Vec<_> = keys
            .iter()
            .filter(|other| other.as_str().starts_with(key.as_str()))
            .collect();
        let listed = store.list(key.as_str(), None, usize::MAX).await;
        let listed = listed.expect("list");
        assert!(
            listed.iter().map(|(key, _)| key).eq(wanted),
            "`{key}` as a prefix"
        );
    }
    for none in ["K", "k\u{e9}", "k\0", "\u{10ffff}", "k "] {
        let found = store.list(none, None, 10).await.expect("list");
        assert!(found.is_empty(), "no key starts with {none:?}");
    }
}

async fn pages_through_a_list_from_any_cursor(store: &impl Store) {
    let names = ["a", "b/1", "b/2", "b/3", "c"];
    let put = names.iter().fold(Commit::new(event(1)), |commit, name| {
        commit.put(key(name), Expect::Absent, Vec::new())
    });
    store.commit(put).await.expect("put");
    let page = async |prefix: &str, after: &str, limit| -> Vec<String> {
        let found = store.list(prefix, Some(&key(after)), limit).await;
        let found = found.expect("list").into_iter();
        found.map(|(key, _)| key.as_str().to_owned()).collect()
    };
    assert_eq!(page("b/", "a", 2).await, ["b/1", "b/2"], "cursor before");
    assert_eq!(page("b/", "b/2", 9).await, ["b/3"], "cursor within");
    assert_eq!(
        page("b/", "b/25", 9).await,
        ["b/3"],
        "cursor that is no key"
    );
    assert!(page("b/", "c", 9).await.is_empty(), "cursor behind");
    assert_eq!(page("", "b/3", 9).await, ["c"]);
}

async fn a_key_named_twice_keeps_its_last_value(store: &impl Store) {
    let twice = Commit::new(event(1))
        .put(key("a"), Expect::Absent, b"1".to_vec())
        .put(key("a"), Expect::Absent, b"2".to_vec())
        .put(key("b"), Expect::Any, b"1".to_vec())
        .remove(key("b"), Expect::Any);
    store.commit(twice).await.expect("what was there counts");
    let found = store.get(&key("a")).await.expect("get").expect("there");
    assert_eq!(found.value, b"2");
    assert_eq!(store.get(&key("b")).await, Ok(None));
    let both = Commit::new(event(2))
        .put(key("a"), Expect::Revision(found.revision), b"3".to_vec())
        .put(key("a"), Expect::Absent, b"4".to_vec());
    assert_eq!(
        store.commit(both).await,
        Err(StoreError::Conflict(key("a"))),
        "every expectation must hold"
    );
}

async fn attack_56_finds_events_by_strange_text(store: &impl Store) {
    let texts = [
        "nul\0in the middle",
        "\u{1f980} \u{e9}",
        "a' OR '1'='1",
        "%",
        "_",
        "\\x00",
        "",
        " ",
        "A",
        "a",
    ];
    for (number, text) in (1_u8..).zip(texts) {
        let event = event(number)
            .with("user_name", text)
            .with("server_hostname", text)
            .with("session_id", text);
        store.commit(Commit::new(event)).await.expect("commit");
    }
    for (number, text) in (1_u64..).zip(texts) {
        let query = LogQuery {
            user_name: Some(text.into()),
            server_hostname: Some(text.into()),
            session_id: Some(text.into()),
            limit: 10,
            ..LogQuery::default()
        };
        assert_eq!(sequences(store, query).await, [number], "by {text:?}");
    }
    let typed = |event_type: &str| LogQuery {
        event_type: Some(event_type.into()),
        limit: 100,
        ..LogQuery::default()
    };
    for none in ["test.event\0", "\u{e9}.", "\0.", "%.", "TEST.EVENT", ""] {
        assert!(sequences(store, typed(none)).await.is_empty(), "{none:?}");
    }
    assert_eq!(sequences(store, typed("test.")).await.len(), texts.len());
    // Fields that are not what the index wants are kept, and not found by it.
    let odd = event(99).with("user_name", 7).with("success", "yes");
    store.commit(Commit::new(odd)).await.expect("commit");
    let failed = LogQuery {
        success: Some(false),
        limit: 10,
        ..LogQuery::default()
    };
    assert!(sequences(store, failed).await.is_empty());
}

async fn a_long_field_is_found_by_all_of_it(store: &impl Store) {
    let [first, second] = ["x", "y"].map(|end| "u".repeat(20_000) + end);
    for (number, text) in [(1, &first), (2, &second)] {
        let event = event(number).with("user_name", text.as_str());
        let event = event.with("server_hostname", text.as_str());
        store.commit(Commit::new(event)).await.expect("commit");
    }
    let by = |user_name: &str| LogQuery {
        user_name: Some(user_name.into()),
        server_hostname: Some(user_name.into()),
        limit: 10,
        ..LogQuery::default()
    };
    assert_eq!(sequences(store, by(&second)).await, [2]);
    assert!(sequences(store, by(&"u".repeat(20_000))).await.is_empty());
}

async fn reads_the_log_from_any_cursor(store: &impl Store) {
    for number in 1..=5 {
        store
            .commit(Commit::new(event(number)))
            .await
            .expect("commit");
    }
    let window = |after, before, order| LogQuery {
        after,
        before,
        order,
        limit: usize::MAX,
        ..LogQuery::default()
    };
    let oldest = Order::OldestFirst;
    assert_eq!(
        sequences(store, window(0, None, oldest)).await,
        [1, 2, 3, 4, 5]
    );
    assert_eq!(sequences(store, window(3, None, oldest)).await, [4, 5]);
    assert_eq!(
        sequences(store, window(1, Some(4), Order::NewestFirst)).await,
        [3, 2]
    );
    assert_eq!(
        sequences(store, window(0, Some(u64::MAX), oldest))
            .await
            .len(),
        5
    );
    for (after, before) in [
        (5, None),
        (u64::MAX, None),
        (0, Some(0)),
        (0, Some(1)),
        (4, Some(2)),
    ] {
        let found = sequences(store, window(after, before, oldest)).await;
        assert!(found.is_empty(), "after {after}, before {before:?}");
    }
    assert!(
        sequences(store, LogQuery::after(0, 0)).await.is_empty(),
        "limit 0"
    );
}

async fn an_event_of_the_largest_size_is_kept(store: &impl Store) {
    let room = MAX_BYTES - event(1).with("error_message", "").render(1).len();
    let largest = event(1).with("error_message", "x".repeat(room));
    assert_eq!(largest.render(1).len(), MAX_BYTES);
    store
        .commit(Commit::new(largest.clone()))
        .await
        .expect("the largest");
    let log = store.log(&LogQuery::after(0, 1)).await.expect("log");
    let bodies: Vec<_> = log.into_iter().map(|stored| stored.body).collect();
    assert!(bodies == [largest.render(1)], "exact bytes");
    // A refused event does not make its neighbour's commit longer.
    let longer = event(2).with("error_message", "x".repeat(room + 1));
    let refused = store.commit(Commit::new(event(3)).and_event(longer)).await;
    assert_eq!(refused, Err(StoreError::EventTooLong(MAX_BYTES + 1)));
}
