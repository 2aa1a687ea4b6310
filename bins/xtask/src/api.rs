//! `cargo xtask api`: what the six libraries show to others, as text in the tree, so that a change of it is seen in review.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::step::{self, Failure, cargo};
use crate::{dist, tools, tree};

pub(crate) const HELP: &str = "\
Compare the public interface of each library with the text beside it, `API.txt`.

Usage: cargo xtask api [--write]

A line is an item that others can name, as rustdoc sees it with the crate's default features; implementations that the compiler
or a derive makes are left out. What is gone or changed breaks who uses it: it is for a version that may break, and a line in
CHANGELOG.md. Part of `cargo xtask lint`.

  --write   make the text say what is there
";

/// The libraries that others depend on, and where they lie.
pub(crate) const LIBRARIES: [&str; 6] = [
    "mezite-core",
    "mezite-ca",
    "mezite-rbac",
    "mezite-proxy",
    "mezite-record",
    "mezite-audit",
];

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let write = match words {
        [] => false,
        [only] if only == "--write" => true,
        [other, ..] => return Err(Failure::usage(format!("unknown option `{other}`"))),
    };
    let rustdoc = rustdoc()?;
    let mut changes = Vec::new();
    for library in LIBRARIES {
        let found = shown(library, &rustdoc)?;
        let page = tree::root().join(library).join("API.txt");
        if write {
            dist::write(&page, &found)?;
        } else {
            let kept = fs::read_to_string(&page).unwrap_or_default();
            changes.extend(differences(library, &kept, &found));
        }
    }
    if changes.is_empty() {
        println!("api: ok ({} libraries)", LIBRARIES.len());
        return Ok(());
    }
    Err(Failure::new(format!(
        "the public interface changed\n  {}\nif it is meant, `cargo xtask api --write`, and tell it in CHANGELOG.md",
        changes.join("\n  ")
    )))
}

/// Lines that are gone (`-`) and new (`+`).
fn differences(library: &str, kept: &str, found: &str) -> Vec<String> {
    let before: BTreeSet<&str> = kept.lines().collect();
    let after: BTreeSet<&str> = found.lines().collect();
    let line = |sign: char| move |text: &&str| format!("{library}: {sign} {text}");
    before
        .difference(&after)
        .map(line('-'))
        .chain(after.difference(&before).map(line('+')))
        .collect()
}

/// The interface of one library, an item a line.
fn shown(library: &str, rustdoc: &Path) -> Result<String, Failure> {
    let mut document = cargo([
        "rustdoc",
        "--quiet",
        "--locked",
        "--lib",
        "--package",
        library,
    ]);
    document
        .args(["--", "-Zunstable-options", "--output-format", "json"])
        .env("RUSTDOC", rustdoc);
    step::run("interface", &mut document)?;
    let json = tools::target()?
        .join("doc")
        .join(format!("{}.json", library.replace('-', "_")));
    let interface = public_api::Builder::from_rustdoc_json(&json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .map_err(|error| Failure::new(format!("`{}`: {error}", json.display())))?;
    Ok(format!("{interface}"))
}

/// Rustdoc's description of a crate is not stable yet, so the pinned toolchain gives it only when told so; told by this, and not in the
/// environment, the compiler and build scripts do not hear of it and build nothing anew.
fn rustdoc() -> Result<PathBuf, Failure> {
    let directory = tools::directory()?;
    let script = directory.join("rustdoc");
    let failed = |error: std::io::Error| Failure::new(format!("`{}`: {error}", script.display()));
    fs::create_dir_all(&directory).map_err(failed)?;
    dist::write(
        &script,
        "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n",
    )?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_and_what_is_new_is_named() {
        let found = differences(
            "mezite-ca",
            "pub fn a()\npub fn b()\n",
            "pub fn b()\npub fn c()\n",
        );
        assert_eq!(
            found,
            ["mezite-ca: - pub fn a()", "mezite-ca: + pub fn c()"]
        );
        assert!(differences("mezite-ca", "x\n", "x\n").is_empty());
    }
}
