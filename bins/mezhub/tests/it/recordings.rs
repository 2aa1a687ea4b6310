//! What is done with recordings afterwards: searched, bundled, held, swept, read by others than the hub.

use std::fs;
use std::io::Write;

use mezite_record::Identity;
use serde_json::Value;

use crate::house::{House, Running, Way, run, run_with, stock, text, write};

const SECRET: &str = "tr0ub4dor-and-3";

/// A hub with two users who each ran a command.
fn worked(house: &House) -> (String, String) {
    house.agent("web");
    let (alice, bob) = (house.user("alice"), house.user("bob"));
    run(alice
        .ssh(Way::Proxy, "web")
        .arg(format!("echo the {SECRET} of alice")))
    .ok();
    run(bob
        .ssh(Way::Jump, "web")
        .arg(format!("printf 'one\\n{SECRET} of bob\\n'")))
    .ok();
    (house.session("alice", 1).id, house.session("bob", 1).id)
}

fn found(house: &House, words: &[&str]) -> Value {
    let words = [&["recordings", "search", "-o", "json"], words].concat();
    house.mezctl(&words).json()
}

#[test]
fn text_is_found_in_output_and_commands() {
    let house = House::start();
    let (alice, bob) = worked(&house);
    let both = found(&house, &[&SECRET.to_uppercase(), "--ignore-case"]);
    let sessions: Vec<&Value> = both["found"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["recording"]["session"])
        .collect();
    assert_eq!(
        sessions,
        [&Value::from(bob), &alice.clone().into()],
        "newest first"
    );
    let kinds = both["found"][1]["lines"].as_array().unwrap();
    let kinds: Vec<&Value> = kinds.iter().map(|line| &line["kind"]).collect();
    assert_eq!(kinds, ["command", "output"], "{both}");
    // The second search finds the indexes that the first one built.
    let again = found(&house, &["of bob"]);
    let shown = |line: &&Value| line["kind"] == "output";
    let lines = again["found"][0]["lines"].as_array().unwrap();
    let line = lines.iter().find(shown).map(|it| &it["line"]);
    assert_eq!(line, Some(&format!("{SECRET} of bob").into()), "{again}");
    assert_eq!(
        (&again["searched"], &again["failed"]),
        (&2.into(), &0.into())
    );
    assert_eq!(found(&house, &["nowhere"])["found"], Value::Array(vec![]));
    house
        .mezctl(&["recordings", "search", ""])
        .fails(2, &["nothing to look for"]);
    let shown = house.mezctl(&["recordings", "search", "of alice"]).ok();
    assert!(
        shown.contains(&alice) && shown.contains("command"),
        "{shown}"
    );
    house.mezctl(&["audit", "verify"]).ok();
}

/// Attack row 53: search, index files and the hub's directory give nothing to whoever may not read the recording.
#[test]
fn attack_53_an_index_and_a_search_give_nothing_to_others() {
    let house = House::start();
    let (alice, bob) = worked(&house);
    found(&house, &[SECRET]);
    let files = house.hub_files();
    let indexes = files
        .iter()
        .filter(|it| it.extension().is_some_and(|it| it == "mzi"));
    assert_eq!(indexes.count(), 2, "{files:?}");
    for file in files
        .iter()
        .filter(|it| it.starts_with(house.path("hub/recordings")))
    {
        let content = fs::read(file).unwrap();
        let holds = content
            .windows(SECRET.len())
            .any(|it| it == SECRET.as_bytes());
        assert!(!holds, "{}", file.display());
    }
    // Whoever can write into the directory, and has a login, does not get at a key by making a recording theirs.
    let path = house.recording(&bob);
    let forged: Vec<u8> = {
        let content = fs::read(&path).unwrap();
        let at = content
            .windows(11)
            .position(|it| it == b"\"user\":\"bob")
            .unwrap();
        let mut forged = content;
        forged.splice(at..at + 11, *b"\"user\":\"bub");
        forged
    };
    fs::write(&path, forged).unwrap();
    house
        .mezctl(&["recordings", "export", &bob, "--format", "json"])
        .fails(1, &["cannot open"]);
    let told = house.events();
    let searched = told
        .iter()
        .filter(|it| text(it, "event_type") == "recording.searched");
    let named: Vec<String> = searched.map(|it| it["session_ids"].to_string()).collect();
    assert!(
        named[0].contains(&alice) && named[0].contains(&bob),
        "{named:?}"
    );
}

