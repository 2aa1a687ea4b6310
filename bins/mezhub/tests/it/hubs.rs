//! Several hubs on one PostgreSQL database, and a database that goes away and comes back.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mezite_store_postgres::testing::Server;
use serde_json::Value;

use crate::forward::role;
use crate::house::{
    CLUSTER, Done, House, PATIENCE, Running, User, Way, chmod, login, program, run, text, until,
    write,
};
use crate::join::{answering, running_session};

/// A loaded machine may be slower than the second that is promised.
const PROMISED: Duration = Duration::from_secs(2);

/// What a hub's configuration says of its database.
fn on(string: &str) -> String {
    format!("store:\n  postgres:\n    url: {string}\n")
}

/// A hub on a fresh database.
fn first(server: &Server) -> (House, String) {
    let store = on(&server.database());
    let mut lines = String::new();
    let house = House::start_with(|directory| {
        lines = format!(
            "{store}recordings:\n  directory: {}/recordings\n",
            directory.display()
        );
        lines.clone()
    });
    (house, lines)
}

/// The same user, at another hub.
fn at<'a>(house: &'a House, user: &User<'_>) -> User<'a> {
    let home = house.path(&format!("{}.home", user.name));
    fs::create_dir(&home).unwrap();
    let there = User {
        house,
        name: user.name.clone(),
        password: user.password.clone(),
        pin: user.pin.clone(),
        home,
    };
    there.log_in(&[]).ok();
    there
}

fn ticking(user: &User<'_>, way: Way) -> Running {
    let mut ssh = user.ssh(way, "web");
    let mut running = Running::start(ssh.arg("while :; do echo tick; sleep 0.05; done"), b"");
    running.until("tick");
    running
}

fn is_gap_free(events: &[Value]) {
    let sequences = events
        .iter()
        .map(|event| event["sequence"].as_u64().unwrap());
    assert!(
        sequences.eq(1..=u64::try_from(events.len()).unwrap()),
        "gap-free"
    );
}

#[test]
fn two_hubs_on_one_database_are_one_cluster() {
    let server = Server::shared();
    let (here, lines) = first(&server);
    let there = here.beside(&lines);
    // The agent joined here, and finds there by itself.
    here.agent("web");
    until("the agent at the second hub", || there.is_online("web"));
    let alice = here.user("alice");
    let alice_there = at(&there, &alice);
    for (user, way) in [
        (&alice, Way::Proxy),
        (&alice_there, Way::Jump),
        (&alice_there, Way::Proxy),
    ] {
        assert_eq!(run(user.ssh(way, "web").arg("echo hello")).ok(), "hello\n");
    }
    // A lock here ends sessions here and there.
    let sessions = [&alice, &alice_there].map(|user| ticking(user, Way::Proxy));
    // Either hub lists both.
    for house in [&here, &there] {
        until("one session at each hub", || {
            let hubs = house.mezctl(&["status", "-o", "json"]).json()["hubs"].clone();
            let hubs = hubs.as_array().unwrap();
            let counts = hubs.iter().map(|hub| hub["sessions"].as_u64().unwrap());
            let others = hubs.iter().filter(|hub| hub["silent_ms"].is_u64());
            counts.eq([1, 1]) && others.count() == 1
        });
        let shown = house.mezctl(&["status"]).ok();
        let hubs = shown.lines().filter(|line| line.starts_with("hub "));
        assert_eq!(hubs.count(), 2, "{shown}");
        assert!(shown.contains("1 sessions, this one"), "{shown}");
        let running = house.mezctl(&["sessions", "ls", "-o", "json"]).json();
        let running = running.as_array().unwrap();
        let of = |field: &str| -> Vec<String> {
            let texts = running
                .iter()
                .map(|session| session[field].as_str().unwrap().to_owned());
            texts.collect()
        };
        assert_eq!(of("user"), ["alice", "alice"]);
        assert_eq!(of("node"), ["web", "web"]);
        assert_ne!(of("hub")[0], of("hub")[1]);
        assert!(of("started").is_sorted(), "{running:?}");
    }
    here.mezctl(&["lock", "user", "alice", "--reason", "gone"])
        .ok();
    let locked = Instant::now();
    for session in sessions {
        let done = session.wait(PROMISED.saturating_sub(locked.elapsed()));
        eprintln!("a lock ended a session after {:?}", locked.elapsed());
        done.fails(255, &["locked", "gone"]);
    }
    alice_there.log_in(&[]).fails(3, &["locked"]);
    // One log, the same at both, and each plays what the other recorded.
    let ended = here.session("alice", 5);
    let sessions = there.sessions_of("alice");
    assert_eq!(sessions.len(), 5, "{:?}", ended.id);
    for session in &sessions {
        for house in [&here, &there] {
            house.mezctl(&["recordings", "verify", &session.id]).ok();
        }
    }
    is_gap_free(&there.events());
    for house in [&here, &there] {
        house.mezctl(&["audit", "verify"]).ok();
    }
    let started = here.events();
    let started = started
        .iter()
        .filter(|event| text(event, "event_type") == "hub.started");
    assert_eq!(started.count(), 2);
}

