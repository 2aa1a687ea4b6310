//! The log outside of the hub: copies, bundles, checkpoints that somebody kept.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::house::{House, Running, Way, lock, program, run, text, until, write};

/// A receiver of syslog: what it has heard, in order.
struct Syslog {
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Syslog {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut all = Vec::new();
                // A killed hub leaves a half message behind, which counts for nothing.
                drop(stream.unwrap().read_to_end(&mut all));
                lock(&hears).extend(messages(&all));
            }
        });
        Self { port, heard }
    }

    fn heard(&self) -> Vec<Value> {
        let events = lock(&self.heard).clone().into_iter();
        events
            .filter_map(|message| {
                let fields: Vec<&str> = message.splitn(8, ' ').collect();
                let [_, _, "hub", "mezhub", "-", id, "-", body] = fields[..] else {
                    panic!("no message of RFC 5424: {message}");
                };
                (id != "checkpoint").then(|| serde_json::from_str(body).unwrap())
            })
            .collect()
    }
}

/// The whole messages at the start of a stream with octet counting.
fn messages(mut rest: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
        let Ok(length) = std::str::from_utf8(&rest[..space])
            .unwrap()
            .parse::<usize>()
        else {
            break;
        };
        let Some(message) = rest.get(space + 1..space + 1 + length) else {
            break;
        };
        found.push(String::from_utf8(message.to_vec()).unwrap());
        rest = &rest[space + 1 + length..];
    }
    found
}

