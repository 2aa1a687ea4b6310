//! Connections that break at the worst moment, transactions that lose, servers that die: never a false success, never an
//! event twice, and the store finds back by itself.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mezite_core::store::{Commit, Expect, LogQuery, Store, StoreError};
use mezite_store_postgres::PostgresStore;
use mezite_store_postgres::testing::Server;
use tokio::time::{sleep, timeout};

use crate::wire::{Cut, Wire};
use crate::{event, key, open, sequences};

async fn through(server: &Server, wire: &Wire) -> (String, PostgresStore) {
    let string = server.database();
    let through = server.over_tcp(&string, Some(wire.port)) + " sslmode=disable";
    let store = open(&through).await;
    (string, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_54_a_commit_whose_answer_is_lost_is_found_and_not_made_twice() {
    let server = Server::shared();
    let wire = Wire::to(server.port()).await;
    let (string, store) = through(&server, &wire).await;
    let mut last = 0;
    for (round, cut) in
        (0_u64..).zip([Cut::After, Cut::Before, Cut::After, Cut::After, Cut::Before])
    {
        wire.arm(cut);
        let commits = (0..5).map(|number| {
            let number = round * 10 + number;
            let commit = Commit::new(event(number)).and_event(event(1000 + number));
            store.commit(commit.put(key(&format!("k/{number}")), Expect::Absent, vec![1]))
        });
        for outcome in join_all(commits).await {
            last = last.max(outcome.expect("made, once").sequence);
        }
        assert!(wire.was_cut());
    }
    assert_eq!(last, 50);
    let direct = open(&string).await;
    assert!(
        sequences(&direct).await.into_iter().eq(1..=50),
        "each event once"
    );
    assert_eq!(direct.list("k/", None, 100).await.unwrap().len(), 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_54_a_transaction_in_one_exchange_that_is_cut_off_is_made_once() {
    let server = Server::shared();
    let wire = Wire::to(server.port()).await;
    let (string, store) = through(&server, &wire).await;
    let mut made = Vec::new();
    for (round, cut) in (0_u64..).zip([Cut::After, Cut::Before, Cut::Late, Cut::After, Cut::Late]) {
        // So that the hub knows that it is alone, and counts on the counters.
        for number in 0..3 {
            let commit = Commit::new(event(round * 10 + number));
            made.push(store.commit(commit).await.unwrap().sequence);
        }
        wire.arm(cut);
        let commit = Commit::new(event(round * 10 + 3)).put(key("a"), Expect::Any, vec![1]);
        made.push(store.commit(commit).await.expect("made").sequence);
        assert!(wire.was_cut());
    }
    assert!(made.into_iter().eq(1..=20), "gap-free");
    sleep(Duration::from_millis(500)).await;
    let direct = open(&string).await;
    let log = direct.log(&LogQuery::after(0, 100)).await.unwrap();
    let bodies = log
        .into_iter()
        .map(|stored| (stored.sequence, stored.body))
        .collect::<Vec<_>>();
    let wanted = (1_u64..=20).map(|sequence| {
        let number = (sequence - 1) / 4 * 10 + (sequence - 1) % 4;
        (sequence, event(number).render(sequence))
    });
    assert!(bodies.into_iter().eq(wanted), "each event once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_a_commit_without_an_event_is_not_called_a_success() {
    let server = Server::shared();
    let wire = Wire::to(server.port()).await;
    let (string, store) = through(&server, &wire).await;
    let keep = |value: &[u8]| Commit::for_log_keeping("head", Expect::Any, value.to_vec()).unwrap();
    store.commit(keep(b"1")).await.unwrap();
    wire.arm(Cut::Before);
    store
        .commit(keep(b"2"))
        .await
        .expect("the counters say that it was not made, so it is made again");
    wire.arm(Cut::After);
    let error = store.commit(keep(b"3")).await.unwrap_err();
    assert!(error.to_string().contains("is unknown"), "{error}");
    let found = open(&string)
        .await
        .get(&key("log/head"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.value, b"3");
    store.commit(keep(b"4")).await.unwrap();
}

/// Makes the next `count` transactions fail with `state`.
fn fail(server: &Server, string: &str, state: &str, count: u32) {
    server.sql(
        string,
        &format!(
            "CREATE SEQUENCE IF NOT EXISTS failures;
             CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('failures') <= {count} THEN RAISE 'told to fail' USING ERRCODE = '{state}'; END IF;
                RETURN NEW; END $$;
             SELECT setval('failures', 1, false);
             CREATE OR REPLACE TRIGGER fail BEFORE UPDATE ON mezite.counter FOR EACH ROW EXECUTE FUNCTION fail()"
        ),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_75_serialisation_failures_are_tried_again_and_not_for_ever() {
    let server = Server::shared();
    let string = server.database();
    let store = open(&string).await;
    for state in ["40001", "40P01"] {
        fail(&server, &string, state, 3);
        store
            .commit(Commit::new(event(1)))
            .await
            .expect("at the fourth try");
    }
    fail(&server, &string, "40001", 1_000_000);
    let began = Instant::now();
    let error = store.commit(Commit::new(event(2))).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable(why) if why.contains("told to fail")),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
    fail(&server, &string, "40001", 0);
    assert_eq!(
        store.commit(Commit::new(event(3))).await.unwrap().sequence,
        3,
        "no gap"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_54_a_full_disk_refuses_and_leaves_nothing_half_done() {
    let server = Server::shared();
    let string = server.database();
    let store = open(&string).await;
    fail(&server, &string, "53100", 1_000_000);
    let put = |number| Commit::new(event(number)).put(key("a"), Expect::Any, vec![1]);
    let began = Instant::now();
    for outcome in join_all((0..20).map(|number| store.commit(put(number)))).await {
        assert!(
            matches!(outcome, Err(StoreError::Unavailable(_))),
            "{outcome:?}"
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "no use in trying again"
    );
    fail(&server, &string, "53100", 0);
    assert_eq!(store.get(&key("a")).await, Ok(None));
    assert_eq!(store.commit(put(99)).await.unwrap().sequence, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_75_what_the_database_does_not_take_is_refused_alone() {
    let server = Server::shared();
    let string = server.database();
    let store = open(&string).await;
    server.sql(
        &string,
        "ALTER TABLE mezite.entry ADD CHECK (value <> 'poison')",
    );
    let put = |number: u64, value: &[u8]| {
        store.commit(Commit::new(event(number)).put(
            key(&format!("k/{number}")),
            Expect::Any,
            value.to_vec(),
        ))
    };
    let commits = (0..9).map(|number| put(number, if number == 4 { b"poison" } else { b"good" }));
    let outcomes = join_all(commits).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_err(), number == 4, "{number}: {outcome:?}");
    }
    assert!(sequences(&store).await.into_iter().eq(1..=8));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_hub_that_hangs_in_a_transaction_does_not_stop_this_one() {
    let server = Server::shared();
    let string = server.database();
    let (hangs, store) = (open(&string).await, open(&string).await);
    hangs.commit(Commit::new(event(1))).await.unwrap();
    // What it would be like to be stopped with the lock in hand: the server ends such a transaction after 5 s.
    let string = string.clone();
    let holder = std::thread::spawn({
        let server = Server::shared();
        move || {
            server.sql(
                &string,
                "BEGIN; SELECT FROM mezite.counter FOR UPDATE; SELECT pg_sleep(4); COMMIT",
            )
        }
    });
    sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    store
        .commit(Commit::new(event(2)))
        .await
        .expect("when the lock is free");
    assert!(
        began.elapsed() > Duration::from_secs(2),
        "it waited for its turn"
    );
    holder.join().unwrap();
    assert!(sequences(&store).await.into_iter().eq(1..=2));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_54_a_server_that_dies_loses_nothing_that_was_confirmed_and_is_found_again() {
    let server = Server::start(&[]);
    let string = server.database();
    let store = open(&string).await;
    let mut watch = store.watch("a");
    let mut confirmed = Vec::new();
    for life in 0..3_u64 {
        let callers = (0..8_u64).map(|caller| {
            let store = &store;
            async move {
                let mut confirmed = Vec::new();
                for turn in 0.. {
                    let number = life * 1_000_000 + caller * 10_000 + turn;
                    match store.commit(Commit::new(event(number))).await {
                        Ok(committed) => confirmed.push((committed.sequence, number)),
                        Err(StoreError::Unavailable(_)) => return confirmed,
                        Err(error) => panic!("{error}"),
                    }
                }
                confirmed
            }
        });
        let killer = async {
            sleep(Duration::from_millis(300 + 37 * life)).await;
            tokio::task::block_in_place(|| server.crash());
        };
        let (found, ()) = futures_util::future::join(join_all(callers), killer).await;
        confirmed.extend(found.into_iter().flatten());
        let began = Instant::now();
        let error = store.get(&key("a")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "told in good time"
        );
        tokio::task::block_in_place(|| server.restart());
        store
            .commit(Commit::new(event(999_999 + life * 1_000_000)))
            .await
            .expect("found again by itself");
        let woken = timeout(Duration::from_secs(5), watch.changed()).await;
        woken.expect("watchers read again after a time in which they may have missed something");
    }
    confirmed.sort_unstable();
    assert!(confirmed.len() > 50, "{}", confirmed.len());
    let log = store.log(&LogQuery::after(0, usize::MAX)).await.unwrap();
    assert!(
        log.iter()
            .map(|stored| stored.sequence)
            .eq((1..).take(log.len())),
        "no gap"
    );
    for (sequence, number) in confirmed {
        let stored = &log[usize::try_from(sequence - 1).unwrap()];
        assert_eq!(
            stored.body,
            event(number).render(sequence),
            "what was confirmed is there"
        );
    }
    let mut bodies: Vec<_> = log
        .into_iter()
        .map(|stored| {
            let body = String::from_utf8(stored.body).unwrap();
            body.split(',').next().unwrap().to_owned()
        })
        .collect();
    let all = bodies.len();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), all, "no event twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_an_administrator_ends_are_made_again() {
    let server = Server::shared();
    let string = server.database();
    let store = open(&string).await;
    let mut watch = store.watch("a");
    store.commit(Commit::new(event(1))).await.unwrap();
    for round in 0..5 {
        let name = string.rsplit('=').next().unwrap();
        server.sql(
            "postgres",
            &format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            ),
        );
        let put = Commit::new(event(2 + round)).put(key("a"), Expect::Any, vec![]);
        store.commit(put).await.expect("on a new connection");
        store
            .get(&key("a"))
            .await
            .expect("on a new connection")
            .unwrap();
        timeout(Duration::from_secs(2), watch.changed())
            .await
            .unwrap();
    }
    assert!(sequences(&store).await.into_iter().eq(1..=6));
}