#[test]
fn a_killed_hub_costs_only_its_own_sessions() {
    let server = Server::shared();
    let (here, lines) = first(&server);
    let there = here.beside(&lines);
    here.agent("web");
    until("the agent at the second hub", || there.is_online("web"));
    let alice = here.user("alice");
    let alice_there = at(&there, &alice);
    let (ours, mut theirs) = (
        ticking(&alice, Way::Proxy),
        ticking(&alice_there, Way::Proxy),
    );
    here.crash_hub();
    assert_ne!(ours.wait(Duration::from_secs(20)).code, 0);
    let before = theirs.stdout().len();
    until("more from the other session", || {
        theirs.stdout().len() > before + 100
    });
    assert_eq!(
        run(alice_there.ssh(Way::Jump, "web").arg("echo on")).ok(),
        "on\n"
    );
    // Started again, it seals what it left and leaves alone what the other still writes.
    here.start_hub();
    let recovered = here.events_of("alice", "session.recording.recovered");
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    assert!(!theirs.is_over());
    until("the agent here again", || here.is_online("web"));
    assert_eq!(
        run(alice.ssh(Way::Proxy, "web").arg("echo back")).ok(),
        "back\n"
    );
    drop(theirs);
    is_gap_free(&here.events());
    here.mezctl(&["audit", "verify"]).ok();
}

#[test]
fn whoever_is_watched_through_another_hub_is_told_so() {
    let server = Server::shared();
    let lines = format!("{}lock_staleness: 5s\n", on(&server.database()));
    let mut all = String::new();
    let here = House::start_with(|directory| {
        let recordings = directory.join("recordings");
        all = format!(
            "{lines}recordings:\n  directory: {}\n",
            recordings.display()
        );
        all.clone()
    });
    let there = here.beside(&all);
    here.agent("web");
    until("the agent at the second hub", || there.is_online("web"));
    role(&here, "open", "record: { announce_watchers: true }");
    let alice = here.user_with("alice", "open", &login(), &[]);
    let carol = here.user_with("carol", "auditor", &login(), &[]);
    let carol_there = at(&there, &carol);
    let (mut session, mut typed) = answering(&alice);
    std::io::Write::write_all(&mut typed, b"one\n").unwrap();
    session.until("got-one");
    let id = running_session(&here);
    let watch = |user: &User<'_>| {
        let mut watcher = Running::start(user.msh_command().args(["join", &id]), b"");
        watcher.until("got-one");
        watcher
    };
    let said = |session: &Running, words: &str| {
        let shown = String::from_utf8_lossy(&session.stderr()).into_owned();
        shown.matches(words).count()
    };
    let came = "mezite: carol watches this session";
    let left = "mezite: carol no longer watches this session";
    let watcher = watch(&carol_there);
    until("the word that carol watches", || said(&session, came) == 1);
    // Through both hubs she is one person, and watches until she has left both.
    let beside = watch(&carol);
    until("both to be noted", || {
        here.events_of("carol", "recording.read").len() == 2
    });
    drop(watcher);
    until("the event that she has left one", || {
        here.events_of("carol", "recording.read").len() == 3
    });
    assert_eq!((said(&session, came), said(&session, left)), (1, 0));
    drop(beside);
    until("the word that carol has left", || said(&session, left) == 1);
    // A hub that is killed shows nobody anything.
    let watcher = watch(&carol_there);
    until("the word that carol is back", || said(&session, came) == 2);
    there.crash_hub();
    until("the word that its hub is lost", || {
        said(&session, left) == 2
    });
    drop((watcher, typed));
    session.wait(PATIENCE).ok();
    let recorded = here.export(&id, "json");
    for words in [came, left] {
        assert_eq!(recorded.matches(words).count(), 2, "{recorded}");
    }
}