fn sequence(event: &Value) -> u64 {
    event["sequence"].as_u64().unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Waits until the file has every event up to the newest of now; gives the log.
fn copied(house: &House, path: &Path) -> Vec<Value> {
    let log = house.events();
    let last = sequence(log.last().unwrap());
    until("a copy of the log", || {
        lines(path)
            .last()
            .is_some_and(|event| sequence(event) >= last)
    });
    log
}

#[test]
fn attack_58_copies_have_every_event_in_order_though_the_hub_is_killed_again_and_again() {
    let syslog = Syslog::start();
    let house = House::start_with(|directory| {
        format!(
            "audit:\n  sinks:\n  - name: archive\n    file: {{ path: {}/audit.jsonl, max_size: 1GiB }}\n  \
             - name: siem\n    syslog: {{ address: '127.0.0.1:{}', tls: false }}\n",
            directory.display(),
            syslog.port
        )
    });
    let path = house.path("audit.jsonl");
    for round in 0..6 {
        for number in 0..5 {
            let name = format!("user{round}-{number}");
            house
                .mezctl(&["users", "add", &name, "--roles", "access"])
                .ok();
        }
        house.crash_hub();
        house.start_hub();
    }
    let log = copied(&house, &path);
    let file = lines(&path);
    assert_eq!(file[..log.len()], log, "each once, exactly as it is sealed");
    let status = house.mezctl(&["status", "-o", "json"]).json();
    assert_eq!(status["sinks"].as_array().unwrap().len(), 2, "{status}");
    until("the other copy", || {
        let heard = syslog.heard();
        heard.iter().map(sequence).max() >= log.last().map(sequence)
    });
    let mut next = 1;
    for event in syslog.heard() {
        if sequence(&event) == next {
            if let Some(own) = log.get(usize::try_from(next).unwrap() - 1) {
                assert_eq!(event, *own);
            }
            next += 1;
        } else {
            assert!(sequence(&event) < next, "a gap before {event}");
        }
    }
    let checkpoint = house.path("audit.jsonl.checkpoint");
    let kept = checkpoint.to_str().unwrap();
    house.mezctl(&["audit", "verify", "--keep", kept]).ok();
}

#[test]
fn attack_58_a_receiver_that_is_gone_is_shown_and_stops_nothing() {
    let port = crate::house::free_port();
    let house = House::start_with(|_| {
        format!(
            "audit:\n  sinks:\n  - name: siem\n    syslog: {{ address: '127.0.0.1:{port}', tls: false }}\n"
        )
    });
    house
        .mezctl(&["users", "add", "alice", "--roles", "access"])
        .ok();
    until("trouble", || {
        let status = house.mezctl(&["status", "-o", "json"]).json();
        let sink = &status["sinks"][0];
        text(sink, "trouble").contains("cannot reach") && sink["waiting"].as_u64() > Some(0)
    });
    let shown = house.mezctl(&["status"]).ok();
    assert!(
        shown.contains("sink siem") && shown.contains("waiting"),
        "{shown}"
    );
    until("an event", || {
        let events = house.events();
        events
            .iter()
            .any(|event| text(event, "event_type") == "audit.sink.failed")
    });
    house.mezctl(&["audit", "verify"]).ok();
}

#[test]
fn attack_55_yesterdays_database_is_noticed() {
    let house = House::start_with(|directory| {
        format!(
            "audit:\n  sinks:\n  - name: archive\n    file: {{ path: {}/audit.jsonl }}\n",
            directory.display()
        )
    });
    let (path, kept) = (house.path("audit.jsonl"), house.path("kept"));
    let verify = ["audit", "verify", "--checkpoint", kept.to_str().unwrap()];
    house.mezctl(&verify).ok();
    house.stop_hub();
    let database = house.path("hub/mezhub.db");
    fs::copy(&database, house.path("yesterday")).unwrap();
    house.start_hub();
    for name in ["alice", "bob", "carol", "dave", "eve", "frank", "grace"] {
        house
            .mezctl(&["users", "add", name, "--roles", "access"])
            .ok();
    }
    house.mezctl(&verify).ok();
    copied(&house, &path);
    house.stop_hub();
    for suffix in ["-wal", "-shm"] {
        drop(fs::remove_file(
            house.path(&format!("hub/mezhub.db{suffix}")),
        ));
    }
    fs::copy(house.path("yesterday"), &database).unwrap();
    house.start_hub();
    until("the alarm", || {
        let events = house.events();
        events
            .iter()
            .any(|event| text(event, "event_type") == "audit.rollback")
    });
    let before = fs::read(&kept).unwrap();
    house.mezctl(&verify).fails(1, &["does not verify"]);
    assert_eq!(
        fs::read(&kept).unwrap(),
        before,
        "the kept checkpoint stays"
    );
    house.mezctl(&["audit", "verify"]).ok();
}

#[test]
fn attack_55_an_export_verifies_with_no_hub_and_no_edit_of_it_does() {
    let house = House::start();
    house
        .mezctl(&["users", "add", "alice", "--roles", "access"])
        .ok();
    let bundle = house.path("log.bundle");
    let out = bundle.to_str().unwrap();
    house
        .mezctl(&["audit", "export", "--format", "bundle", "--out", out])
        .ok();
    let offline = |words: &[&str]| {
        let mut mezctl = std::process::Command::new(program("mezctl"));
        mezctl.args([
            "--socket",
            "/no/such/socket",
            "audit",
            "verify",
            "--bundle",
            out,
        ]);
        run(mezctl.args(words))
    };
    let done = offline(&[]);
    assert!(
        done.err().contains("signed by house/mezite-audit+"),
        "{done}"
    );
    let key = done
        .err()
        .split("signed by ")
        .nth(1)
        .unwrap()
        .trim()
        .to_owned();
    assert!(done.ok().contains("audit: verified"));
    offline(&["--key", &key]).ok();
    let other = "house/mezite-audit+3f2b7c11+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    offline(&["--key", other]).fails(2, &["audit key"]);
    let whole = fs::read_to_string(&bundle).unwrap();
    write(&bundle, whole.replace("alice", "malice"));
    offline(&[]).fails(1, &["does not verify", "was changed"]);
    let cut: Vec<&str> = whole.lines().collect();
    write(&bundle, cut[..cut.len() - 1].join("\n"));
    offline(&[]).fails(1, &["does not verify", "missing from the end"]);
}

#[test]
fn events_are_listed_as_csv_and_followed_with_one_event() {
    let house = House::start();
    let csv = house.mezctl(&["audit", "ls", "-o", "csv"]).ok();
    assert!(csv.starts_with("sequence,timestamp,event_type,"), "{csv}");
    assert!(csv.lines().nth(1).unwrap().starts_with("1,"), "{csv}");
    let mut command = std::process::Command::new(program("mezctl"));
    command.arg("--socket").arg(house.path("hub/mezctl.sock"));
    let mut tail = Running::start(
        command.args(["audit", "tail", "--type", "user.", "--json"]),
        b"",
    );
    for name in ["alice", "bob"] {
        house
            .mezctl(&["users", "add", name, "--roles", "access"])
            .ok();
        tail.until(&format!("\"resource_name\":\"{name}\""));
    }
    let follows = house
        .events()
        .into_iter()
        .filter(|event| text(event, "action") == "follow");
    assert_eq!(follows.count(), 1);
    house
        .mezctl(&["audit", "prune"])
        .fails(1, &["audit.retention"]);
}

#[test]
fn attack_57_refusals_failures_and_reads_are_recorded_end_to_end() {
    let house = House::start();
    house.agent("web");
    let alice = house.user("alice");
    let nobody = house.user_with("bob", "access", "somebody-else", &[]);
    run(alice.ssh(Way::Proxy, "web").arg("true")).ok();
    let session = house.session("alice", 1);
    let wrong = crate::house::User {
        name: String::from("alice"),
        password: String::from("wrong"),
        pin: alice.pin.clone(),
        home: alice.home.clone(),
        house: &house,
    };
    wrong.log_in(&[]).fails(3, &["wrong"]);
    run(nobody.ssh(Way::Jump, "web").arg("true")).fails(255, &["login"]);
    nobody.msh(&["play", &session.id]).fails(3, &["may not"]);
    house.export(&session.id, "text");
    house.mezctl(&["audit", "ls"]).ok();
    // No recording can be opened any more.
    let recordings = house.path("hub/recordings");
    fs::rename(&recordings, house.path("aside")).unwrap();
    write(&recordings, "in the way");
    run(alice.ssh(Way::Jump, "web").arg("true")).fails(255, &["could not be recorded"]);
    let log = house.events();
    for (event_type, user) in [
        ("user.login.failed", "alice"),
        ("authz.denied", "bob"),
        ("session.recording.failed", "alice"),
    ] {
        let found = log.iter().find(|event| {
            text(event, "event_type") == event_type && text(event, "user_name") == user
        });
        let found = found.unwrap_or_else(|| panic!("no {event_type} of {user}"));
        assert_eq!(text(found, "success"), "false", "{found}");
    }
    for event_type in ["audit.read", "recording.read"] {
        let found = log
            .iter()
            .any(|event| text(event, "event_type") == event_type);
        assert!(found, "no {event_type}");
    }
    fs::remove_file(&recordings).unwrap();
    fs::rename(house.path("aside"), &recordings).unwrap();
}

/// Breaks lines, ends JSON and CSV, controls terminals, turns the reading direction, shows nothing.
const HOSTILE: &str = "\r\n\"},{\"sequence\":1,\"x\":\"\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}gpj\u{2066}\u{200b}\u{feff}\u{9b}31m\u{2028},=cmd|calc!A1";

/// What a terminal, a line reader or a reader's eye would obey.
fn obeyed(text: &str) -> Vec<char> {
    let odd = |character: &char| {
        character.is_control() && *character != '\n'
            || "\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}".contains(*character)
    };
    text.chars().filter(odd).collect()
}

#[test]
fn attack_56_hostile_text_comes_out_of_every_way_as_data() {
    let syslog = Syslog::start();
    let house = House::start_with(|directory| {
        format!(
            "audit:\n  sinks:\n  - name: archive\n    file: {{ path: {}/audit.jsonl }}\n  \
             - name: siem\n    syslog: {{ address: '127.0.0.1:{}', tls: false }}\n",
            directory.display(),
            syslog.port
        )
    });
    house.agent("web");
    let alice = house.user("alice");
    // In: a command, one that is far too long, the reason of a hold, a question to the log itself.
    let command = format!("true '{HOSTILE}'");
    run(alice.ssh(Way::Proxy, "web").arg(&command)).ok();
    let long = format!("true '{}{HOSTILE}'", "x".repeat(100_000));
    run(alice.ssh(Way::Proxy, "web").arg(&long)).ok();
    let session = house.session("alice", 2);
    house
        .mezctl(&["recordings", "hold", &session.id, "--reason", HOSTILE])
        .ok();
    house.mezctl(&["audit", "ls", "--type", HOSTILE]).ok();
    let log = copied(&house, &house.path("audit.jsonl"));
    let count = log.len();
    let told = |event_type: &str, field: &str, start: &str| {
        let found = log.iter().find(|event| {
            text(event, "event_type") == event_type && text(event, field).starts_with(start)
        });
        let found = found.unwrap_or_else(|| panic!("no {event_type} with {start}"));
        assert!(obeyed(&text(found, field)).is_empty(), "{found}");
        found.clone()
    };
    let escaped = told("session.exec", "command", "true '\\r\\n\"},{\"sequence\":1");
    assert_eq!(escaped["command_escaped"], true);
    let cut = told("session.exec", "command", "true 'xxx");
    assert_eq!(cut["command_bytes"], long.len());
    told("recording.held", "reason", "\\r\\n");
    told("audit.read", "query", "{");
    // Out: each way has one line or row for each event, and nothing in it is obeyed.
    let number = (count + 50).to_string();
    let table = house.mezctl(&["audit", "ls", "-n", &number]).ok();
    assert!(table.lines().count() > count, "{table}");
    let json = house
        .mezctl(&["audit", "ls", "-n", &number, "-o", "json"])
        .ok();
    let parsed: Vec<Value> = serde_json::from_str(&json).unwrap();
    for (shown, sealed) in parsed.iter().zip(&log) {
        if sealed["overflow"].is_null() {
            assert_eq!(shown, sealed);
        } else {
            // What is too long for the event is shown whole.
            assert!(text(shown, "command").len() > long.len(), "{sealed}");
        }
    }
    let csv = house
        .mezctl(&["audit", "ls", "-n", &number, "-o", "csv"])
        .ok();
    assert_eq!(
        csv.lines()
            .skip(1)
            .filter(|row| row.starts_with("1,"))
            .count(),
        1
    );
    assert!(csv.lines().count() > count);
    let tail = house.mezctl_for(2, &["audit", "tail", "-n", "1000"]);
    assert!(tail.lines().count() >= count, "{tail}");
    let lines = house.mezctl_for(2, &["audit", "tail", "--json", "-n", "1000"]);
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["sequence"].is_u64());
    }
    let explained = house.mezctl(&["explain", &text(&escaped, "id")]).ok();
    let file = fs::read_to_string(house.path("audit.jsonl")).unwrap();
    assert!(file.lines().count() >= count);
    for out in [&table, &json, &csv, &tail, &lines, &explained, &file] {
        assert!(obeyed(out).is_empty(), "{out}");
    }
    until("the other copy", || syslog.heard().len() >= count);
    for message in lock(&syslog.heard).iter() {
        assert_eq!(obeyed(message).len(), 0, "{message}");
    }
    house.mezctl(&["audit", "verify"]).ok();
}
