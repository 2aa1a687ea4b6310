//! `cargo xtask reproduce`: the programs built twice, in two directories, at two times, with everything of a user's own exchanged,
//! and compared byte by byte.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dist::{self, PROGRAMS};
use crate::step::{self, Failure};
use crate::{tools, tree};

pub(crate) const HELP: &str = "\
Build twice and compare the bytes.

Usage: cargo xtask reproduce [--profile NAME] [--bin NAME]…

First everything is built in a copy of this tree, as `cargo xtask dist` does, into `release-check` in the target directory; then the
programs named (all, by default) in another copy, by another user (bubblewrap) of a machine with another name, with another home
and target directory; only the toolchain and the archives of crates are the same. Every file of the second release has to be as in
the first.

  --profile NAME   as of `cargo xtask dist`
  --bin NAME       which programs to build the second time
";

/// Where the first build's release lies, in the target directory; tests of what is released take it from there.
pub(crate) const RELEASE: &str = "release-check";

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let (mut profile, mut bins) = (String::from("dist"), Vec::new());
    for pair in words.chunks(2) {
        match pair {
            [name, value] if name == "--profile" => profile.clone_from(value),
            [name, value] if name == "--bin" => bins.push(value.clone()),
            _ => {
                return Err(Failure::usage(
                    "known are `--profile NAME` and `--bin NAME`",
                ));
            }
        }
    }
    if bins.is_empty() {
        bins = PROGRAMS.map(String::from).to_vec();
    }
    let target = tools::target()?;
    let first = target.join(RELEASE);
    let place = target.join("reproduce");
    let second = place.join("out");
    for old in [&first, &second] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(|error| failed(old, &error))?;
        }
    }
    // From copies that stay where they are, so that cargo builds anew what changed and no more, wherever this tree lies.
    let (own, other) = (place.join("own/tree"), place.join("tree"));
    for tree in [&own, &other] {
        tree::copy(tree)?;
    }
    let program = place.join("xtask");
    this_program(&program)?;
    let mut build = dist_command(&program, &profile, &first);
    in_tree(&mut build, &own);
    step::run("first build", build.env("CARGO_TARGET_DIR", &target))?;
    let mut build = dist_command(&program, &profile, &second);
    for name in &bins {
        build.args(["--bin", name]);
    }
    let mut build = by_another_user(&build, &place)?;
    in_tree(&mut build, &other);
    build.env("SOURCE_DATE_EPOCH", dist::epoch_of(&first)?);
    step::run("second build", &mut build)?;
    compare(&first, &second, bins.len() == PROGRAMS.len())
}

/// Every file of the second release is in the first, byte by byte; a release of some programs only has another list.
fn compare(first: &Path, second: &Path, whole: bool) -> Result<(), Failure> {
    let mut different = Vec::new();
    for name in dist::names(second)? {
        if name == dist::SUMS && !whole {
            continue;
        }
        let (one, two) = (first.join(&name), second.join(&name));
        let bytes = dist::read(&one)?;
        if bytes == dist::read(&two)? {
            println!(
                "reproduce: {name} {} bytes, sha256 {}",
                bytes.len(),
                dist::sha256(&bytes)
            );
        } else {
            different.push(format!(
                "`{}` and `{}` differ",
                one.display(),
                two.display()
            ));
        }
    }
    if different.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the same sources gave other bytes\n  {}",
        different.join("\n  ")
    )))
}

/// A copy of this program, so that both builds go the way that a release goes. Where it was started from, cargo may have put
/// another meanwhile.
fn this_program(copy: &Path) -> Result<(), Failure> {
    // What runs is not written to.
    drop(fs::remove_file(copy));
    fs::copy("/proc/self/exe", copy).map_err(|error| failed(copy, &error))?;
    Ok(())
}

fn dist_command(program: &Path, profile: &str, out: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["dist", "--profile", profile, "--out"])
        .arg(out);
    command
}

/// Another target directory, home, registry cache, user and machine; of the first user's only the toolchain and the archives of
/// crates, so that nothing is fetched twice.
fn by_another_user(build: &Command, place: &Path) -> Result<Command, Failure> {
    let home = place.join("home");
    let cargo = home.join("cargo");
    let registry = cargo.join("registry");
    fs::create_dir_all(&registry).map_err(|error| failed(&registry, &error))?;
    let own = std::env::home_dir().unwrap_or_default();
    let of = |name: &str, default: &str| {
        std::env::var_os(name).map_or_else(|| own.join(default), PathBuf::from)
    };
    for part in ["cache", "index"] {
        let (from, to) = (
            of("CARGO_HOME", ".cargo").join("registry").join(part),
            registry.join(part),
        );
        if !to.exists() {
            symlink(&from, &to).map_err(|error| failed(&to, &error))?;
        }
    }
    let mut other = Command::new("bwrap");
    other
        .args(["--dev-bind", "/", "/", "--die-with-parent"])
        .args(["--unshare-user", "--uid", "4321", "--gid", "4321"])
        .args(["--unshare-uts", "--hostname", "elsewhere"])
        .arg(build.get_program())
        .args(build.get_args())
        .env("CARGO_TARGET_DIR", place.join("target"))
        .env("CARGO_HOME", cargo)
        .env("HOME", home)
        .env("USER", "somebody-else")
        .env("LANG", "de_DE.UTF-8")
        .env("TZ", "Pacific/Kiritimati");
    let rustup = of("RUSTUP_HOME", ".rustup");
    if rustup.exists() {
        other.env("RUSTUP_HOME", rustup);
    }
    Ok(other)
}

/// Builds in a copy of this tree, with this tree's history, if it has one.
fn in_tree(build: &mut Command, tree: &Path) {
    build
        .current_dir(tree)
        .env("CARGO_MANIFEST_DIR", tree.join("bins/xtask"));
    let mut history = Command::new("git");
    history
        .arg("-C")
        .arg(tree::root())
        .args(["rev-parse", "--absolute-git-dir"]);
    if let Ok(history) = step::read(&mut history) {
        build
            .env("GIT_DIR", history.trim())
            .env("GIT_WORK_TREE", tree)
            .env("GIT_OPTIONAL_LOCKS", "0");
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("`{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_81_one_other_byte_in_any_file_is_found() {
        let place = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| place.path().join(name));
        for release in [&first, &second] {
            fs::create_dir(release).unwrap();
            for name in ["mezctl", "BUILDINFO", dist::SUMS] {
                fs::write(release.join(name), name).unwrap();
            }
        }
        compare(&first, &second, true).unwrap();
        fs::write(second.join("BUILDINFO"), "BUILDINFo").unwrap();
        let said = compare(&first, &second, false).unwrap_err().to_string();
        assert!(
            said.contains("BUILDINFO") && !said.contains("mezctl"),
            "{said}"
        );
        fs::write(second.join("BUILDINFO"), "BUILDINFO").unwrap();
        fs::write(second.join(dist::SUMS), "other").unwrap();
        compare(&first, &second, false).unwrap();
        compare(&first, &second, true).unwrap_err();
        fs::write(second.join("msh"), "not in the first").unwrap();
        compare(&first, &second, false).unwrap_err();
    }
}
