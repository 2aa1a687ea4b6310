//! kill -9 in the middle of a session: everything starts again, and nothing that was shown is lost.

use std::time::Duration;

use crate::house::{House, Running, Way, run, text};

/// Numbered lines, faster than anybody reads.
const LINES: &str = "i=0; while :; do i=$((i+1)); echo \"line $i of many\"; [ $((i % 50)) -eq 0 ] && sleep 0.01; done";

#[test]
fn a_killed_hub_keeps_what_the_client_had_received() {
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    let sessions = [Way::Proxy, Way::Jump].map(|way| {
        let mut ssh = user.ssh(way, "web");
        let mut running = Running::start(ssh.arg(LINES), b"");
        running.until("line 2000 of many\n");
        running
    });
    house.crash_hub();
    let received = sessions.map(|session| {
        let done = session.wait(Duration::from_secs(20));
        assert_ne!(done.code, 0, "{}", done.err());
        done.stdout
    });
    house.start_hub();
    let recovered = house.events_of("alice", "session.recording.recovered");
    assert_eq!(recovered.len(), 2, "{recovered:?}");
    let mut recorded: Vec<String> = recovered
        .iter()
        .map(|event| {
            let id = text(event, "session_id");
            let digest = crate::house::sha256(&house.recording(&id));
            assert_eq!(text(event, "recording_sha256"), digest, "{event}");
            house.mezctl(&["recordings", "verify", &id]).ok();
            house.export(&id, "text")
        })
        .collect();
    for received in received {
        let received = String::from_utf8(received).unwrap();
        let whole = received.rfind('\n').map_or("", |end| &received[..=end]);
        assert!(whole.lines().count() >= 2000);
        let place = recorded.iter().position(|text| holds(text, whole));
        let place = place.unwrap_or_else(|| {
            let end = whole.lines().last();
            panic!("no recording holds all {} bytes up to {end:?}", whole.len())
        });
        recorded.remove(place);
    }
    house.mezctl(&["audit", "verify"]).ok();
    // The node finds the hub again by itself.
    crate::house::until("the node", || house.is_online("web"));
    assert_eq!(
        run(user.ssh(Way::Proxy, "web").arg("echo again")).ok(),
        "again\n"
    );
}

/// Whether every line of `received` is in the transcript, in order.
fn holds(transcript: &str, received: &str) -> bool {
    let mut lines = transcript.lines();
    received
        .lines()
        .all(|wanted| lines.any(|line| line.contains(wanted)))
}

#[test]
fn a_killed_agent_ends_its_sessions_and_serves_the_next() {
    let house = House::start();
    house.agent("web");
    let users = [("alice", Way::Proxy), ("bob", Way::Jump)].map(|(name, way)| {
        let user = house.user(name);
        let mut session = Running::start(user.ssh(way, "web").arg(LINES), b"");
        session.until("line 500 of many\n");
        (user, session)
    });
    house.crash("web");
    for (user, session) in users {
        let done = session.wait(Duration::from_secs(20));
        assert_ne!(done.code, 0, "{}", done.err());
        let received = done.out();
        let ended = house.session(&user.name, 1);
        let end = ended.event("session.end");
        assert_eq!(text(end, "success"), "false", "{end}");
        let whole = received.rfind('\n').map_or("", |end| &received[..=end]);
        assert!(holds(&house.export(&ended.id, "text"), whole));
    }
    house.start_agent("web", &[]);
    let user = house.user("carol");
    assert_eq!(
        run(user.ssh(Way::Jump, "web").arg("echo again")).ok(),
        "again\n"
    );
    house.mezctl(&["audit", "verify"]).ok();
}

#[test]
fn a_hub_that_is_stopped_ends_sessions_with_a_message_and_seals_them() {
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    let mut ssh = user.ssh(Way::Proxy, "web");
    let mut session = Running::start(ssh.arg(LINES), b"");
    session.until("line 500 of many\n");
    house.stop_hub();
    let done = session.wait(Duration::from_secs(20));
    assert_eq!(done.code, 255, "{}", done.err());
    house.start_hub();
    let session = house.session("alice", 1);
    assert!(
        !session
            .types()
            .contains(&String::from("session.recording.recovered"))
    );
    house.mezctl(&["recordings", "verify", &session.id]).ok();
    house.mezctl(&["audit", "verify"]).ok();
}
