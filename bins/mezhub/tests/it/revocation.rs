//! What is revoked is out at once: at the hub, at its nodes, and at a stock sshd that reads our list.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mezite_ca::KeyKind;

use crate::hostile::{Hostile, Shown};
use crate::house::{
    CLUSTER, Done, House, PROMISED, Way, endless, login, run, stock, text, until, write,
};

/// `curl` with the hub's authority.
fn curl(house: &House, words: &[&str]) -> Done {
    let authority = house.path("tls-ca.pem");
    if !authority.exists() {
        let path = authority.to_str().unwrap();
        house
            .mezctl(&["ca", "export", "--format", "tls-ca", "--out", path])
            .ok();
    }
    let mut command = stock("curl");
    command.args(["-sS", "--max-time", "10", "--cacert"]);
    command.arg(authority).args(words);
    run(command.arg(format!("https://{}/v1/krl", house.https())))
}

/// Fetches the list into a file, as a server's timer does; gives its tag.
fn fetch(house: &House, file: &Path) -> String {
    let done = curl(house, &["-f", "-D", "-", "-o", file.to_str().unwrap()]);
    header(&done.ok(), "etag")
}

fn header(head: &str, name: &str) -> String {
    let line = head.lines().find_map(|line| {
        line.split_once(':')
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
    });
    line.map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

fn revoke(house: &House, words: &[&str]) -> String {
    let made = house
        .mezctl(&[&["ca", "revoke", "-o", "json", "--reason", "test"], words].concat())
        .json();
    text(&made["metadata"], "name")
}

#[test]
fn attack_17_a_stock_sshd_refuses_what_our_list_names() {
    let house = House::start();
    let port = house.agentless("db1");
    let hostile = Hostile::new(&house);
    let node = house.mezctl(&["get", "node", "db1", "-o", "json"]).json();
    let principal = format!("mezite:{}:{}", text(&node["metadata"], "id"), login());
    let session = hostile.authority(KeyKind::Session);
    let shown = hostile.certificate(&session, &["-n", &principal, "-V", "-1m:+5m", "-z", "77"]);
    let open = || shown.to_sshd(port, &login());
    assert_eq!(open().ok(), "in\n");

    let list = house.path("krl");
    let first = fetch(&house, &list);
    let config = house.path("db1.sshd/sshd_config");
    let lines = fs::read_to_string(&config).unwrap();
    write(&config, format!("RevokedKeys {}\n{lines}", list.display()));
    house.crash("db1.sshd");
    house.start_sshd("db1", port);
    assert_eq!(open().ok(), "in\n", "an empty list revokes nothing");

    let known = curl(
        &house,
        &[
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            &format!("If-None-Match: {first}"),
        ],
    );
    assert_eq!(known.ok(), "304");
    let print = |file: &Path| {
        let shown = run(stock("ssh-keygen").arg("-lf").arg(file)).ok();
        shown.split(' ').nth(1).unwrap().to_owned()
    };
    let key = shown.key.with_extension("pub").display().to_string();
    let (own, ca) = (print(&shown.key), print(&session));
    for words in [
        &["--serial", "70-80"][..],
        &["--key", &key],
        &["--key", &shown.certificate().display().to_string()],
        &["--fingerprint", &own],
        &["--key-id", "hostile"],
        &["--authority", &ca],
    ] {
        let id = revoke(&house, words);
        let tag = fetch(&house, &list);
        assert_ne!(tag, first, "{words:?}");
        let judged = run(stock("ssh-keygen")
            .args(["-Q", "-f"])
            .arg(&list)
            .arg(shown.certificate()));
        assert!(
            judged.code != 0 && judged.out().contains("REVOKED"),
            "{judged}"
        );
        let refused = open();
        assert_eq!(refused.code, 255, "{words:?}: {refused}");
        assert!(refused.stdout.is_empty(), "{refused}");
        // The same bytes by the other way.
        let direct = house.path("krl.direct");
        house
            .mezctl(&["ca", "krl", "--out", direct.to_str().unwrap()])
            .ok();
        assert_eq!(fs::read(&direct).unwrap(), fs::read(&list).unwrap());
        house.mezctl(&["ca", "unrevoke", &id]).ok();
        fetch(&house, &list);
        assert_eq!(open().ok(), "in\n", "{words:?}");
    }
    assert!(
        house.sshd_log("db1").contains("revoked"),
        "{}",
        house.sshd_log("db1")
    );

    // A list that was cut short opens to nobody, and so does one that is gone.
    let whole = fs::read(&list).unwrap();
    write(&list, &whole[..whole.len() - 1]);
    assert_eq!(open().code, 255);
    fs::remove_file(&list).unwrap();
    assert_eq!(open().code, 255);
    write(&list, whole);
    assert_eq!(open().ok(), "in\n");
}

#[test]
fn the_list_is_served_as_http_says() {
    let house = House::start();
    let head = curl(&house, &["-I"]).ok();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let tag = header(&head, "etag");
    assert!(
        tag.starts_with('"') && tag.ends_with('"') && tag.len() == 66,
        "{head}"
    );
    assert_eq!(header(&head, "content-type"), "application/octet-stream");
    let whole = curl(&house, &[]).stdout;
    assert_eq!(header(&head, "content-length"), whole.len().to_string());
    assert_eq!(&whole[..6], b"SSHKRL");
    for (sent, code) in [
        (tag.clone(), "304"),
        (format!("\"x\", W/{tag}"), "304"),
        (String::from("*"), "304"),
        (String::from("\"x\""), "200"),
    ] {
        let done = curl(
            &house,
            &[
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-H",
                &format!("If-None-Match: {sent}"),
            ],
        );
        assert_eq!(done.ok(), code, "{sent}");
    }
    let posted = curl(&house, &["-D", "-", "-d", "x"]).ok();
    assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
    assert_eq!(header(&posted, "allow"), "GET, HEAD");
    let other = curl(
        &house,
        &[
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} ",
            &format!("https://{}/", house.https()),
        ],
    );
    assert!(other.out().starts_with("404"), "{other}");
    // gRPC on the same port goes on: the next call is one.
    house.user("alice");
}

