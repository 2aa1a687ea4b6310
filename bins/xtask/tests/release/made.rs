//! Where the release lies that the tests look at, and how they drive programs.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// The release that `cargo xtask test` made.
pub(crate) fn release() -> PathBuf {
    let path = target().join("release-check");
    assert!(
        path.join("SHA256SUMS").exists(),
        "`{}` is missing: run `cargo xtask test`, or `cargo xtask reproduce --profile dist-check --bin mezctl` first",
        path.display()
    );
    path
}

pub(crate) fn target() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(3).unwrap().to_owned()
}

/// The one file of the release whose name ends so.
pub(crate) fn artefact(end: &str) -> PathBuf {
    let mut found = fs::read_dir(release())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let found = found.find(|path| path.to_string_lossy().ends_with(end));
    found.unwrap_or_else(|| panic!("nothing in the release ends in {end}"))
}

pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; `cargo xtask test` installs what is missing")
    })
}

/// Standard output; the command must have succeeded.
#[track_caller]
pub(crate) fn ok(command: &mut Command) -> String {
    let done = output(command);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{command:?}: {}\n{said}",
        done.status
    );
    String::from_utf8(done.stdout).unwrap()
}

pub(crate) fn version() -> String {
    let facts = fs::read_to_string(release().join("BUILDINFO")).unwrap();
    let version = facts
        .lines()
        .find_map(|line| line.strip_prefix("version: "));
    version.unwrap().to_owned()
}

/// The process of that name among what `parent` started, directly or not.
pub(crate) fn child_named(name: &str, parent: u32) -> Option<u32> {
    let mut open = vec![parent];
    while let Some(id) = open.pop() {
        let path = format!("/proc/{id}");
        if fs::read_to_string(format!("{path}/comm")).is_ok_and(|comm| comm.trim() == name) {
            return Some(id);
        }
        let children = fs::read_to_string(format!("{path}/task/{id}/children")).unwrap_or_default();
        open.extend(
            children
                .split_whitespace()
                .filter_map(|id| id.parse::<u32>().ok()),
        );
    }
    None
}
