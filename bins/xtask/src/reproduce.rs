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

First everything is built in this tree, as `cargo xtask dist` does, into `release-check` in the target directory; then the programs named
(all, by default) in a copy of the tree, with another home, registry cache and target directory, none of them shared.

  --profile NAME   as of `cargo xtask dist`
  --bin NAME       which programs to build the second time
";

/// Where the first build's release lies, in the target directory; tests of what is released take it from there.
const RELEASE: &str = "release-check";

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
    let mut build = dist_command(&profile, &first)?;
    step::run("first build", &mut build)?;
    tree::copy(&place.join("tree"))?;
    let mut build = dist_command(&profile, &second)?;
    for name in &bins {
        build.args(["--bin", name]);
    }
    let epoch = dist::epoch_of(&first)?;
    another_user(&mut build, &place)?;
    build.env("SOURCE_DATE_EPOCH", epoch);
    step::run("second build", &mut build)?;
    let mut different = Vec::new();
    for name in &bins {
        let (one, two) = (
            dist::read(&first.join(name))?,
            dist::read(&second.join(name))?,
        );
        if one == two {
            println!(
                "reproduce: {name} {} bytes, sha256 {}",
                one.len(),
                dist::sha256(&one)
            );
        } else {
            different.push(format!(
                "`{}` and `{}` differ",
                first.join(name).display(),
                second.join(name).display()
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

/// This program again, so that both builds go the way that a release goes.
fn dist_command(profile: &str, out: &Path) -> Result<Command, Failure> {
    let own = std::env::current_exe()
        .map_err(|error| Failure::new(format!("cannot find this program: {error}")))?;
    let mut command = Command::new(own);
    command
        .args(["dist", "--profile", profile, "--out"])
        .arg(out);
    Ok(command)
}

/// Another tree, target directory, home, registry cache and name; of the first user's only the toolchain, and the archives of
/// crates, so that nothing is fetched twice.
fn another_user(build: &mut Command, place: &Path) -> Result<(), Failure> {
    let home = place.join("home");
    let cargo = home.join("cargo");
    let registry = cargo.join("registry");
    fs::create_dir_all(&registry).map_err(|error| failed(&registry, &error))?;
    let own = std::env::home_dir().unwrap_or_default();
    let of = |name: &str, default: &str| {
        std::env::var_os(name).map_or_else(|| own.join(default), PathBuf::from)
    };
    let rustup = of("RUSTUP_HOME", ".rustup");
    if rustup.exists() {
        build.env("RUSTUP_HOME", rustup);
    }
    for part in ["cache", "index"] {
        let (from, to) = (
            of("CARGO_HOME", ".cargo").join("registry").join(part),
            registry.join(part),
        );
        if !to.exists() {
            symlink(&from, &to).map_err(|error| failed(&to, &error))?;
        }
    }
    build
        .current_dir(place.join("tree"))
        .env("CARGO_MANIFEST_DIR", place.join("tree/bins/xtask"))
        .env("CARGO_TARGET_DIR", place.join("target"))
        .env("CARGO_HOME", cargo)
        .env("HOME", home)
        .env("USER", "somebody-else")
        .env("LANG", "de_DE.UTF-8")
        .env("TZ", "Pacific/Kiritimati");
    Ok(())
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("`{}`: {error}", path.display()))
}
