//! A stock sshd that trusts the session authority opens to its own sessions only.

use std::fs;

use crate::house::{House, User, Way, free_port, run, stock, text};

/// Stock ssh straight to a port, with nothing but what the user holds.
#[track_caller]
fn directly(user: &User<'_>, port: u16) -> crate::house::Done {
    let mut ssh = stock("ssh");
    let key = user.key().display().to_string();
    ssh.args(["-F", "none", "-v", "-i", &key, "-p", &port.to_string()])
        .args(["-o", &format!("CertificateFile={key}-cert.pub")])
        .args([
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "IdentityAgent=none",
            "-o",
            "BatchMode=yes",
        ])
        .args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args([&format!("{}@127.0.0.1", crate::house::login()), "echo in"]);
    run(&mut ssh)
}

#[test]
fn an_identity_certificate_opens_no_sshd_by_itself() {
    let house = House::start();
    let port = house.agentless("db1");
    let user = house.user("alice");
    // Through the gateway this very sshd serves this very user.
    let done = run(user.ssh(Way::Proxy, "db1").arg("echo in"));
    assert_eq!(done.ok(), "in\n");
    let done = directly(&user, port);
    assert_eq!(done.code, 255, "{done}");
    let said = done.err();
    assert!(said.contains("Permission denied"), "{done}");
    assert!(
        said.contains("ED25519-CERT"),
        "no certificate was shown: {done}"
    );
    assert!(done.stdout.is_empty(), "{done}");
}

/// An sshd that knows nothing but whose certificates count: the principal is the login, and the warning says what that costs.
#[test]
fn an_sshd_with_nothing_but_trusted_user_ca_keys_is_reached_by_the_bare_login() {
    let house = House::start();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let words = [
        "nodes",
        "add",
        "old",
        "--openssh",
        &address,
        "--binding",
        "login",
        "-o",
        "json",
    ];
    let added = house.mezctl(&words);
    assert!(
        added.err().contains("opens the same login on every other"),
        "{added}"
    );
    let added = added.json();
    let lines = text(&added, "sshd_lines");
    assert!(!lines.contains("Principals"), "{lines}");
    assert!(!text(&added, "warning").is_empty());
    house.set_up_sshd("old", &lines, &text(&added, "user_ca"), &["--ttl", "1h"]);
    house.start_sshd("old", port);
    let user = house.user("alice");
    for way in [Way::Proxy, Way::Jump] {
        assert_eq!(run(user.ssh(way, "old").arg("echo in")).ok(), "in\n");
    }
    let document = house.mezctl(&["get", "node", "old", "-o", "json"]).json();
    assert_eq!(document["spec"]["binding"], "login");
    // What a person carries still opens nothing by itself, and a node with lines of its own takes no bare login.
    assert_eq!(directly(&user, port).code, 255);
    let certificate = house.path("old.sshd/host-cert.pub");
    let shown = run(stock("ssh-keygen").arg("-Lf").arg(certificate)).ok();
    assert!(shown.contains("mezite node"), "{shown}");
    let long = house.mezctl(&[
        "ca",
        "sign-host",
        "old",
        "--ttl",
        "25h",
        "--public-key",
        house.path("old.sshd/host.pub").to_str().unwrap(),
    ]);
    long.fails(2, &["at most"]);
    house
        .mezctl(&[
            "nodes",
            "add",
            "odd",
            "--openssh",
            &address,
            "--binding",
            "none",
        ])
        .fails(2, &["binding"]);
}

/// A node that is reached at another's address has the other's host certificate.
#[test]
fn a_node_at_anothers_address_is_not_taken_for_it() {
    let house = House::start();
    let port = house.agentless("db1");
    let address = format!("127.0.0.1:{port}");
    house
        .mezctl(&["nodes", "add", "db2", "--openssh", &address])
        .ok();
    let user = house.user("alice");
    let done = run(user.ssh(Way::Proxy, "db1").arg("echo in"));
    assert_eq!(done.ok(), "in\n");
    for way in [Way::Proxy, Way::Jump] {
        let done = run(user.ssh(way, "db2").arg("echo in"));
        assert_eq!(done.code, 255, "{done}");
        assert!(done.stdout.is_empty(), "{done}");
        assert!(done.err().contains("certificate"), "{done}");
    }
    let log = house.sshd_log("db1");
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
}

/// The sshd is set up for db2's host certificate but db1's principals: what the hub mints for db2 must not open it.
#[test]
fn a_session_certificate_for_another_node_is_refused_by_sshd() {
    let house = House::start();
    house.agentless("db1");
    let port = free_port();
    house.register_sshd("db2", port);
    let id = |name: &str| {
        let node = house.mezctl(&["get", "node", name, "-o", "json"]).json();
        text(&node["metadata"], "id")
    };
    let (one, two) = (id("db1"), id("db2"));
    let config = house.path("db2.sshd/sshd_config");
    let lines = fs::read_to_string(&config).unwrap();
    assert!(lines.contains(&format!("mezite:{two}:%u")), "{lines}");
    crate::house::write(&config, lines.replace(&two, &one));
    house.start_sshd("db2", port);
    let user = house.user("alice");
    assert_eq!(run(user.ssh(Way::Proxy, "db1").arg("echo in")).ok(), "in\n");
    let done = run(user.ssh(Way::Proxy, "db2").arg("echo in"));
    assert_eq!(done.code, 255, "{done}");
    assert!(done.stdout.is_empty(), "{done}");
    let log = house.sshd_log("db2");
    assert!(!log.contains("Accepted publickey"), "{log}");
    assert!(log.contains("principal"), "{log}");
    // Set right, the same sshd opens.
    house.crash("db2.sshd");
    let lines = fs::read_to_string(&config).unwrap();
    crate::house::write(&config, lines.replace(&one, &two));
    house.start_sshd("db2", port);
    assert_eq!(run(user.ssh(Way::Proxy, "db2").arg("echo in")).ok(), "in\n");
}