#[test]
fn a_bundle_proves_itself_without_a_hub_and_without_an_account() {
    let house = House::start();
    let (alice, _) = worked(&house);
    let file = house.path("alice.bundle").display().to_string();
    let exported = house.mezctl(&[
        "recordings",
        "export",
        &alice,
        "--format",
        "bundle",
        "--out",
        &file,
    ]);
    let told = exported.err();
    exported.ok();
    let key = told
        .split_whitespace()
        .find(|word| word.len() >= 64)
        .unwrap()
        .trim_end_matches(':');
    write(&house.path("audit.key"), key);
    house.stop_hub();
    let key = house.path("audit.key").display().to_string();
    let verified = house.mezctl(&["verify-bundle", &file, "--key", &key]).ok();
    assert!(
        verified.contains(&format!("session {alice} of alice")),
        "{verified}"
    );
    assert!(verified.contains("recording: verified"), "{verified}");
    assert!(verified.contains("proven to be among"), "{verified}");
    // Members can be looked at with tar.
    let members = run(stock("tar").args(["-tf", &file])).ok();
    assert_eq!(
        members.lines().collect::<Vec<_>>(),
        [
            "manifest.json",
            "checkpoint.txt",
            "events.jsonl",
            "proofs.json",
            "recording.mzr"
        ]
    );
    let mut bytes = fs::read(&file).unwrap();
    let place = bytes.windows(5).position(|it| it == b"alice").unwrap();
    bytes[place] = b'A';
    write(&house.path("edited.bundle"), &bytes);
    let edited = house.path("edited.bundle").display().to_string();
    house
        .mezctl(&["verify-bundle", &edited, "--key", &key])
        .fails(1, &["does not hold"]);
    write(&house.path("other.key"), "00".repeat(32));
    let other = house.path("other.key").display().to_string();
    house
        .mezctl(&["verify-bundle", &file, "--key", &other])
        .fails(1, &["not signed with a trusted key"]);
}

#[test]
fn holds_and_retention_are_told_and_a_deletion_nobody_told_of_is_found() {
    let house = House::start();
    let (alice, bob) = worked(&house);
    house
        .mezctl(&["recordings", "hold", &alice, "--reason", "case 7"])
        .ok();
    let listed = house.mezctl(&["recordings", "ls"]).ok();
    let line = listed.lines().find(|line| line.contains(&alice)).unwrap();
    assert!(line.ends_with("held"), "{listed}");
    house
        .mezctl(&["recordings", "hold", &alice, "--reason", "again"])
        .fails(1, &["exists"]);
    house
        .mezctl(&["recordings", "release", &bob, "--reason", "never held"])
        .fails(1, &[]);
    // Nothing is old enough, and nothing is kept for a time unless the configuration says so.
    let pruned = house
        .mezctl(&["recordings", "prune", "--dry-run", "-o", "json"])
        .json();
    assert_eq!(pruned, Value::Array(vec![]));
    house
        .mezctl(&["recordings", "release", &alice, "--reason", "closed"])
        .ok();
    let all = house.mezctl(&["recordings", "verify", "--all"]).ok();
    assert!(all.contains("2 intact, 0 deleted"), "{all}");
    fs::remove_file(house.recording(&bob)).unwrap();
    house
        .mezctl(&["recordings", "verify", "--all"])
        .fails(1, &[&bob, "no event tells that it was deleted"]);
    for (kind, who) in [("recording.held", "alice"), ("recording.released", "alice")] {
        let events = house.events();
        let event = events
            .iter()
            .find(|it| text(it, "event_type") == kind)
            .unwrap();
        assert_eq!(text(event, "recorded_user"), who);
    }
}

