//! Several hubs on one store: names, hubs that were killed, sessions that count together, rules that cannot be confirmed.

use std::sync::Arc;
use std::time::Duration;

use mezite_audit::Stamp;
use mezite_audit::catalogue::{SessionRecordingRecovered, SessionStart};
use mezite_auth::{Auth, OpenError, Refusal, Settings, Standing};
use mezite_core::store::{Commit, Expect, Key, Store};
use mezite_core::{Clock, ManualClock, Span, UnixTime};

use crate::rig::{Rig, START, db1, session, settings};

/// Short, so that tests wait a moment; long enough for a loaded machine.
const STALENESS: Span = Span::from_millis(1800);

fn named(hub: &str, installation: &str) -> Settings {
    Settings {
        hub: hub.into(),
        installation: installation.into(),
        lock_staleness: STALENESS,
        ..settings()
    }
}

async fn open(rig: &Rig, clock: Arc<dyn Clock>, settings: Settings) -> Result<Auth, OpenError> {
    Auth::open(rig.store.clone(), clock, Arc::clone(&rig.sealer), settings).await
}

/// Waits, generously, until `holds`.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

async fn has(rig: &Rig, key: &str) -> bool {
    rig.store
        .get(&Key::new(key).unwrap())
        .await
        .unwrap()
        .is_some()
}

#[tokio::test]
async fn attack_75_a_second_hub_of_the_same_name_is_refused_while_the_first_runs() {
    let rig = Rig::with_settings(named("hub", "here")).await;
    let refused = open(&rig, rig.clock.clone(), named("hub", "there")).await;
    let refused = refused.map(drop).unwrap_err();
    assert_eq!(refused, OpenError::HubRuns("hub".into()));
    assert!(
        refused.to_string().contains("a name of its own"),
        "{refused}"
    );
    assert_eq!(
        rig.events("hub.started").await.len(),
        1,
        "nothing was written"
    );
    // Under another name it is welcome.
    open(&rig, rig.clock.clone(), named("hub-2", "there"))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_name_of_a_hub_that_was_killed_is_free_at_once_in_its_own_place_and_later_elsewhere() {
    let rig = Rig::with_settings(named("hub", "here")).await;
    let killed = open(&rig, rig.clock.clone(), named("hub-2", "there"))
        .await
        .unwrap();
    drop(killed);
    let began = tokio::time::Instant::now();
    let again = open(&rig, rig.clock.clone(), named("hub-2", "there"))
        .await
        .unwrap();
    assert!(began.elapsed() < STALENESS.as_duration());
    drop(again);
    open(&rig, rig.clock.clone(), named("hub-2", "elsewhere"))
        .await
        .unwrap();
}

#[tokio::test]
async fn of_two_from_one_copied_data_directory_the_first_hears_that_it_must_end() {
    let rig = Rig::with_settings(named("hub", "copied")).await;
    let second = open(&rig, rig.clock.clone(), named("hub", "copied"))
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(30), rig.auth.displaced())
        .await
        .unwrap();
    // What it leaves behind is the second's.
    rig.auth.stop("displaced").await.unwrap();
    assert_eq!(second.tunnels().await.unwrap().len(), 1);
    let alice = rig.alice().await;
    rig.node("db1").await;
    // As soon as it has heard of both.
    until("the second goes on", async || {
        let login = "deploy".parse().unwrap();
        let node = db1();
        let granted = second.authorize(&alice, &node, &login, None, session(1));
        granted.await.is_ok()
    })
    .await;
}

