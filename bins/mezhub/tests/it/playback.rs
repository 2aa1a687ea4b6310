//! What was recorded can be played, exported and read by stock asciinema.

use serde_json::Value;

use crate::house::{House, Way, run, stock, target, write};

#[test]
fn a_terminal_session_is_played_and_exported() {
    let house = House::start();
    house.agent("web");
    let user = house.user_with("alice", "access,auditor", &crate::house::login(), &[]);
    // A terminal of a known size, as a person would have.
    let inner = format!(
        "stty cols 97 rows 31; ssh {} -tt {} 'stty size; printf \"gr\\303\\274n \\033[32mgreen\\033[0m\\n\"; exit 3'",
        user.options(Way::Proxy).join(" "),
        target("web")
    );
    let mut script = stock("script");
    let done = run(script
        .args(["-qec", &inner, "/dev/null"])
        .env("HOME", &user.home)
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh"));
    assert_eq!(done.code, 3, "{done}");
    assert!(done.out().contains("31 97"), "{done}");
    let session = house.session("alice", 1);

    let played = user.msh(&["play", &session.id, "--speed", "100", "--idle-limit", "1s"]);
    let played = played.ok();
    assert!(
        played.contains("31 97") && played.contains("grün"),
        "{played}"
    );
    assert!(played.contains("\u{1b}[32mgreen"), "{played:?}");

    let cast = house.export(&session.id, "asciicast-v2");
    let header: Value = serde_json::from_str(cast.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&header["version"], &header["width"], &header["height"]),
        (&2.into(), &97.into(), &31.into())
    );
    let file = house.path("session.cast");
    write(&file, &cast);
    // It wants a terminal of its own.
    let cat = format!("asciinema cat {}", file.display());
    let mut script = stock("script");
    script.args(["-qec", &cat, "/dev/null"]);
    let shown = run(script.env("HOME", &user.home).env("LC_ALL", "C.UTF-8")).ok();
    assert!(shown.contains("31 97") && shown.contains("grün"), "{shown}");

    let frames = house.export(&session.id, "json");
    for line in frames.lines() {
        let frame: Value = serde_json::from_str(line).unwrap();
        assert!(frame.is_object(), "{line}");
    }
    house.mezctl(&["recordings", "verify", &session.id]).ok();
    house.mezctl(&["audit", "verify"]).ok();
    let read = house.events_of("alice", "recording.read");
    assert_eq!(read.len(), 1, "{read:?}");
}

/// Timing is kept: a pause of the session is a pause of the player.
#[test]
fn pauses_are_played_as_long_as_they_were() {
    let house = House::start();
    house.agent("web");
    let user = house.user_with("alice", "access,auditor", &crate::house::login(), &[]);
    let mut ssh = user.ssh(Way::Jump, "web");
    run(ssh.arg("echo first; sleep 1.5; echo second")).ok();
    let session = house.session("alice", 1);
    let slow = user.msh(&["play", &session.id]);
    assert!(slow.took.as_millis() > 1_300, "{slow}");
    assert_eq!(slow.ok().replace('\r', ""), "first\nsecond\n");
    let fast = user.msh(&["play", &session.id, "--idle-limit", "100ms"]);
    assert!(fast.took.as_millis() < 1_300, "{fast}");
}

#[test]
fn a_users_own_recordings_only_unless_a_role_says_more() {
    let house = House::start();
    house.agent("web");
    let (alice, bob) = (house.user("alice"), house.user("bob"));
    run(alice.ssh(Way::Proxy, "web").arg("echo mine")).ok();
    let session = house.session("alice", 1);
    alice.msh(&["play", &session.id]).ok();
    bob.msh(&["play", &session.id]).fails(3, &["may not"]);
    assert!(!bob.msh(&["sessions"]).ok().contains(&session.id));
}
