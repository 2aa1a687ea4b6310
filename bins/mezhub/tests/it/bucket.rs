//! A hub that keeps its recordings in S3-compatible storage: the whole way of a recording, kills, and a lost disk.

use std::fs;

use mezite_vault::testing::Server;
use serde_json::Value;

use crate::house::{House, Running, Way, run, text, until, write};

const SECRET: &str = "not-to-be-seen-in-any-log";

/// The lines of a hub's configuration, with a bucket of this test's own.
fn lines(directory: &std::path::Path, bucket: &str) -> String {
    write(
        &directory.join("s3.key"),
        format!("AKIAIOSFODNN7EXAMPLE:{SECRET}\n"),
    );
    let server = Server::shared();
    server.bucket(bucket);
    format!(
        "recordings:\n  s3:\n    bucket: {bucket}\n    endpoint: http://{}\n    prefix: a/b\n    access_key_file: {}\n",
        server.address(),
        directory.join("s3.key").display()
    )
}

fn objects(bucket: &str) -> Vec<String> {
    Server::shared().objects(bucket, "a/b/")
}

fn row(house: &House, id: &str) -> Option<Value> {
    let listed = house.mezctl(&["recordings", "ls", "-o", "json"]).json();
    let rows = listed.as_array()?.clone();
    rows.into_iter().find(|row| text(row, "session") == id)
}

#[test]
fn a_recording_lives_in_the_bucket_and_is_used_as_any_other() {
    let house = House::start_with(|directory| lines(directory, "whole-way"));
    house.agent("web");
    let user = house.user("alice");
    assert_eq!(
        run(user.ssh(Way::Proxy, "web").arg("echo one two")).ok(),
        "one two\n"
    );
    let session = house.session("alice", 1);
    let id = session.id.as_str();
    until("the upload", || {
        row(&house, id).is_some_and(|row| row["sealed"] == true && text(&row, "place").is_empty())
    });
    let named = objects("whole-way");
    assert!(
        matches!(&named[..], [only] if only.starts_with("a/b/recordings/") && only.ends_with(&format!("{id}.mzr"))),
        "{named:?}"
    );
    assert!(house.export(id, "text").contains("one two"));
    house.mezctl(&["recordings", "verify", id]).ok();
    house.mezctl(&["recordings", "verify", "--all"]).ok();
    let found = house.mezctl(&["recordings", "search", "one two"]).ok();
    assert!(found.contains(id), "{found}");
    assert!(
        objects("whole-way")
            .iter()
            .any(|it| it.starts_with("a/b/indexes/"))
    );
    // The index is at hand from now on.
    let copies = fs::read_dir(house.path("hub/spool/indexes")).unwrap();
    assert_eq!(copies.count(), 1);
    let again = house.mezctl(&["recordings", "search", "one two"]).ok();
    assert_eq!(again, found);
    let played = user.msh(&["play", id]).ok();
    assert!(played.contains("one two"), "{played}");
    house
        .mezctl(&["recordings", "hold", id, "--reason", "case 1"])
        .ok();
    house
        .mezctl(&["recordings", "release", id, "--reason", "closed"])
        .ok();
    // The key signs requests, and is nowhere else.
    for file in house.hub_files() {
        let content = fs::read(&file).unwrap();
        assert!(
            !crate::house::contains(&content, SECRET.as_bytes()),
            "{}",
            file.display()
        );
    }
    assert!(!house.hub_log().contains(SECRET));
    let told = house.mezhub(&["check-config"]).ok();
    assert!(
        told.contains("recordings: bucket whole-way at http://"),
        "{told}"
    );
    house.mezctl(&["audit", "verify"]).ok();
}

#[test]
fn attack_48_a_killed_hub_uploads_what_its_spool_held_and_a_lost_spool_costs_seconds() {
    let house = House::start_with(|directory| lines(directory, "killed"));
    house.agent("web");
    let user = house.user("alice");
    for lost in [false, true] {
        let mut ssh = user.ssh(Way::Proxy, "web");
        let command = "i=0; while :; do i=$((i+1)); echo \"line $i of many\"; sleep 0.01; done";
        let mut session = Running::start(ssh.arg(command), b"");
        session.until("line 10 of many\n");
        until("a piece", || {
            objects("killed")
                .iter()
                .any(|it| it.starts_with("a/b/live/"))
        });
        let live = house.mezctl(&["recordings", "ls"]).ok();
        assert!(live.contains("spool of hub"), "{live}");
        house.crash_hub();
        let received = session.wait(crate::house::PATIENCE).out();
        if lost {
            fs::remove_dir_all(house.path("hub/spool")).unwrap();
        }
        house.start_hub();
        let count = if lost { 2 } else { 1 };
        until("the recovery", || {
            house
                .events_of("alice", "session.recording.recovered")
                .len()
                == count
        });
        until("the upload", || {
            !objects("killed")
                .iter()
                .any(|it| it.starts_with("a/b/live/"))
        });
        let recovered = house.events_of("alice", "session.recording.recovered");
        let ids = recovered.iter().map(|event| text(event, "session_id"));
        let texts: Vec<String> = ids
            .map(|id| {
                house.mezctl(&["recordings", "verify", &id]).ok();
                house.export(&id, "text")
            })
            .collect();
        let whole = received.rfind('\n').map_or("", |end| &received[..=end]);
        let kept = texts.iter().any(|text| {
            if lost {
                text.contains("line 10 of many")
            } else {
                whole.lines().all(|line| text.contains(line))
            }
        });
        assert!(kept, "{} lines", whole.lines().count());
        until("the node", || house.is_online("web"));
    }
    house.mezctl(&["audit", "verify"]).ok();
}

#[test]
fn what_is_wrong_with_a_bucket_is_told_before_anything_starts() {
    let house = House::start_with(|directory| lines(directory, "checked"));
    let config = fs::read_to_string(house.path("mezite.yaml")).unwrap();
    let refused = |config: String, words: &[&str]| {
        write(&house.path("mezite.yaml"), config);
        let done = house.mezhub(&["check-config"]);
        done.fails(1, words);
    };
    refused(
        config.replace("bucket: checked", "bucket: nowhere"),
        &["recordings.s3", "nowhere"],
    );
    refused(
        config.replace("s3.key", "no.key"),
        &["access key of S3", "no.key"],
    );
    write(&house.path("bad.key"), "one-word\n");
    refused(
        config.replace("s3.key", "bad.key"),
        &["bad.key", "ID:SECRET"],
    );
    refused(
        config.replace("http://127.0.0.1", "http://192.0.2.1"),
        &["not encrypted"],
    );
}
