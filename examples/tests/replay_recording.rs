//! The program on recordings does what it says.
#![cfg(feature = "record")]

use std::process::Command;

#[test]
fn replay_recording_verifies_and_shows_a_session() {
    let example = env!("CARGO_BIN_EXE_replay-recording");
    let done = Command::new(example).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{said}");
    assert!(
        said.contains("verified without a key: 1s of alice as postgres@db-1, 6 frames"),
        "{said}"
    );
    assert!(said.contains("at 600ms: postgres@db-1:~$ uptime"), "{said}");
    assert!(said.ends_with(" 12:00:01 up 3 days\r\n"), "{said:?}");
    let wrong = Command::new(example).arg("only-one").output().unwrap();
    assert!(!wrong.status.success());
}