#[test]
fn an_agent_that_starts_while_its_first_hub_is_down_finds_the_other() {
    let server = Server::shared();
    let (here, lines) = first(&server);
    let there = here.beside(&lines);
    here.agent("web");
    until("the agent at the second hub", || there.is_online("web"));
    here.crash("web");
    here.crash_hub();
    until("the loss", || !there.is_online("web"));
    let mut agent = std::process::Command::new(program("mezd"));
    agent.args(["start", "--data-dir"]).arg(here.path("web"));
    let agent = Running::start(&mut agent, b"");
    until("the agent at the second hub", || there.is_online("web"));
    let status = std::process::Command::new(program("mezd"))
        .args(["status", "--data-dir"])
        .arg(here.path("web"))
        .output()
        .unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    for port in [here.ports.tunnel, there.ports.tunnel] {
        assert!(status.contains(&format!("127.0.0.1:{port}")), "{status}");
    }
    drop(agent);
}

#[test]
fn attack_54_without_its_database_a_hub_does_nothing_says_so_and_recovers_by_itself() {
    let server = Arc::new(Server::start(&[]));
    let (house, _) = first(&server);
    house.agent("web");
    let alice = house.user("alice");
    let running = ticking(&alice, Way::Proxy);
    server.crash();
    let began = Instant::now();
    house
        .mezctl(&["users", "add", "bob"])
        .fails(4, &["unavailable"]);
    alice.log_in(&[]).fails(4, &[]);
    let refused = run(alice.ssh(Way::Proxy, "web").arg("echo never"));
    assert!(refused.code != 0 && refused.out().is_empty(), "{refused}");
    let refused = run(alice.ssh(Way::Jump, "web").arg("echo never"));
    assert!(refused.code != 0 && refused.out().is_empty(), "{refused}");
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "each is told in good time"
    );
    server.restart();
    // The hub was not started again.
    until("the database", || {
        house.mezctl(&["users", "add", "carol", "-o", "json"]).code == 0
    });
    alice.log_in(&[]).ok();
    assert_eq!(
        run(alice.ssh(Way::Jump, "web").arg("echo again")).ok(),
        "again\n"
    );
    drop(running);
    let events = house.events();
    is_gap_free(&events);
    let bob = events
        .iter()
        .any(|event| text(event, "resource_name") == "bob");
    let listed = house
        .mezctl(&["get", "users", "-o", "json"])
        .ok()
        .contains("\"bob\"");
    assert_eq!(bob, listed, "state and event together");
    house.mezctl(&["audit", "verify"]).ok();
}

fn check(directory: &Path, lines: &str) -> Done {
    let path = directory.join("mezite.yaml");
    let key = directory.join("sealing.key");
    write(&key, "5a".repeat(32));
    let config = format!(
        "cluster: {CLUSTER}\nhub: hub\ndata_dir: {0}/hub\nsealing:\n  key_file: {1}\n{lines}",
        directory.display(),
        key.display()
    );
    write(&path, config);
    let mut mezhub = std::process::Command::new(program("mezhub"));
    run(mezhub.args(["check-config", "--config"]).arg(path))
}

#[test]
fn check_config_looks_at_the_database_and_says_what_is_wrong() {
    let server = Server::shared();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let string = server.database();
    let good = check(directory, &on(&string)).ok();
    assert!(good.contains("PostgreSQL, database `test"), "{good}");
    let made = server.sql(
        &string,
        "SELECT count(*) FROM pg_namespace WHERE nspname = 'mezite'",
    );
    assert_eq!(made, "0", "it only looks");
    let password = directory.join("password");
    write(&password, "hunter2\n");
    let with = |more: &str| {
        format!(
            "{}    password_file: {}\n{more}",
            on(&string),
            password.display()
        )
    };
    check(directory, &with("")).ok();
    chmod(&password, 0o644);
    check(directory, &with(""))
        .fails(1, &["password", "chmod 600"])
        .in_one_line();
    chmod(&password, 0o600);
    for (lines, words) in [
        (
            on("host=127.0.0.1 port=1 user=a sslmode=disable"),
            ["127.0.0.1:1", "is the server running"],
        ),
        (
            on("postgres://mezite:hunter2@127.0.0.1/hub"),
            ["authority", "sslmode=disable"],
        ),
        (
            on("postgres://mezite:hunter2@127.0.0.1/hub?what=ever"),
            ["store.postgres", "`what`"],
        ),
        (on(&server.string("nowhere")), ["nowhere", "createdb"]),
        (
            with("    ca_file: /no/such/file\n"),
            ["ca_file", "/no/such/file"],
        ),
        (with("    adress: x\n"), ["adress", "line"]),
        ("store: mysql\n".to_owned(), ["mysql", "line"]),
    ] {
        let done = check(directory, &lines).fails(1, &words).in_one_line();
        assert!(!done.err().contains("hunter2"), "{done}");
    }
}

