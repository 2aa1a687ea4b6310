//! What was recorded can be played, exported and read by stock asciinema.

use serde_json::Value;

use crate::house::{House, User, Way, run, stock, target, tool, write};

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

    asciinema_3_plays_and_converts(&house, &user, &session.id);

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

/// Its newest version reads both formats of ours, makes one of the other, and plays them.
fn asciinema_3_plays_and_converts(house: &House, user: &User<'_>, id: &str) {
    let exports = ["asciicast-v2", "asciicast-v3"].map(|format| {
        let file = house.path(&format!("{format}.cast"));
        let cast = house.export(id, format);
        write(&file, &cast);
        (format, file, cast)
    });
    let [(_, _, two), (_, _, three)] = &exports;
    for (format, file, cast) in &exports {
        let convert = |to: &str| {
            let out = house.path(&format!("{format}-to-{to}"));
            let mut asciinema = asciinema(user);
            asciinema.args(["convert", "--output-format", to]).arg(file);
            run(asciinema.arg(&out)).ok();
            std::fs::read_to_string(out).unwrap()
        };
        // The size of the terminal comes first.
        let raw = String::from("\u{1b}[8;31;97t") + &events(cast).filter("o").concat();
        assert_eq!(convert("raw"), raw);
        assert!(convert("txt").contains("grün green"), "{}", convert("txt"));
        // Whichever it was made from.
        for (to, ours) in [("asciicast-v2", two), ("asciicast-v3", three)] {
            let theirs = convert(to);
            assert_eq!(
                events(&theirs).shown(),
                events(ours).shown(),
                "{format} to {to}"
            );
            for (name, value) in [
                ("/term/cols", 97),
                ("/width", 97),
                ("/term/rows", 31),
                ("/height", 31),
            ] {
                let header = events(&theirs).header;
                let found = header.pointer(name);
                assert!(found.is_none_or(|found| *found == value), "{header}");
            }
        }
        // It wants a terminal of its own.
        let asciinema = asciinema(user);
        let play = format!(
            "{} play --speed 100 {}",
            asciinema.get_program().display(),
            file.display()
        );
        let mut script = stock("script");
        script.args(["-qec", &play, "/dev/null"]);
        script.env("HOME", &user.home).env("LC_ALL", "C.UTF-8");
        let shown = run(script.env("TERM", "xterm-256color")).ok();
        assert!(shown.contains("31 97") && shown.contains("grün"), "{shown}");
    }
}

fn asciinema(user: &User<'_>) -> std::process::Command {
    let mut asciinema = tool("asciinema", "asciinema");
    asciinema.env("HOME", &user.home).env("LC_ALL", "C.UTF-8");
    asciinema
}

/// A cast: its header, and when what happened.
struct Cast {
    header: Value,
    events: Vec<(u64, String, String)>,
}

fn events(cast: &str) -> Cast {
    let mut lines = cast
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let header = lines.next().unwrap();
    let relative = header["version"] == 3;
    let mut now = 0;
    let events = lines.map(|event| {
        let millis = format!("{:.0}", event[0].as_f64().unwrap() * 1000.0);
        let millis = millis.parse::<u64>().unwrap();
        now = if relative { now + millis } else { millis };
        let text = |index: usize| event[index].as_str().unwrap().to_owned();
        (now, text(1), text(2))
    });
    let events = events.collect();
    Cast { header, events }
}

impl Cast {
    fn filter(&self, code: &str) -> Vec<&str> {
        let of_code = self.events.iter().filter(|(_, it, _)| it == code);
        of_code.map(|(_, _, data)| data.as_str()).collect()
    }

    /// Without the exit status, which version 2 does not have.
    fn shown(&self) -> Vec<&(u64, String, String)> {
        self.events
            .iter()
            .filter(|(_, code, _)| code != "x")
            .collect()
    }
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
fn attack_53_a_users_own_recordings_only_unless_a_role_says_more() {
    let house = House::start();
    house.agent("web");
    let (alice, bob) = (house.user("alice"), house.user("bob"));
    run(alice.ssh(Way::Proxy, "web").arg("echo mine")).ok();
    let session = house.session("alice", 1);
    alice.msh(&["play", &session.id]).ok();
    bob.msh(&["play", &session.id]).fails(3, &["may not"]);
    assert!(!bob.msh(&["sessions"]).ok().contains(&session.id));
}
