//! What stock `ssh` makes of the line by which it trusts a cluster, and of lines that nearly are it.

use std::fs;

use crate::house::{CLUSTER, House, Way, run, write};

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
