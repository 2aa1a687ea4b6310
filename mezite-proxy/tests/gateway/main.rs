//! The gateway with a fake authority, node and sink: what happens in which order, and what does not happen when a step
//! fails. The programs are driven end to end elsewhere; here every step can be made to fail.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::unwrap_in_result,
    reason = "tests"
)]

mod attacks;
mod cut;
mod house;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use house::{House, Shown, Started, run};
use mezite_net::ssh::{Client, SshError};

const NODE_EFFECTS: [&str; 3] = ["mint", "node in", "ran echo"];

#[tokio::test]
async fn each_step_follows_the_one_that_must_be_durable_before() {
    let house = House::new();
    let client = house.connect("app").await;
    let shown = run(&client, "echo").await;
    assert_eq!((shown.out.as_str(), shown.status), ("hello", Some(0)));
    client.disconnect("done").await;
    house.wait_for("session.end").await;
    let steps = house.steps();
    let order = [
        "permit",
        "recording opened",
        "mint",
        "session.start",
        "session.exec",
        "ran echo",
        "session.end",
    ];
    let places = order.map(|step| steps.iter().position(|taken| taken == step));
    assert!(places.iter().all(Option::is_some), "{steps:#?}");
    assert!(places.is_sorted(), "{steps:#?}");
}

#[tokio::test]
async fn a_denial_records_mints_and_reaches_nothing() {
    let house = House::new();
    let shown = run(&house.connect("root").await, "echo").await;
    assert_eq!(shown.status, Some(255), "{shown:?}");
    assert!(shown.err.contains("no: "), "{shown:?}");
    for step in NODE_EFFECTS.into_iter().chain(["recording opened"]) {
        assert!(!house.took(step), "{:#?}", house.steps());
    }
}