/// With recipients of its own the hub cannot read what it wrote, nor index it; whoever has the identity can.
#[test]
fn a_recording_for_others_is_read_with_their_identity_alone() {
    let house = House::start();
    house.agent("web");
    house.stop_hub();
    let auditor = Identity::generate();
    let config = house.path("mezite.yaml");
    let mut file = fs::OpenOptions::new().append(true).open(&config).unwrap();
    writeln!(
        file,
        "recordings:\n  recipients: [{}]\n  keep: 90d",
        auditor.recipient()
    )
    .unwrap();
    house.start_hub();
    crate::house::until("the agent comes back", || house.is_online("web"));
    let alice = house.user("alice");
    run(alice.ssh(Way::Proxy, "web").arg(format!("echo {SECRET}"))).ok();
    let session = house.session("alice", 1).id;
    let key = house.path("auditor.key");
    write(&key, auditor.to_secret_text().expose());
    let key = key.display().to_string();
    alice.msh(&["play", &session]).fails(1, &["--identity"]);
    let played = alice.msh(&["play", &session, "--identity", &key]).ok();
    assert!(played.contains(SECRET), "{played}");
    house
        .mezctl(&["recordings", "export", &session, "--format", "text"])
        .fails(1, &["--identity"]);
    let export = [
        "recordings",
        "export",
        &session,
        "--format",
        "text",
        "--identity",
        &key,
    ];
    assert!(house.mezctl(&export).ok().contains(SECRET));
    let recorded = house.recording(&session).display().to_string();
    let offline = alice
        .msh(&["play", "--file", &recorded, "--identity", &key])
        .ok();
    assert!(offline.contains(SECRET), "{offline}");
    let search = found(&house, &[SECRET]);
    assert_eq!(
        (&search["closed"], &search["searched"]),
        (&1.into(), &0.into()),
        "{search}"
    );
    house.mezctl(&["recordings", "verify", &session]).ok();
}

/// Keys while playing: the end is reached by a key long before its time.
#[test]
fn keys_command_the_player() {
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    run(user
        .ssh(Way::Proxy, "web")
        .arg("echo first; sleep 4; echo last"))
    .ok();
    let session = house.session("alice", 1).id;
    let marks = user.msh(&["play", &session, "--marks"]).ok();
    assert_eq!(marks.lines().count(), 1, "{marks}");
    assert!(
        marks.ends_with("echo first; sleep 4; echo last\n"),
        "{marks}"
    );
    let msh = crate::house::program("msh").display().to_string();
    let home = user.home.join("msh").display().to_string();
    let play = format!("{msh} --home {home} play {session}");
    let mut script = stock("script");
    script.args(["-qec", &play, "/dev/null"]);
    script
        .env("HOME", &user.home)
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh");
    let ended = run_with(&mut script, b"G");
    assert!(ended.took.as_millis() < 3_500, "{ended}");
    assert!(ended.ok().contains("last"));
    let mut script = stock("script");
    script.args(["-qec", &play, "/dev/null"]);
    script
        .env("HOME", &user.home)
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh");
    let stopped = run_with(&mut script, b"?q");
    assert!(stopped.took.as_millis() < 3_500, "{stopped}");
    let shown = stopped.ok();
    assert!(
        shown.contains("pause") && !shown.contains("last"),
        "{shown}"
    );
}

const GUIDE: &str = include_str!("../../../../mezite-record/GUIDE.md");

/// The blocks of the guide in a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let parts = GUIDE.split(&*fence).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap())
        .collect()
}