#[test]
fn two_hubs_cannot_use_one_data_directory() {
    let server = Server::shared();
    let (house, _) = first(&server);
    let mut mezhub = std::process::Command::new(program("mezhub"));
    mezhub
        .arg("start")
        .arg("--config")
        .arg(house.path("mezite.yaml"));
    // Ports of its own, so that only the directory is in the way.
    for name in ["HTTPS", "SSH", "TUNNEL", "AUTH"] {
        mezhub.env(format!("MEZITE_LISTEN_{name}"), "127.0.0.1:0");
    }
    run(&mut mezhub).fails(1, &["another hub uses the data directory"]);
    house.mezctl(&["status"]).ok();
}

#[test]
fn a_second_hub_of_one_name_is_refused_and_a_killed_one_is_counted_as_lost() {
    let server = Server::shared();
    let lines = format!("{}lock_staleness: 5s\n", on(&server.database()));
    let here = House::start_with(|_| lines.clone());
    let there = here.beside(&lines);
    here.agent("web");
    until("the agent at the second hub", || there.is_online("web"));
    let twin = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(here.path("mezite.yaml")).unwrap();
    let twins = format!("data_dir: {}/hub\n", twin.path().display());
    let own = format!("data_dir: {}\n", here.path("hub").display());
    write(
        &twin.path().join("mezite.yaml"),
        config.replace(&own, &twins),
    );
    let mut mezhub = std::process::Command::new(program("mezhub"));
    mezhub
        .arg("start")
        .arg("--config")
        .arg(twin.path().join("mezite.yaml"));
    for name in ["HTTPS", "SSH", "TUNNEL", "AUTH"] {
        mezhub.env(format!("MEZITE_LISTEN_{name}"), "127.0.0.1:0");
    }
    run(&mut mezhub).fails(1, &["another hub runs as `hub`", "a name of its own"]);
    // What is lost is no more looked for, and nothing else changes.
    there.crash_hub();
    let lost = || -> Vec<Value> {
        let mut events = here.events();
        events.retain(|event| text(event, "event_type") == "hub.lost");
        events
    };
    until("the loss", || !lost().is_empty());
    assert_eq!(text(&lost()[0], "resource_name"), "second");
    let status = || {
        let mut mezd = std::process::Command::new(program("mezd"));
        mezd.args(["status", "--data-dir"]).arg(here.path("web"));
        run(&mut mezd).ok()
    };
    let gone = format!("127.0.0.1:{}", there.ports.tunnel);
    until("the agent to hear of it", || !status().contains(&gone));
    let alice = here.user("alice");
    assert_eq!(run(alice.ssh(Way::Jump, "web").arg("echo on")).ok(), "on\n");
    // It is back as soon as it is started again, in its own place at once.
    there.start_hub();
    until("the agent at the second hub again", || {
        there.is_online("web")
    });
    here.mezctl(&["audit", "verify"]).ok();
}

#[test]
fn attack_38_a_hub_that_cannot_hear_of_locks_ends_its_sessions() {
    let server = Arc::new(Server::start(&[]));
    let string = server.database();
    let house = House::start_with(|_| format!("{}lock_staleness: 5s\n", on(&string)));
    house.agent("web");
    let alice = house.user("alice");
    let running = ticking(&alice, Way::Proxy);
    server.crash();
    let began = Instant::now();
    let done = running.wait(Duration::from_secs(60));
    assert!(began.elapsed() > Duration::from_secs(3), "not at once");
    done.fails(255, &["could not confirm its rules"]);
    server.restart();
    until("the database", || alice.log_in(&[]).code == 0);
    assert_eq!(
        run(alice.ssh(Way::Jump, "web").arg("echo again")).ok(),
        "again\n"
    );
    until("the session's end", || {
        let ended = ["session.end", "session.recording.recovered"];
        let events = house.events();
        let of_alice = events
            .iter()
            .filter(|event| text(event, "user_name") == "alice");
        of_alice
            .filter(|event| ended.contains(&text(event, "event_type").as_str()))
            .count()
            == 2
    });
    is_gap_free(&house.events());
    house.mezctl(&["audit", "verify"]).ok();
}