/// Clocks that differ by years do not matter.
#[tokio::test]
async fn attack_75_a_killed_hub_is_counted_as_lost_once_whatever_the_clocks_say() {
    let rig = Rig::with_settings(named("hub", "one")).await;
    let ahead = START.plus(Span::from_secs(10 * 365 * 86400));
    let third = open(
        &rig,
        Arc::new(ManualClock::new(ahead)),
        named("hub-3", "three"),
    )
    .await
    .unwrap();
    let behind = Arc::new(ManualClock::new(UnixTime::from_secs(0)));
    let mut lost = named("hub-2", "two");
    lost.tunnel_address = "gone.example:3024".into();
    drop(open(&rig, behind, lost).await.unwrap());
    // A hub from before hubs gave signs of life.
    let leftover = Commit::new(
        rig.auth
            .event(|stamp| mezite_audit::catalogue::HubReturned { hub_id: "hub-0" }.event(stamp)),
    );
    let entry = br#"{"tunnel":"old.example:3024"}"#.to_vec();
    let leftover = leftover.put(Key::new("hub/hub-0").unwrap(), Expect::Any, entry);
    rig.store.commit(leftover).await.unwrap();
    assert_eq!(rig.auth.tunnels().await.unwrap().len(), 3);
    until("the loss", async || rig.events("hub.lost").await.len() == 2).await;
    let mut names: Vec<_> = rig.events("hub.lost").await;
    names.sort_by_key(|event| event["resource_name"].to_string());
    assert_eq!(names[0]["resource_name"], "hub-0");
    assert_eq!(names[1]["resource_name"], "hub-2");
    assert_eq!(third.tunnels().await.unwrap(), ["hub.example:3024"]);
    for key in [
        "hub/hub-2",
        "hub/hub-0",
        "adopted/hub/hub-2",
        "log/hub/hub-2",
    ] {
        assert!(!has(&rig, key).await, "{key}");
    }
    for key in [
        "hub/hub",
        "adopted/hub/hub",
        "hub/hub-3",
        "adopted/hub/hub-3",
    ] {
        assert!(has(&rig, key).await, "{key}");
    }
    // It is told once, and the living are not counted as lost.
    tokio::time::sleep(STALENESS.as_duration()).await;
    assert_eq!(rig.events("hub.lost").await.len(), 2);
}

#[tokio::test]
async fn a_hub_that_was_counted_as_lost_comes_back() {
    let rig = Rig::with_settings(named("hub", "one")).await;
    let mut lost = Commit::new(
        rig.auth
            .event(|stamp| mezite_audit::catalogue::HubReturned { hub_id: "test" }.event(stamp)),
    );
    for key in ["hub/hub", "adopted/hub/hub", "log/hub/hub"] {
        lost = lost.remove(Key::new(key).unwrap(), Expect::Any);
    }
    rig.store.commit(lost).await.unwrap();
    until("the return", async || {
        rig.events("hub.returned").await.len() == 2
    })
    .await;
    for key in ["hub/hub", "adopted/hub/hub", "log/hub/hub"] {
        assert!(has(&rig, key).await, "{key}");
    }
}

async fn few(rig: &Rig, most: u8) -> mezite_ca::verify::VerifiedIdentity {
    let role = format!(
        "{{kind: role, version: v1, metadata: {{name: few}}, spec: {{options: {{max_sessions: {most}}}, \
         allow: {{node_labels: {{env: prod}}, logins: [deploy]}}}}}}"
    );
    rig.auth.apply(&rig.local, &role, false).await.unwrap();
    let password = rig.user("bob", &["few"], &[]).await;
    rig.node("db1").await;
    rig.verified(&rig.login("bob", &password).await.unwrap())
}

#[tokio::test]
async fn sessions_at_all_hubs_count_together() {
    let rig = Rig::with_settings(named("hub", "one")).await;
    let other = open(&rig, rig.clock.clone(), named("hub-2", "two"))
        .await
        .unwrap();
    let bob = few(&rig, 1).await;
    let (node, login) = (db1(), "deploy".parse().unwrap());
    let ask = async |auth: &Auth, number| -> Result<_, Refusal> {
        auth.authorize(&bob, &node, &login, None, session(number))
            .await
    };
    let permit = ask(&rig.auth, 1).await.unwrap();
    let running = rig.auth.track(&permit);
    let refused = ask(&other, 2).await.unwrap_err();
    assert!(refused.message.contains("1 sessions open"), "{refused}");
    drop(running);
    // Told at once, to whoever counts.
    until("room for another", async || ask(&other, 3).await.is_ok()).await;
    assert!(ask(&rig.auth, 4).await.is_err());
}