#[test]
fn every_command_of_the_guide_to_recordings_works() {
    let house = House::start();
    house.agent("web");
    let alice = house.user("alice");
    run(alice.ssh(Way::Proxy, "web").arg("echo hello; false")).fails(1, &[]);
    let session = house.session("alice", 1).id;
    let blocks = blocks("sh");
    assert!(blocks.len() >= 5, "{blocks:?}");
    let programs = crate::house::program("mezctl")
        .parent()
        .unwrap()
        .display()
        .to_string();
    for block in blocks {
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
        let mut shell = stock("sh");
        shell
            .args(["-euc", block])
            .current_dir(house.path("."))
            .env("PATH", path)
            .env("HOME", &alice.home)
            .env("MSH_HOME", alice.home.join("msh"))
            .env("SESSION", &session)
            .env("MEZITE_SOCKET", house.path("hub/mezctl.sock"));
        run(&mut shell).ok();
    }
    let cast = fs::read_to_string(house.path("session.cast")).unwrap();
    assert!(
        cast.starts_with("{\"version\":3,") && cast.ends_with("\"x\", \"1\"]\n"),
        "{cast}"
    );
}

#[test]
fn every_configuration_of_the_guide_to_recordings_is_good() {
    let house = House::start();
    let base = fs::read_to_string(house.path("mezite.yaml")).unwrap();
    for block in blocks("yaml") {
        write(&house.path("mezite.yaml"), base.clone() + block);
        let config = house.path("mezite.yaml");
        let done = run(std::process::Command::new(crate::house::program("mezhub"))
            .args(["check-config", "--config"])
            .arg(&config));
        if block.contains("s3:") {
            // Understood; the key of a bucket that only the guide has is missing. `bucket` tries one that is there.
            done.fails(1, &["/etc/mezite/s3.key"]);
        } else {
            done.ok();
        }
    }
}

