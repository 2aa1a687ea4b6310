//! What stock `ssh` makes of the line by which it trusts a cluster, and of lines that nearly are it.

use std::fs;

use crate::house::{CLUSTER, Done, House, User, Way, login, run, stock, write};

#[test]
fn attack_83_a_revoked_authority_and_lines_that_only_look_right_open_nothing() {
    let house = House::start();
    house.agent("web");
    let alice = house.user("alice");
    let line = fs::read_to_string(alice.key().with_file_name("known_hosts")).unwrap();
    let [marker, names, kind, key, ..] = *line.split(' ').collect::<Vec<_>>() else {
        panic!("{line}")
    };
    assert_eq!(marker, "@cert-authority", "{line}");
    let authority = format!("{kind} {key}");
    let file = house.path("known_hosts");
    let told = |lines: &str| {
        write(&file, lines);
        let mut ssh = alice.ssh(Way::Proxy, "web");
        ssh.args(["-o", &format!("UserKnownHostsFile={}", file.display())]);
        ssh.args(["-o", "GlobalKnownHostsFile=none", "echo in"]);
        run(&mut ssh)
    };
    assert_eq!(told(&line).ok(), "in\n");
    for (what, lines) in [
        ("revoked below", format!("{line}@revoked * {authority}\n")),
        ("revoked above", format!("@revoked * {authority}\n{line}")),
        (
            "two markers",
            format!("@cert-authority @revoked {names} {authority}\n"),
        ),
        ("one marker twice", format!("@cert-authority {line}")),
        ("a blank of another kind", line.replacen(' ', "\u{a0}", 1)),
        (
            "a blank within the marker",
            line.replacen("@cert", "@ cert", 1),
        ),
        (
            "another cluster",
            format!("@cert-authority *.other {authority}\n"),
        ),
        (
            "a name that only ends like it",
            format!("@cert-authority *x.{CLUSTER} {authority}\n"),
        ),
        (
            "a key in place of an authority",
            format!("{names} {authority}\n"),
        ),
        ("nothing", String::new()),
    ] {
        let done = told(&lines);
        assert_eq!(
            (done.code, done.out().as_str()),
            (255, ""),
            "{what}: {done}"
        );
    }
    assert_eq!(told(&line).ok(), "in\n", "nothing else was in the way");
}

/// Logs in to `host` by its full name.
fn ssh(user: &User<'_>, host: &str) -> Done {
    let mut ssh = user.openssh("ssh", Way::Proxy);
    run(ssh.args(["-l", &login(), host, "echo hello"]))
}

#[test]
fn attack_83_our_line_covers_the_cluster_and_not_a_look_alike() {
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    let path = user.key().with_file_name("known_hosts");
    let covers = |name: &str| {
        let mut keygen = stock("ssh-keygen");
        run(keygen.args(["-F", name, "-f"]).arg(&path)).code == 0
    };
    assert!(covers("web.house") && covers("127.0.0.1"));
    for name in [
        "house",
        "webhouse",
        "web.house.example",
        "web.house\u{a0}",
        "web\u{3002}house",
        "web.hou\u{455}e",
        "evil.example",
        "*",
    ] {
        assert!(!covers(name), "{name:?}");
    }
    // Hashed by the user, or by a tool of theirs: authorities are patterns, which no hash covers, so ssh does not guess.
    run(stock("ssh-keygen").args(["-H", "-f"]).arg(&path));
    let hashed = fs::read_to_string(&path).unwrap();
    assert!(hashed.contains("@cert-authority *.house"), "{hashed}");
    assert_eq!(ssh(&user, "web.house").ok(), "hello\n");
}

/// A certificate for a pattern would speak for every host, since ssh takes principals of hosts as patterns.
#[test]
fn attack_83_no_host_certificate_is_made_for_a_pattern() {
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    let key = house.path("host");
    run(stock("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key))
    .ok();
    let public = house.path("host.pub").display().to_string();
    for pattern in ["*", "*.house", "we?", "web,db", "!web", "we\u{a0}b", ""] {
        let refused = house.mezctl(&["nodes", "add", pattern, "--openssh", "127.0.0.1:22"]);
        assert_ne!(refused.code, 0, "{pattern:?} is a node: {refused}");
        let signed = house.mezctl(&["ca", "sign-host", pattern, "--public-key", &public]);
        assert_ne!(signed.code, 0, "{pattern:?} was signed: {signed}");
    }
    let hosts = house.events();
    for event in hosts
        .iter()
        .filter(|event| event["event_type"] == "host.cert.issued")
    {
        let text = event.to_string();
        assert!(!text.contains('*') && !text.contains('?'), "{text}");
    }
    // Nor while somebody dials: the gateway shows a certificate for a node it found, or none.
    for name in ["w*b.house", "we?.house"] {
        let refused = ssh(&user, name);
        assert_ne!(refused.code, 0, "{refused}");
        assert!(!refused.out().contains("hello"), "{refused}");
    }
}