#[tokio::test]
async fn a_session_at_another_hub_is_ended_by_name_and_one_that_is_over_is_not() {
    let rig = Rig::with_settings(named("hub", "one")).await;
    let other = open(&rig, rig.clock.clone(), named("hub-2", "two"))
        .await
        .unwrap();
    let bob = few(&rig, 1).await;
    let login: mezite_core::Login = "deploy".parse().unwrap();
    let (user, node) = (bob.user(), db1());
    let permit = other.authorize(&bob, &node, &login, None, session(1));
    let permit = permit.await.unwrap();
    let end = async || {
        let ended = rig.auth.end_session(&rig.local, session(1), String::new());
        ended.await
    };
    assert!(end().await.is_err(), "it has not begun");
    let told = |stamp: &Stamp<'_>| {
        let begun = SessionStart {
            user_name: user,
            user_roles: &[],
            session_id: session(1),
            server_id: &permit.node().id,
            server_hostname: &node,
            login: &login,
            client_ip: None,
            client_version: None,
            server_address: None,
            recorded: true,
        };
        begun.event(stamp)
    };
    other.report(told).await.unwrap();
    end().await.unwrap();
    until("the other hub", async || {
        matches!(other.recheck(&permit), Standing::Ended(_))
    })
    .await;
    let recovered = |stamp: &Stamp<'_>| {
        let over = SessionRecordingRecovered {
            user_name: None,
            session_id: session(1),
            server_id: None,
            server_hostname: None,
            login: None,
            recording_sha256: "",
            recording_bytes: 0,
        };
        over.event(stamp)
    };
    other.report(recovered).await.unwrap();
    assert!(end().await.is_err(), "it is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn hubs_that_grant_at_the_same_moment_grant_no_more_than_the_roles_allow() {
    let rig = Rig::with_settings(named("hub", "one")).await;
    let other = open(&rig, rig.clock.clone(), named("hub-2", "two"))
        .await
        .unwrap();
    let bob = few(&rig, 3).await;
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..12 {
        let auth = if number % 2 == 0 { &rig.auth } else { &other };
        let (auth, bob) = (auth.clone(), bob.clone());
        asked.spawn(async move {
            let login = "deploy".parse().unwrap();
            auth.authorize(&bob, &db1(), &login, None, session(number))
                .await
                .is_ok()
        });
    }
    let granted = asked
        .join_all()
        .await
        .into_iter()
        .filter(|granted| *granted);
    assert_eq!(granted.count(), 3);
    assert_eq!(rig.events("access.granted").await.len(), 3);
}

#[tokio::test]
async fn a_hub_that_cannot_confirm_its_rules_lets_nobody_in_and_ends_what_runs() {
    let rig = Rig::with_settings(named("hub", "one")).await;
    let alice = rig.alice().await;
    rig.node("db1").await;
    let login = "deploy".parse().unwrap();
    let permit = rig
        .auth
        .authorize(&alice, &db1(), &login, None, session(1))
        .await
        .unwrap();
    // Confirmed all the time, it goes on for longer than that.
    tokio::time::sleep(STALENESS.as_duration() * 2).await;
    assert!(matches!(rig.auth.recheck(&permit), Standing::Allowed(_)));
    let mut changes = rig.auth.changes();
    rig.break_disk(true);
    assert!(
        matches!(rig.auth.recheck(&permit), Standing::Allowed(_)),
        "not at once"
    );
    let woken = tokio::time::timeout(Duration::from_secs(30), changes.changed()).await;
    assert!(woken.unwrap(), "running sessions are decided again");
    let Standing::Ended(words) = rig.auth.recheck(&permit) else {
        panic!("the session goes on");
    };
    assert!(words.contains("could not confirm its rules"), "{words}");
    let refused = rig
        .auth
        .authorize(&alice, &db1(), &login, None, session(2))
        .await;
    assert!(refused.is_err());
    rig.break_disk(false);
    until("rules that are confirmed", async || {
        matches!(rig.auth.recheck(&permit), Standing::Allowed(_))
    })
    .await;
    let allowed = rig
        .auth
        .authorize(&alice, &db1(), &login, None, session(3))
        .await;
    assert!(allowed.is_ok());
}
