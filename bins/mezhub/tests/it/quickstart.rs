//! `mezhub quickstart`: the one command for newcomers.

use std::path::Path;
use std::process::Command;

use crate::house::{Done, login, noise, program, run, run_with, stock};

fn quickstart(directory: &Path, command: &[&str]) -> Command {
    let mut quickstart = Command::new(program("mezhub"));
    quickstart
        .arg("quickstart")
        .arg("--data-dir")
        .arg(directory)
        .arg("--")
        .args(command)
        .env_remove("HOME")
        .env_remove("RUST_LOG");
    quickstart
}

/// The four closing lines, checked; gives session, recording and number of events, and what stood before.
#[track_caller]
fn closing(done: &Done) -> (String, String, u64, String) {
    let said = done.err();
    let lines: Vec<&str> = said.lines().collect();
    let (before, last) = lines.split_at(lines.len().saturating_sub(4));
    let values: Vec<&str> = ["session: ", "recording: ", "events: ", "audit: "]
        .iter()
        .zip(last)
        .map(|(start, line)| {
            line.strip_prefix(start)
                .unwrap_or_else(|| panic!("no `{start}` in {done}"))
        })
        .collect();
    assert_eq!(values[3], "verified", "{done}");
    assert!(Path::new(values[1]).is_file(), "{done}");
    (
        values[0].to_owned(),
        values[1].to_owned(),
        values[2].parse().unwrap(),
        before.join("\n"),
    )
}

#[test]
fn streams_and_exit_code_are_passed_and_the_closing_lines_are_stable() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let done = run(&mut quickstart(
        &data,
        &["sh", "-c", "echo out; echo err >&2; exit 7"],
    ));
    assert_eq!(done.code, 7, "{done}");
    assert_eq!(done.out(), "out\n", "{done}");
    let (session, recording, events, before) = closing(&done);
    assert_eq!(before, "err", "{done}");
    assert!(recording.contains(&session), "{done}");
    assert!(events > 10, "{done}");
}

#[test]
fn standard_input_is_passed_byte_by_byte() {
    let directory = tempfile::tempdir().unwrap();
    let sent = noise("quickstart", 700_000);
    let done = run_with(&mut quickstart(directory.path(), &["cat"]), &sent);
    assert_eq!(done.code, 0, "{}", done.err());
    assert!(done.stdout == sent, "{} bytes came back", done.stdout.len());
}

#[test]
fn a_second_run_goes_on_with_the_same_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("mezctl.sock");
    let (mezctl, socket) = (program("mezctl"), socket.display().to_string());
    let ask = [
        mezctl.to_str().unwrap(),
        "--socket",
        &socket,
        "ca",
        "export",
    ];
    let first = run(&mut quickstart(directory.path(), &ask));
    let second = run(&mut quickstart(directory.path(), &ask));
    let (first_session, first_recording, first_events, _) = closing(&first);
    let (second_session, _, second_events, _) = closing(&second);
    assert_ne!(first_session, second_session);
    assert!(first_events < second_events);
    assert!(Path::new(&first_recording).is_file());
    let (first, second) = (first.json(), second.json());
    assert!(first["session"].is_array(), "{first}");
    assert_eq!(first, second, "the authorities changed");
}

#[test]
fn stock_ssh_comes_in_again_while_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("client/ssh_config");
    let target = format!("{}@node", login());
    let again = [
        "ssh",
        "-F",
        config.to_str().unwrap(),
        &target,
        "echo again; exit 3",
    ];
    let done = run(&mut quickstart(directory.path(), &again));
    assert_eq!((done.code, done.out().as_str()), (3, "again\n"), "{done}");
}

#[test]
fn a_second_one_at_the_same_time_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let inner = quickstart(directory.path(), &["true"]);
    let words = std::iter::once(inner.get_program()).chain(inner.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
    let done = run(&mut quickstart(directory.path(), &words));
    assert_eq!(done.code, 255, "{done}");
    assert!(
        done.err().contains("another hub has the database"),
        "{done}"
    );
}

#[test]
fn without_a_home_a_directory_is_asked_for() {
    let mut command = Command::new(program("mezhub"));
    let done = run(command
        .args(["quickstart", "--", "true"])
        .env_remove("HOME"));
    done.fails(255, &["HOME is not set", "--data-dir"])
        .in_one_line();
}

#[test]
fn the_default_directory_is_private_below_home() {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("mezhub"));
    let done = run(command
        .args(["quickstart", "--", "true"])
        .env("HOME", home.path()));
    assert_eq!(done.code, 0, "{done}");
    let data = home.path().join(".local/share/mezite/quickstart");
    let facts = run(stock("stat").args(["-c", "%a"]).arg(&data)).ok();
    assert_eq!(facts.trim(), "700");
}