#[test]
fn a_revoked_identity_ends_its_sessions_and_its_calls_within_a_second() {
    let house = House::start();
    house.agent("web");
    let (alice, bob) = (house.user("alice"), house.user("bob"));
    let sessions = [Way::Proxy, Way::Jump].map(|way| endless(&alice, way));
    let mut other = endless(&bob, Way::Proxy);
    let certificate = PathBuf::from(format!("{}-cert.pub", alice.key().display()));
    let id = revoke(&house, &["--key", certificate.to_str().unwrap()]);
    let revoked = Instant::now();
    for session in sessions {
        let done = session.wait(PROMISED.saturating_sub(revoked.elapsed()));
        eprintln!("a revocation ended a session after {:?}", revoked.elapsed());
        done.fails(255, &["revoked"]);
    }
    for way in [Way::Proxy, Way::Jump] {
        let done = run(alice.ssh(way, "web").arg("echo in"));
        assert_eq!(done.code, 255, "{done}");
        assert!(done.stdout.is_empty(), "{done}");
    }
    alice.msh(&["ls"]).fails(3, &["revoked", "msh login"]);
    assert!(
        !other.is_over(),
        "the revocation ended a session of somebody else"
    );
    assert_eq!(house.events_of("alice", "auth.attempt.failed").len(), 2);
    // A new key is a new identity.
    alice.log_in(&[]).ok();
    assert_eq!(
        run(alice.ssh(Way::Proxy, "web").arg("echo in")).ok(),
        "in\n"
    );
    let listed = house.mezctl(&["ca", "revocations"]).ok();
    assert!(listed.contains(&id) && listed.contains("test"), "{listed}");
}

#[test]
fn a_revoked_node_is_cut_off() {
    let house = House::start();
    house.agent("web");
    let alice = house.user("alice");
    let session = endless(&alice, Way::Proxy);
    let node = house.mezctl(&["get", "node", "web", "-o", "json"]).json();
    let key_id = format!(
        "mezite node {} cluster={CLUSTER}",
        text(&node["metadata"], "id")
    );
    let id = revoke(&house, &["--key-id", &key_id]);
    session.wait(PROMISED).fails(255, &["revoked"]);
    until("the agent's end", || !house.is_online("web"));
    let done = run(alice.ssh(Way::Proxy, "web").arg("echo in"));
    assert_eq!(done.code, 255, "{done}");
    house.mezctl(&["ca", "unrevoke", &id]).ok();
    until("the agent", || house.is_online("web"));
    assert_eq!(
        run(alice.ssh(Way::Proxy, "web").arg("echo in")).ok(),
        "in\n"
    );
}

#[test]
fn bad_revocations_are_told_what_is_wrong() {
    let house = House::start();
    for (words, said) in [
        (&["--serial", "0"][..], "serial"),
        (&["--fingerprint", "MD5:00"], "fingerprint"),
        (&["--serial", "1", "--key-id", "x"], "cannot be used with"),
        (&[], "required"),
    ] {
        let done = house.mezctl(&[&["ca", "revoke"], words].concat());
        done.fails(2, &[said]);
    }
    let missing = house.mezctl(&["ca", "revoke", "--key", "/nonexistent.pub"]);
    assert_eq!(missing.code, 2, "{missing}");
    house
        .mezctl(&["ca", "unrevoke", "nobody"])
        .fails(1, &["no revocation `nobody`"]);
    revoke(&house, &["--serial", "7"]);
    house
        .mezctl(&["ca", "revoke", "--serial", "7"])
        .fails(1, &["exists already"]);
}

/// A certificate made outside is judged by its own words.
impl Shown {
    fn certificate(&self) -> PathBuf {
        PathBuf::from(format!("{}-cert.pub", self.key.display()))
    }
}
