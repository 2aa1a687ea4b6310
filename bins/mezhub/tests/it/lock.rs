//! What stops access stops running sessions, too.

use std::time::{Duration, Instant};

use crate::house::{House, PROMISED, Way, endless, text};

#[test]
fn a_lock_ends_running_sessions_within_a_second() {
    let house = House::start();
    house.agent("web");
    let (alice, bob) = (house.user("alice"), house.user("bob"));
    let ways = [Way::Proxy, Way::Jump];
    let sessions = ways.map(|way| endless(&alice, way));
    let mut other = endless(&bob, Way::Proxy);
    house
        .mezctl(&["lock", "user", "alice", "--reason", "gone"])
        .ok();
    let locked = Instant::now();
    for session in sessions {
        let done = session.wait(PROMISED.saturating_sub(locked.elapsed()));
        let took = locked.elapsed();
        eprintln!("a lock ended a session after {took:?}");
        assert!(took < PROMISED, "{took:?}");
        done.fails(255, &["locked", "gone"]);
    }
    for count in [1, 2] {
        let session = house.session("alice", count);
        let end = session.event("session.end");
        assert_eq!(text(end, "success"), "false", "{end}");
        assert!(text(end, "reason").contains("locked"), "{end}");
    }
    assert!(
        !other.is_over(),
        "the lock ended a session of somebody else"
    );
}

#[test]
fn an_administrator_ends_a_session() {
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    let session = endless(&user, Way::Proxy);
    let listed = house.mezctl(&["sessions", "ls", "-o", "json"]).json();
    let id = text(&listed[0], "session");
    assert!(!id.is_empty(), "{listed}");
    house
        .mezctl(&["sessions", "end", &id, "--reason", "maintenance"])
        .ok();
    let done = session.wait(PROMISED);
    done.fails(255, &["maintenance"]);
    assert_eq!(house.session("alice", 1).id, id);
}

#[test]
fn a_role_that_is_taken_away_ends_running_sessions() {
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    let session = endless(&user, Way::Jump);
    let document = house.mezctl(&["get", "user", "alice", "-o", "json"]).ok();
    let file = house.path("alice.json");
    crate::house::write(&file, document.replace("\"access\"", ""));
    house.mezctl(&["apply", "-f", file.to_str().unwrap()]).ok();
    let done = session.wait(PROMISED);
    assert_eq!(done.code, 255, "{done}");
}

#[test]
fn the_end_of_an_identity_ends_its_running_sessions() {
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    user.log_in(&["--ttl", "6s"]).ok();
    let started = Instant::now();
    let session = endless(&user, Way::Proxy);
    let done = session.wait(Duration::from_secs(12));
    let took = started.elapsed();
    assert!(
        took < Duration::from_secs(9) && took > Duration::from_secs(3),
        "{took:?}: {done}"
    );
    done.fails(255, &["certificate has expired"]);
    let refused = user.msh(&["ls"]);
    refused.fails(3, &["msh login"]).in_one_line();
}
