//! The guides' commands, run as they stand, and what they print compared.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::house::{CLUSTER, House, Way, program, run, text, write};

#[test]
fn the_guide_to_access_rules_does_what_it_says() {
    let house = House::start();
    let place = Place::new(&house);
    for step in steps(include_str!("../../../../mezite-rbac/GUIDE.md")) {
        match step {
            Step::File { name, text } => write(&place.directory.join(name), text),
            Step::Command { line, expected } => {
                if line.contains("$EVENT") {
                    place.refuse(&house);
                }
                place.run(&line, &expected);
            }
        }
    }
}

#[test]
fn the_guide_to_hardening_does_what_it_says() {
    let house = House::start();
    let place = Place::new(&house);
    let process = house.with_hub(|child| child.id());
    write(&place.directory.join("hub.pid"), process.to_string());
    let copy = |from: PathBuf, name: &str| std::fs::copy(from, place.directory.join(name)).unwrap();
    copy(house.path("mezite.yaml"), "mezite.yaml");
    for unit in ["mezhub.service", "mezd.service"] {
        copy(crate::hardening::units().join(unit), unit);
    }
    for step in steps(include_str!("../../HARDENING.md")) {
        match step {
            Step::File { name, text } => {
                // What it adds to a configuration is taken by the hub, together with the rest.
                let config = std::fs::read_to_string(house.path("mezite.yaml")).unwrap() + &text;
                write(&place.directory.join(&name), config);
                place.run(
                    &format!("mezhub start --show-hardening --config {name} -o json | grep -c '\"not_supported\"'"),
                    &[String::from("0"), String::from("[exit 1]")],
                );
            }
            Step::Command { line, expected } => place.run(&line, &expected),
        }
    }
}

/// What a page tells its reader to do.
enum Step {
    /// A block of YAML whose first line names its file.
    File { name: String, text: String },
    /// A line after `$` and what comes of it, up to the next.
    Command { line: String, expected: Vec<String> },
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let block = |lines: &mut std::str::Lines<'_>| -> Vec<String> {
            let inside = lines.by_ref().take_while(|line| *line != "```");
            inside.map(str::to_owned).collect()
        };
        match line {
            "```yaml" => {
                let inside = block(&mut lines);
                let name = inside[0].strip_prefix("# ").unwrap().to_owned();
                let text = inside.join("\n") + "\n";
                steps.push(Step::File { name, text });
            }
            "```console" => {
                for line in block(&mut lines) {
                    match (line.strip_prefix("$ "), steps.last_mut()) {
                        (Some(command), _) => steps.push(Step::Command {
                            line: command.to_owned(),
                            expected: Vec::new(),
                        }),
                        (None, Some(Step::Command { expected, .. })) => expected.push(line),
                        (None, _) => panic!("`{line}` belongs to no command"),
                    }
                }
            }
            other => assert!(
                !other.starts_with("```"),
                "a block that nobody checks: {other}"
            ),
        }
    }
    steps
}

/// Where a reader works.
struct Place {
    directory: PathBuf,
    socket: PathBuf,
}

impl Place {
    fn new(house: &House) -> Self {
        let directory = house.path("guide");
        std::fs::create_dir(&directory).unwrap();
        Self {
            directory,
            socket: house.path("hub/mezctl.sock"),
        }
    }

    #[track_caller]
    fn run(&self, line: &str, expected: &[String]) {
        let programs = program("mezctl");
        let programs = programs.parent().map(Path::to_owned).unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(programs).chain(std::env::split_paths(&path));
        let event = std::fs::read_to_string(self.directory.join("EVENT")).unwrap_or_default();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", line])
            .current_dir(&self.directory)
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("MEZITE_SOCKET", &self.socket)
            .env("HOME", &self.directory)
            .env("EVENT", event);
        let done = run(&mut shell);
        let mut found = done.out() + &done.err();
        if done.code != 0 {
            found.push_str(&format!("[exit {}]\n", done.code));
        }
        let found: Vec<&str> = found.lines().collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        assert!(
            fits(&expected, &found),
            "$ {line}\nexpected:\n{}\nfound:\n{}",
            expected.join("\n"),
            found.join("\n")
        );
    }

    /// What the guide's reader has seen by then: alice was refused, and names the id.
    fn refuse(&self, house: &House) {
        let made = house
            .mezctl(&["users", "passwd", "alice", "-o", "json"])
            .json();
        let (_, pin) = house.token(&[]);
        let user = house.known_user("alice", text(&made, "password"), pin);
        user.log_in(&[]).ok();
        let mut ssh = user.openssh("ssh", Way::Proxy);
        let target = format!("root@web-01.{CLUSTER}");
        run(ssh.args([&target, "true"])).fails(255, &["ask an administrator"]);
        let event = house.events_of("alice", "authz.denied").remove(0);
        write(&self.directory.join("EVENT"), text(&event, "id"));
    }
}

/// Whether the lines are as expected; `…` alone stands for any lines, within one for any text.
fn fits(expected: &[&str], found: &[&str]) -> bool {
    match (expected, found) {
        ([], []) => true,
        (["…", rest @ ..], _) => (0..=found.len()).any(|skip| fits(rest, &found[skip..])),
        ([line, expected @ ..], [text, found @ ..]) => is_like(line, text) && fits(expected, found),
        _ => false,
    }
}

fn is_like(expected: &str, found: &str) -> bool {
    match expected.split_once('…') {
        None => expected == found,
        Some((before, after)) => found
            .strip_prefix(before)
            .is_some_and(|rest| rest.ends_with(after)),
    }
}

#[test]
fn an_ellipsis_stands_for_what_varies_and_nothing_else_does() {
    assert!(fits(&["a", "…", "c…e"], &["a", "b", "b", "cde"]));
    assert!(fits(&["…"], &[]));
    for (expected, found) in [
        (&["a"][..], &["b"][..]),
        (&["a"], &["a", "b"]),
        (&["a", "b"], &["a"]),
        (&["…", "b"], &["a"]),
        (&["a…"], &["ba"]),
    ] {
        assert!(!fits(expected, found), "{expected:?} {found:?}");
    }
}
