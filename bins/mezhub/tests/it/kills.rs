//! kill -9 of the hub at random moments of a busy session: the recording holds every byte that the client had received,
//! is closed at the next start, says so, and verifies.
//!
//! `MEZITE_CRASHES` says how often, up to 500 times (4 without it); `cargo xtask test --full` says more.

use std::time::Duration;

use crate::crashes;
use crate::house::{House, PATIENCE, Running, User, Way, sha256, text, until};

/// Both streams at once, in lines and in lumps of what is no text; now and then a breath, so that frames are of all sizes.
const BUSY: &str = "i=0; while :; do i=$((i+1)); echo \"line $i\"; echo \"err $i end\" >&2; \
    [ $((i % 40)) -eq 0 ] && head -c 30000 /dev/urandom; [ $((i % 16)) -eq 0 ] && sleep 0.005; done";

#[test]
fn attack_48_a_hub_killed_at_any_moment_has_recorded_what_the_client_received() {
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    // Different on each run, and told.
    let seed = u64::from(std::process::id());
    for round in 0..crashes::times(4).min(500) {
        let hash = (seed ^ round).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let moment = Duration::from_millis(hash % 600);
        let (way, terminal) = match round % 4 {
            0 => (Way::Proxy, false),
            1 => (Way::Jump, true),
            2 => (Way::Proxy, true),
            _ => (Way::Jump, false),
        };
        let running = busy(&user, way, terminal);
        std::thread::sleep(moment);
        house.crash_hub();
        let stdout_then = running.stdout().len();
        let received = running.wait(PATIENCE);
        assert_ne!(
            received.code,
            0,
            "the session outlived its hub: {}",
            received.err()
        );
        house.start_hub();
        let id = recovered(&house, round);
        eprintln!(
            "round {round}: {way:?}, terminal {terminal}, killed {moment:?} after the first line; received {} bytes, {stdout_then} of them at that moment",
            received.stdout.len(),
        );
        let [stdout, stderr] = house.recorded(&id);
        begins(&stdout, &received.stdout);
        begins(&stderr, whole_lines(&received.stderr));
        house.mezctl(&["recordings", "verify", &id]).ok();
        until("the node", || house.is_online("web"));
    }
    house.mezctl(&["audit", "verify"]).ok();
}

/// A session that has begun to write.
fn busy(user: &User<'_>, way: Way, terminal: bool) -> Running {
    let mut ssh = user.ssh(way, "web");
    if terminal {
        ssh.arg("-tt");
    }
    let (mut running, stdin) = Running::interactive(ssh.arg(BUSY));
    drop(stdin);
    running.until("line 1");
    running
}

/// The session that the hub has just closed: there is one more than before.
#[track_caller]
fn recovered(house: &House, round: u64) -> String {
    let kind = ["audit", "ls", "--type", "session.recording.recovered"];
    let listed = house.mezctl(&[&kind[..], &["-n", "1000", "-o", "json"]].concat());
    let mut events = listed.json();
    let events = events.as_array_mut().unwrap();
    assert_eq!(u64::try_from(events.len()).unwrap(), round + 1);
    events.sort_by_key(|event| event["sequence"].as_u64());
    let event = events.last().unwrap();
    let id = text(event, "session_id");
    let file = house.recording(&id);
    assert_eq!(text(event, "recording_sha256"), sha256(&file), "{event}");
    assert!(
        !file.with_extension("mzr.live").exists(),
        "the journal is gone when the recording is sealed"
    );
    id
}

/// What the node wrote; behind it the client says why it ends.
fn whole_lines(received: &[u8]) -> &[u8] {
    const END: &[u8] = b" end\n";
    let mut lines = received.split_inclusive(|byte| *byte == b'\n');
    let whole = lines
        .by_ref()
        .take_while(|line| line.starts_with(b"err ") && line.ends_with(END));
    let length = whole.map(<[u8]>::len).sum();
    &received[..length]
}

#[track_caller]
fn begins(recorded: &[u8], received: &[u8]) {
    let same = recorded
        .iter()
        .zip(received)
        .take_while(|(one, other)| one == other);
    let same = same.count();
    assert!(
        same == received.len(),
        "{} bytes were received, {} are recorded, the first {same} are the same",
        received.len(),
        recorded.len()
    );
}
