//! Backup while everything runs, and back again.

use std::collections::BTreeSet;
use std::fs;

use mezite_store_postgres::testing::Server;
use serde_json::Value;

use crate::house::{House, Way, run, text, until, write};

fn house() -> House {
    House::start_with(|directory| {
        format!(
            "audit:\n  sinks:\n  - name: archive\n    file: {{ path: {}/audit.jsonl }}\n",
            directory.display()
        )
    })
}

fn serials(events: &[Value]) -> Vec<String> {
    let all = events.iter().map(|event| text(event, "serial"));
    all.filter(|serial| !serial.is_empty()).collect()
}

fn move_database_away(house: &House) {
    for suffix in ["", "-wal", "-shm"] {
        drop(fs::rename(
            house.path(&format!("hub/mezhub.db{suffix}")),
            house.path(&format!("old.db{suffix}")),
        ));
    }
}

#[test]
fn attack_76_a_restore_revives_nothing_unnoticed_and_the_log_shows_the_seam() {
    let house = house();
    house.agent("web");
    let alice = house.user("alice");
    run(alice.ssh(Way::Proxy, "web").arg("true")).ok();
    let (token, pin) = house.token(&[]);
    let (file, kept) = (house.path("the.backup"), house.path("kept"));
    let file = file.to_str().unwrap();
    let done = house.mezhub(&["backup", file]).ok();
    assert!(done.contains("cluster house"), "{done}");
    house.mezhub(&["backup", file]).fails(1, &["there already"]);

    // What happens after the backup.
    house.join("late", &token, &pin, &house.path("late")).ok();
    house
        .mezctl(&["lock", "user", "alice", "--reason", "laptop stolen"])
        .ok();
    house.user("carol");
    let verify = ["audit", "verify", "--checkpoint", kept.to_str().unwrap()];
    house.mezctl(&verify).ok();
    let before = house.events();
    let last = before.last().unwrap()["sequence"].as_u64().unwrap();
    until("the copy of the log", || {
        let copy = fs::read_to_string(house.path("audit.jsonl")).unwrap_or_default();
        copy.contains(&format!("\"sequence\":{last},"))
    });
    house.stop_hub();

    let log = house.path("audit.jsonl");
    let log = log.to_str().unwrap();
    house
        .mezhub(&["restore", file])
        .fails(1, &["nothing is overwritten", "mezhub.db"]);
    move_database_away(&house);
    let told = house.mezhub(&["restore", file, "--log", log]).ok();
    for word in [
        "lock.created",
        "alice",
        "user.created carol",
        "node.joined",
        "join tokens",
    ] {
        assert!(told.contains(word), "no `{word}` in:\n{told}");
    }
    house.start_hub();

    let after = house.events();
    let seam: Vec<&Value> = after
        .iter()
        .filter(|event| text(event, "event_type") == "backup.restored")
        .collect();
    assert_eq!(seam.len(), 1);
    assert!(
        text(seam[0], "user_name").starts_with("local:"),
        "{}",
        seam[0]
    );
    let said = house.mezctl(&["audit", "verify"]);
    assert!(said.err().contains("tells of a restore"), "{said}");
    said.ok();
    house.mezctl(&verify).fails(1, &["does not verify"]);
    until("the alarm of the receiver", || {
        let events = house.events();
        events
            .iter()
            .any(|event| text(event, "event_type") == "audit.rollback")
    });

    // The token that was used is not good again, though the backup had it unused.
    house
        .join("again", &token, &pin, &house.path("again"))
        .fails(3, &["token"]);
    assert!(
        house
            .mezctl(&["get", "tokens", "-o", "json"])
            .json()
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_eq!(house.mezctl(&["get", "user", "carol"]).code, 1);
    until("the node", || house.is_online("web"));
    alice.log_in(&[]).ok();
    run(alice.ssh(Way::Jump, "web").arg("true")).ok();
    let sequence = seam[0]["sequence"].as_u64();
    let new: Vec<Value> = house
        .events()
        .into_iter()
        .filter(|event| event["sequence"].as_u64() > sequence)
        .collect();
    let all = [serials(&before), serials(&new)].concat();
    let issued =
        all.len() - new_certificates_named_twice(&before) - new_certificates_named_twice(&new);
    let unique: BTreeSet<String> = all.into_iter().collect();
    assert_eq!(unique.len(), issued, "no serial is given twice");
}

/// From PostgreSQL while its hub runs, into another database of the server and into a SQLite file.
#[test]
fn attack_76_a_backup_from_postgresql_revives_nothing_in_either_database() {
    let server = Server::shared();
    let on = |string: &str| format!("store:\n  postgres:\n    url: {string}\n");
    let first = on(&server.database());
    let house = House::start_with(|_| first.clone());
    house.agent("web");
    let alice = house.user("alice");
    run(alice.ssh(Way::Proxy, "web").arg("true")).ok();
    house.user("carol");
    house
        .mezctl(&["lock", "user", "carol", "--reason", "gone"])
        .ok();
    let (token, pin) = house.token(&[]);
    let file = house.path("the.backup");
    let file = file.to_str().unwrap();
    house.mezhub(&["backup", file]).ok();
    house.join("late", &token, &pin, &house.path("late")).ok();
    let before = house.events();
    house.stop_hub();
    house
        .mezhub(&["restore", file])
        .fails(1, &["not empty"])
        .in_one_line();

    let config = fs::read_to_string(house.path("mezite.yaml")).unwrap();
    let mut given: Vec<String> = serials(&before);
    let mut issued = given.len() - new_certificates_named_twice(&before);
    for store in [on(&server.database()), String::new()] {
        write(&house.path("mezite.yaml"), config.replace(&first, &store));
        house.mezhub(&["restore", file]).ok();
        house.start_hub();
        let said = house.mezctl(&["audit", "verify"]);
        assert!(said.err().contains("tells of a restore"), "{said}");
        said.ok();
        house
            .join("again", &token, &pin, &house.path("again"))
            .fails(3, &["token"]);
        // A lock of before the backup holds; whoever was not locked comes in.
        let locks = house.mezctl(&["get", "locks", "-o", "json"]).json();
        assert_eq!(locks.as_array().unwrap().len(), 1, "{locks}");
        until("the node", || house.is_online("web"));
        alice.log_in(&[]).ok();
        run(alice.ssh(Way::Jump, "web").arg("true")).ok();
        let events = house.events();
        let seam = events
            .iter()
            .position(|event| text(event, "event_type") == "backup.restored");
        let new = &events[seam.unwrap()..];
        given.extend(serials(new));
        issued += serials(new).len() - new_certificates_named_twice(new);
        house.mezctl(&["audit", "verify"]).ok();
        house.stop_hub();
    }
    let unique: BTreeSet<String> = given.into_iter().collect();
    assert_eq!(unique.len(), issued, "no serial is given twice");
}

/// Events that name the serial of a certificate that was issued before: those who showed it.
fn new_certificates_named_twice(events: &[Value]) -> usize {
    let mut seen = BTreeSet::new();
    let all = serials(events);
    all.iter()
        .filter(|serial| !seen.insert((*serial).clone()))
        .count()
}

#[test]
fn a_backup_of_a_stopped_hub_and_files_that_are_none() {
    let house = house();
    house
        .mezctl(&["users", "add", "alice", "--roles", "access"])
        .ok();
    house.stop_hub();
    let file = house.path("the.backup");
    let name = file.to_str().unwrap();
    house.mezhub(&["backup", name]).ok();
    move_database_away(&house);

    let whole = fs::read(&file).unwrap();
    let cut = house.path("cut.backup");
    write(&cut, &whole[..whole.len() / 2]);
    let cut_name = cut.to_str().unwrap();
    house
        .mezhub(&["restore", cut_name])
        .fails(1, &["the backup is damaged"])
        .in_one_line();
    assert!(
        !house.path("hub/mezhub.db").exists(),
        "and is not in the way"
    );
    let other = String::from_utf8(whole)
        .unwrap()
        .replacen("\"house\"", "\"other\"", 1);
    write(&cut, other);
    house
        .mezhub(&["restore", cut_name])
        .fails(1, &["`other`", "`house`"])
        .in_one_line();
    house
        .mezhub(&["restore", "/no/such/file"])
        .fails(1, &["/no/such/file"])
        .in_one_line();
    house
        .mezhub(&["backup", &house.path("x").display().to_string()])
        .fails(1, &["no database"]);

    house.mezhub(&["restore", name]).ok();
    house.start_hub();
    house.mezctl(&["get", "user", "alice"]).ok();
    house.mezctl(&["audit", "verify"]).ok();
    let made = house.events();
    let made = made
        .iter()
        .filter(|event| text(event, "event_type") == "backup.created");
    assert_eq!(made.count(), 1);
}