#[tokio::test]
async fn no_recorder_no_session() {
    let house = House::new();
    house.fail("open");
    let shown = run(&house.connect("app").await, "echo").await;
    assert!(shown.err.contains("could not be recorded"), "{shown:?}");
    assert!(house.took("session.recording.failed"));
    for step in NODE_EFFECTS {
        assert!(!house.took(step), "{:#?}", house.steps());
    }
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_named_and_the_recording_closed() {
    let house = House::new();
    house.fail("dial");
    let shown = run(&house.connect("app").await, "echo").await;
    assert!(shown.err.contains("`db1` cannot be reached"), "{shown:?}");
    assert!(house.took("session.end") && !house.took("session.start"));
}

#[tokio::test]
async fn a_start_that_cannot_be_reported_runs_nothing() {
    let house = House::new();
    house.fail("report");
    let client = house.connect("app").await;
    if let Ok(channel) = client.open_session().await {
        drop(channel);
    }
    house.wait_for("node out").await;
    assert!(!house.took("ran echo"), "{:#?}", house.steps());
}

#[tokio::test]
async fn a_recorder_that_fails_later_ends_the_session_before_more_is_shown() {
    let house = House::new();
    let client = house.connect("app").await;
    let running = Started::new(&client, "sleep").await;
    house.wait_for("ran sleep").await;
    house.fail("append");
    if let Ok(second) = Started::attempt(&client, "echo").await {
        assert_eq!(second.shown().await.out, "", "what is shown was recorded");
    }
    assert_eq!(running.shown().await.status, Some(255));
    house.wait_for("session.recording.failed").await;
    house.wait_for("session.end").await;
    assert!(!house.took("ran echo"), "{:#?}", house.steps());
}

const SUSPEND: &str = "record: { on_failure: suspend }";

#[tokio::test]
async fn a_session_waits_for_its_recorder_where_the_role_says_so() {
    for step in ["append", "sync"] {
        let house = House::with(SUSPEND);
        let client = Arc::new(house.connect("app").await);
        let mut running = Started::new(&client, "sleep").await;
        house.wait_for("ran sleep").await;
        house.fail(step);
        // A command is a write; a sync comes by itself.
        let second = another(&client);
        house.wait_for("session.recording.failed suspended").await;
        assert!(running.err_until("the session waits").await);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let ran = house.took("ran echo");
        assert!(!ran || step == "sync", "{:#?}", house.steps());
        assert!(!house.took("session.end"));
        house.heal(step);
        house.wait_for("session.recording.failed resumed").await;
        let second = second.await.unwrap().unwrap();
        assert_eq!(second.shown().await.out, "hello", "{step}");
        client.disconnect("done").await;
        house.wait_for("session.end").await;
        assert!(!house.took("session.recording.failed terminated"));
    }
}

#[tokio::test]
async fn watchers_are_announced_where_the_role_says_so_and_nowhere_else() {
    for (options, told) in [("record: { announce_watchers: true }", true), ("", false)] {
        let house = House::with(options);
        house.watched_by(&["carol"]);
        let client = house.connect("app").await;
        // Who watches already, whoever comes, and whoever goes.
        let mut running = Started::new(&client, "sleep").await;
        if told {
            assert!(
                running
                    .err_until("mezite: carol watches this session")
                    .await
            );
            house.watched_by(&["carol", "dave"]);
            assert!(running.err_until("mezite: dave watches this session").await);
            house.watched_by(&["dave"]);
            assert!(running.err_until("mezite: carol no longer watches").await);
        } else {
            house.wait_for("ran sleep").await;
            house.watched_by(&["carol", "dave"]);
        }
        house.end_sessions("gone");
        let shown = running.shown().await;
        assert!(shown.err.contains("gone"), "{shown:?}");
        assert!(!shown.err.contains("watches"), "{shown:?}");
    }
}

/// A command on a channel that may not be opened before the session goes on.
fn another(client: &Arc<Client>) -> tokio::task::JoinHandle<Result<Started, SshError>> {
    let client = Arc::clone(client);
    tokio::spawn(async move { Started::attempt(&client, "echo").await })
}

#[tokio::test]
async fn a_session_that_waits_for_its_recorder_ends_when_it_has_to() {
    let house = House::with(SUSPEND);
    let client = Arc::new(house.connect("app").await);
    let running = Started::new(&client, "sleep").await;
    house.wait_for("ran sleep").await;
    house.fail("append");
    let second = another(&client);
    house.wait_for("session.recording.failed suspended").await;
    house.end_sessions("user `alice` is locked");
    let shown = running.shown().await;
    assert!(shown.err.contains("is locked"), "{shown:?}");
    house.wait_for("session.end").await;
    assert!(!house.took("ran echo"), "{:#?}", house.steps());
    second.abort();
}

#[tokio::test]
async fn a_changed_decision_ends_a_session_while_the_sink_hangs_in_sync() {
    a_changed_decision_ends_a_session_while_the_sink_hangs("sync").await;
}

#[tokio::test]
async fn a_changed_decision_ends_a_session_while_the_sink_hangs_in_a_write() {
    a_changed_decision_ends_a_session_while_the_sink_hangs("append").await;
}

async fn a_changed_decision_ends_a_session_while_the_sink_hangs(step: house::Step) {
    let house = House::new();
    let client = Arc::new(house.connect("app").await);
    let running = Started::new(&client, "sleep").await;
    house.wait_for("ran sleep").await;
    house.hang(step);
    // The next sync is at most a second away; a second command is a write.
    let second = tokio::spawn({
        let client = Arc::clone(&client);
        async move { Started::attempt(&client, "echo").await.is_ok() }
    });
    tokio::time::sleep(Duration::from_millis(1200)).await;
    house.end_sessions("user `alice` is locked");
    let shown = running.shown().await;
    assert!(shown.err.contains("is locked"), "{shown:?}");
    house.wait_for("node out").await;
    house.go_on();
    house.wait_for("session.end").await;
    second.abort();
}

#[tokio::test]
async fn a_shutdown_ends_sessions_and_lets_no_new_one_begin() {
    let house = House::new();
    let client = house.connect("app").await;
    let running = Started::new(&client, "sleep").await;
    house.wait_for("ran sleep").await;
    house.gateway.shutdown(Duration::from_secs(10)).await;
    assert!(house.took("session.end"), "shutdown waits for the end");
    assert_eq!(running.shown().await.status, Some(255));
    let late = run(&house.connect("app").await, "echo").await;
    assert_eq!(
        (late.out.as_str(), late.status),
        ("", Some(255)),
        "{late:?}"
    );
    assert!(late.err.contains("shutting down"), "{late:?}");
    assert!(!house.took("ran echo"), "{:#?}", house.steps());
}

#[tokio::test]
async fn two_sessions_of_one_user_do_not_disturb_each_other() {
    let house = House::new();
    let (first, second) = (house.connect("app").await, house.connect("app").await);
    let hello = Shown {
        out: String::from("hello"),
        err: String::new(),
        status: Some(0),
    };
    assert_eq!(run(&first, "echo").await, hello);
    first.disconnect("done").await;
    assert_eq!(run(&second, "echo").await, hello);
}
