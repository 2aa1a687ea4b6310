//! BUILDINFO: everything that the bytes of the programs depend on, so that a stranger can make the same ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::recipe::{self, Recipe};
use super::{Release, TARGET, read, sha256};
use crate::step::{self, Failure};
use crate::tree;

pub(crate) const NAME: &str = "BUILDINFO";

/// `key: value` lines; no time, no user, no machine.
pub(crate) fn write(
    out: &Path,
    release: &Release,
    recipe: &Recipe,
    prebuilt: bool,
) -> Result<(), Failure> {
    let (rustflags, cflags) = recipe.flags();
    let libc = libc();
    let mut lines = vec![
        ("format", String::from("1")),
        ("version", release.version.clone()),
        (
            "commit",
            release
                .commit
                .clone()
                .unwrap_or_else(|| String::from("unknown")),
        ),
        (
            "tree",
            String::from(if release.changed {
                "changed since the commit"
            } else {
                "as the commit"
            }),
        ),
        ("source-date-epoch", release.epoch.to_string()),
        ("compiled-as-of", recipe::DATE.to_owned()),
        ("target", TARGET.to_owned()),
        ("profile", recipe.profile.clone()),
        (
            "cargo-lock-sha256",
            sha256(&read(&tree::root().join("Cargo.lock"))?),
        ),
        ("rustc", first_line(recipe::rustc().arg("--version"))),
        ("cc", first_line(Command::new("cc").arg("--version"))),
        ("ld", first_line(Command::new("ld").arg("--version"))),
        (
            "libc-package",
            libc_version().unwrap_or_else(|| String::from("unknown")),
        ),
        (
            "libc.a-sha256",
            libc.map_or_else(|| String::from("unknown"), |bytes| sha256(&bytes)),
        ),
        ("rustflags", rustflags),
        ("cflags", cflags),
    ];
    if prebuilt {
        lines.push((
            "programs",
            String::from("not built by this run (--prebuilt)"),
        ));
    }
    let text: String = lines
        .iter()
        .map(|(key, value)| format!("{key}: {value}\n"))
        .collect();
    super::write(&out.join(NAME), text)
}

/// The static C library, which is part of every program.
fn libc() -> Option<Vec<u8>> {
    let path = step::read(Command::new("cc").arg("-print-file-name=libc.a")).ok()?;
    std::fs::read(PathBuf::from(path.trim())).ok()
}

/// Which version of it the system's packages say it is.
pub(crate) fn libc_version() -> Option<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Version}", "libc6-dev"]);
    step::read(&mut query).ok()
}

fn first_line(command: &mut Command) -> String {
    let text = step::read(command).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}
