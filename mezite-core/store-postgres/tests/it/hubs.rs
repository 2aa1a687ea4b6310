//! Several hubs on one database.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use mezite_core::store::{Commit, Expect, LogQuery, Store, StoreError};
use mezite_core::{Event, UnixTime};
use mezite_store_postgres::testing::Server;
use tokio::time::{sleep, timeout};

use crate::{event, key, open, sequences};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn attack_54_hubs_that_write_at_once_leave_no_gap_and_lose_nothing() {
    let server = Server::shared();
    let string = server.database();
    let hubs = join_all((0..4).map(|_| open(&string))).await;
    let callers = (0..4_u64).flat_map(|hub| (0..8_u64).map(move |caller| (hub, caller)));
    let calls = callers.map(|(hub, caller)| {
        let store = &hubs[usize::try_from(hub).unwrap()];
        async move {
            let mut made = Vec::new();
            for turn in 0..25 {
                let number = hub * 1_000_000 + caller * 1000 + turn;
                let commit = Commit::new(event(number));
                let committed = store.commit(commit).await.unwrap();
                made.push((committed.sequence, event(number).render(committed.sequence)));
            }
            assert!(made.is_sorted(), "commits of one caller keep their order");
            made
        }
    });
    let mut made: Vec<_> = join_all(calls).await.into_iter().flatten().collect();
    made.sort();
    assert!(
        made.iter().map(|(sequence, _)| *sequence).eq(1..=800),
        "gap-free"
    );
    for hub in &hubs {
        let log = hub.log(&LogQuery::after(0, usize::MAX)).await.unwrap();
        let log: Vec<_> = log
            .into_iter()
            .map(|stored| (stored.sequence, stored.body))
            .collect();
        assert!(log == made, "each hub reads what all wrote");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_54_a_hub_that_was_alone_sees_that_another_wrote() {
    let server = Server::shared();
    let string = server.database();
    let (here, there) = (open(&string).await, open(&string).await);
    let (mut number, mut revisions) = (0, Vec::new());
    // As many in turn as make one count on being alone, and one that does not.
    for turns in [5, 1, 5, 2, 5, 3, 1, 1, 4] {
        for store in [&here, &there] {
            for _ in 0..turns {
                number += 1;
                let committed = store.commit(Commit::new(event(number))).await.unwrap();
                assert_eq!(committed.sequence, number, "gap-free");
                revisions.push(committed.revision.0);
            }
        }
    }
    assert!(revisions.iter().copied().eq(1..=number));
    // A change without an event moves the revision alone.
    for _ in 0..5 {
        number += 1;
        here.commit(Commit::new(event(number))).await.unwrap();
    }
    server.sql(&string, "UPDATE mezite.counter SET revision = revision + 1");
    let committed = here.commit(Commit::new(event(number + 1))).await.unwrap();
    assert_eq!(
        (committed.sequence, committed.revision.0),
        (number + 1, number + 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_hubs_wins_a_compare_and_swap() {
    let server = Server::shared();
    let string = server.database();
    let hubs = join_all((0..4).map(|_| open(&string))).await;
    let race = (0..40_u64).map(|number| {
        let commit = Commit::new(event(number)).put(key("a"), Expect::Absent, vec![]);
        hubs[usize::try_from(number % 4).unwrap()].commit(commit)
    });
    let outcomes = join_all(race).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(refused, StoreError::Conflict(key("a")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_at_one_hub_wakes_watchers_at_the_other() {
    let server = Server::shared();
    let string = server.database();
    let (here, there) = (open(&string).await, open(&string).await);
    let (mut locks, mut users) = (there.watch("lock/"), there.watch("user/"));
    for turn in 0..10 {
        let commit = Commit::new(event(turn)).put(key("lock/1"), Expect::Any, vec![]);
        let committed = here.commit(commit).await.unwrap();
        let woken = timeout(SECOND, locks.changed())
            .await
            .expect("within a second");
        assert_eq!(woken, committed.revision);
        assert!(there.get(&key("lock/1")).await.unwrap().is_some());
    }
    assert_eq!(users.changed().now_or_never(), None, "another prefix");
    // More keys than a notification can name.
    let many = (0..1000).fold(Commit::new(event(99)), |commit, number| {
        commit.put(key(&format!("node/{number:0100}")), Expect::Any, vec![])
    });
    let committed = here.commit(many).await.unwrap();
    let woken = timeout(SECOND, users.changed())
        .await
        .expect("within a second");
    assert_eq!(woken, committed.revision, "too many keys stand for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_without_changes_wake_nobody() {
    let server = Server::shared();
    let string = server.database();
    let (here, there) = (open(&string).await, open(&string).await);
    let mut watch = there.watch("");
    for number in 0..20 {
        here.commit(Commit::new(event(number))).await.unwrap();
        sleep(SECOND / 10).await;
    }
    assert_eq!(watch.changed().now_or_never(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_that_is_swallowed_costs_a_second() {
    let server = Server::shared();
    let string = server.database();
    let store = open(&string).await;
    let mut watch = store.watch("a");
    // As if another hub had written and a pooler had dropped what it said.
    server.sql(
        &string,
        "UPDATE mezite.counter SET revision = revision + 1, changed = revision + 1;
         INSERT INTO mezite.entry (key, value, revision) SELECT 'a', '', revision FROM mezite.counter",
    );
    timeout(2 * SECOND, watch.changed())
        .await
        .expect("seen at the next beats");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_75_hubs_with_skewed_clocks_share_one_order() {
    let server = Server::shared();
    let string = server.database();
    let (late, early) = (open(&string).await, open(&string).await);
    let at = |number: u8, secs| {
        Event::new(
            "test.event",
            "MZ0000",
            UnixTime::from_secs(secs),
            [[number; 16]; 2],
        )
    };
    let (behind, ahead) = (1_000_000_000, 2_000_000_000);
    for turn in 0..10_u8 {
        let here = late
            .commit(Commit::new(at(2 * turn, behind + u64::from(turn))))
            .await
            .unwrap();
        let there = early
            .commit(Commit::new(at(2 * turn + 1, ahead - u64::from(turn))))
            .await
            .unwrap();
        assert_eq!(
            (here.sequence, there.sequence),
            (u64::from(2 * turn) + 1, u64::from(2 * turn) + 2)
        );
        assert!(there.revision > here.revision);
    }
    assert!(
        sequences(&late).await.into_iter().eq(1..=20),
        "by sequence, whatever the clocks said"
    );
    let query = LogQuery {
        since: Some(UnixTime::from_secs(ahead - 100)),
        limit: 100,
        ..LogQuery::default()
    };
    let found = late.log(&query).await.unwrap();
    assert_eq!(found.len(), 10, "times are what each hub said");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_75_hubs_that_open_a_new_database_at_once_make_one_schema() {
    let server = Server::shared();
    let string = server.database();
    let hubs = join_all((0..8).map(|_| open(&string))).await;
    for (number, hub) in (0..).zip(&hubs) {
        hub.commit(Commit::new(event(number))).await.unwrap();
    }
    assert!(sequences(&hubs[0]).await.into_iter().eq(1..=8));
    let alone = server.database();
    open(&alone).await;
    let version = |of: &str| server.sql(of, "SELECT version FROM mezite.about");
    assert_eq!(version(&string), version(&alone));
}
