//! Whoever may read recordings watches a session while it runs, and has no hand in it.

use std::io::Write;
use std::time::Instant;

use crate::forward::role;
use crate::house::{House, PROMISED, Running, User, Way, login, text, until};

/// A session on `web` that answers each line of what it is given, and a last one at its end.
pub(crate) fn answering(user: &User<'_>) -> (Running, std::process::ChildStdin) {
    let mut ssh = user.ssh(Way::Proxy, "web");
    Running::interactive(ssh.arg("while read line; do echo got-$line; done; echo the-last"))
}

pub(crate) fn running_session(house: &House) -> String {
    let listed = house.mezctl(&["sessions", "ls", "-o", "json"]).json();
    text(&listed[0], "session")
}

#[test]
fn a_watcher_sees_what_was_and_what_comes_and_has_no_hand_in_it() {
    let house = House::start();
    house.agent("web");
    let alice = house.user("alice");
    let carol = house.user_with("carol", "auditor", &login(), &[]);
    let (mut session, mut typed) = answering(&alice);
    typed.write_all(b"one\n").unwrap();
    session.until("got-one");
    let id = running_session(&house);
    let (mut watcher, mut hand) = Running::interactive(carol.msh_command().args(["join", &id]));
    watcher.until("got-one");
    hand.write_all(b"mischief\n").unwrap();
    typed.write_all(b"two\n").unwrap();
    watcher.until("got-two");
    let joined = house.events_of("carol", "recording.read");
    assert_eq!(joined.len(), 1, "{joined:?}");
    assert_eq!(text(&joined[0], "action"), "join");
    assert_eq!(text(&joined[0], "recorded_user"), "alice");
    assert_eq!(text(&joined[0], "session_id"), id);
    drop(typed);
    let shown = session.wait(PROMISED).ok();
    assert!(!shown.contains("mischief"), "{shown}");
    let watched = watcher.wait(PROMISED);
    assert!(watched.err().contains("the session is over"), "{watched}");
    assert!(watched.ok().contains("the-last"));
    // There is nothing to join any more.
    carol
        .msh(&["join", &id])
        .fails(1, &["is over", &format!("msh play {id}")]);
}

#[test]
fn attack_53_who_may_not_read_a_session_does_not_watch_it() {
    let house = House::start();
    house.agent("web");
    let (alice, bob) = (house.user("alice"), house.user("bob"));
    let carol = house.user_with("carol", "auditor", &login(), &[]);
    let (mut session, mut typed) = answering(&alice);
    typed.write_all(b"one\n").unwrap();
    session.until("got-one");
    let id = running_session(&house);
    let refused = bob.msh(&["join", &id]).fails(3, &["recording"]);
    assert!(!refused.out().contains("got-one"), "{refused}");
    // Whoever watches is asked again at each change.
    let mut watcher = Running::start(carol.msh_command().args(["join", &id]), b"");
    watcher.until("got-one");
    house
        .mezctl(&["lock", "user", "carol", "--reason", "gone"])
        .ok();
    let locked = Instant::now();
    let watched = watcher.wait(PROMISED);
    eprintln!("a lock ended watching after {:?}", locked.elapsed());
    watched.fails(3, &["locked", "gone"]);
    typed.write_all(b"two\n").unwrap();
    session.until("got-two");
}

#[test]
fn the_watched_user_is_told_where_the_role_says_so() {
    let house = House::start();
    house.agent("web");
    role(&house, "open", "record: { announce_watchers: true }");
    let alice = house.user_with("alice", "open", &login(), &[]);
    let carol = house.user_with("carol", "auditor", &login(), &[]);
    let (mut session, mut typed) = answering(&alice);
    typed.write_all(b"one\n").unwrap();
    session.until("got-one");
    let id = running_session(&house);
    let mut watcher = Running::start(carol.msh_command().args(["join", &id]), b"");
    watcher.until("got-one");
    let said =
        |session: &Running, words: &str| String::from_utf8_lossy(&session.stderr()).contains(words);
    let came = "mezite: carol watches this session";
    until("the word that carol watches", || said(&session, came));
    drop(watcher);
    let left = "mezite: carol no longer watches this session";
    until("the word that carol has left", || said(&session, left));
    // The end is an event, too.
    let actions = || -> Vec<String> {
        let read = house.events_of("carol", "recording.read");
        read.iter().map(|event| text(event, "action")).collect()
    };
    until("the event of the end", || actions() == ["join", "leave"]);
    // A hub that is killed leaves nobody on the list.
    let mut watcher = Running::start(carol.msh_command().args(["join", &id]), b"");
    watcher.until("got-one");
    house.crash_hub();
    house.start_hub();
    until("the node", || house.is_online("web"));
    let recorded = house.export(&id, "json");
    assert!(
        recorded.contains(came) && recorded.contains(left),
        "{recorded}"
    );
    let (mut session, mut typed) = answering(&alice);
    typed.write_all(b"two\n").unwrap();
    session.until("got-two");
    drop(typed);
    let shown = session.wait(PROMISED);
    assert!(!shown.err().contains("watches"), "{shown}");
}