/// Attack row 47: what a program can do to its terminal, through a stock client, without echo and in raw mode too.
#[test]
fn attack_47_a_hostile_terminal_session_is_recorded_exactly_and_played_harmlessly() {
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    let hostile = r"stty -echo raw; printf '\033[?1049h\033[2Jon the other screen\033[?1049l'; \
        printf '\377\376 not UTF-8'; printf '\033]52;c;eA==\007\033]0;title\007\033[6n'; stty sane; echo; echo after; exit 4";
    // A client that claims a terminal of no size at all.
    let inner = format!(
        "stty cols 0 rows 0; ssh {} -tt {} \"{}\"",
        user.options(Way::Proxy).join(" "),
        crate::house::target("web"),
        hostile.replace('\\', "\\\\").replace('"', "\\\"")
    );
    let mut script = stock("script");
    script.args(["-qec", &inner, "/dev/null"]);
    script
        .env("HOME", &user.home)
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh");
    assert_eq!(run(&mut script).code, 4);
    let session = house.session("alice", 1).id;
    let [exact, _] = house.recorded(&session);
    for part in [
        &b"\xff\xfe not UTF-8"[..],
        b"\x1b]52;c;eA==\x07",
        b"\x1b[6n",
        b"on the other screen",
    ] {
        assert!(exact.windows(part.len()).any(|it| it == part), "{part:?}");
    }
    let read = house.export(&session, "text");
    for part in ["on the other screen", "\u{fffd}\u{fffd} not UTF-8", "after"] {
        assert!(read.contains(part), "{part}: {read}");
    }
    let played = user.msh(&["play", &session, "--speed", "1000"]).ok();
    // The cast names the command as it was typed, in text that no terminal is shown.
    let cast = house.export(&session, "asciicast-v3");
    let output: String = cast
        .lines()
        .filter(|it| it.contains(r#", "o", "#))
        .collect();
    for form in [played, output] {
        assert!(
            form.contains("not UTF-8") && !form.contains("]52;"),
            "{form:?}"
        );
        assert!(!form.contains("title") && !form.contains("[6n"), "{form:?}");
    }
}

/// The same row: sizes that no terminal has, and more at once than any has seen.
#[test]
fn attack_47_absurd_sizes_and_a_huge_write_are_recorded_exactly_and_played() {
    const HUGE: usize = 3_000_000;
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    let command = format!(
        "stty raw; head -c {HUGE} /dev/zero | tr '\\\\0' x | dd bs={HUGE} iflag=fullblock 2>/dev/null; echo; exit 5"
    );
    let inner = format!(
        "stty cols 65535 rows 65535; ssh {} -tt {} \"{command}\"",
        user.options(Way::Jump).join(" "),
        crate::house::target("web"),
    );
    let mut script = stock("script");
    script.args(["-qec", &inner, "/dev/null"]);
    script
        .env("HOME", &user.home)
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh");
    assert_eq!(run(&mut script).code, 5);
    let session = house.session("alice", 1).id;
    let [exact, _] = house.recorded(&session);
    assert_eq!(exact.iter().filter(|byte| **byte == b'x').count(), HUGE);
    let cast = house.export(&session, "asciicast-v3");
    let header: Value = serde_json::from_str(cast.lines().next().unwrap()).unwrap();
    assert_eq!(header.pointer("/term/cols"), Some(&1000.into()), "{header}");
    assert_eq!(header.pointer("/term/rows"), Some(&1000.into()), "{header}");
    let played = user.msh(&["play", &session, "--speed", "1000"]).ok();
    assert!(played.matches('x').count() >= HUGE);
    house.mezctl(&["recordings", "verify", &session]).ok();
}

#[test]
fn attack_51_recordings_that_change_places_are_found_and_give_nothing() {
    let house = House::start();
    let (alice, bob) = worked(&house);
    let (one, other) = (house.recording(&alice), house.recording(&bob));
    let (before, after) = (fs::read(&one).unwrap(), fs::read(&other).unwrap());
    let fails = |id: &str| {
        house.mezctl(&["recordings", "verify", id]).fails(1, &[]);
        let export = ["recordings", "export", id, "--format", "text"];
        let refused = house.mezctl(&export).fails(4, &["cannot be read"]);
        assert!(refused.stdout.is_empty(), "{refused}");
    };
    // Each in the other's place, then an old one played again under a new name.
    fs::write(&one, &after).unwrap();
    fs::write(&other, &before).unwrap();
    for id in [&alice, &bob] {
        fails(id);
    }
    fs::write(&one, &before).unwrap();
    fails(&bob);
    house.mezctl(&["recordings", "verify", &alice]).ok();
    house
        .mezctl(&["recordings", "verify", "--all"])
        .fails(1, &[]);
    fs::write(&other, &after).unwrap();
    house.mezctl(&["recordings", "verify", "--all"]).ok();
}

#[test]
fn attack_53_what_was_shown_is_in_no_file_of_the_hub() {
    const SHOWN: &str = "shown-42-and-sealed";
    let house = House::start();
    house.agent("web");
    let user = house.user_with("alice", "access,auditor", &crate::house::login(), &[]);
    let mut ssh = user.ssh(Way::Proxy, "web");
    // Only the node puts the words together: the log knows the command.
    let command = "echo shown-$((40+2))-and-sealed; cat > /dev/null";
    let (mut session, typed) = Running::interactive(ssh.arg(command));
    session.until(SHOWN);
    // Watched, played, searched and exported.
    let listed = house.mezctl(&["sessions", "ls", "-o", "json"]).json();
    let id = text(&listed[0], "session");
    let mut watcher = Running::start(user.msh_command().args(["join", &id]), b"");
    watcher.until(SHOWN);
    drop(typed);
    session.wait(crate::house::PATIENCE).ok();
    house.session("alice", 1);
    assert!(user.msh(&["play", &id]).ok().contains(SHOWN));
    assert_eq!(
        // The log keeps what was looked for.
        found(&house, &["42-and-seal"])["found"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    for format in ["asciicast-v2", "asciicast-v3", "text", "json"] {
        assert!(house.export(&id, format).contains(SHOWN));
    }
    for file in house.hub_files() {
        let content = fs::read(&file).unwrap();
        assert!(
            !crate::house::contains(&content, SHOWN.as_bytes()),
            "{}",
            file.display()
        );
    }
}
