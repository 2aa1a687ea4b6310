//! What comes into the house from outside: licences, sources and duplicates by deny.toml, and the oldest versions and toolchain that
//! the manifests promise to work with.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::step::{self, Failure, cargo};
use crate::{dist, tools, tree};

pub(crate) const HELP_DENY: &str = "\
Check licences, sources and duplicates of what Cargo.lock names, by deny.toml, with cargo-deny.

Usage: cargo xtask deny

Part of `cargo xtask lint`. The tool is installed once, below the target directory.
";

/// The rules of deny.toml that need no network.
pub(crate) fn deny(words: &[String]) -> Result<(), Failure> {
    if let Some(other) = words.first() {
        return Err(Failure::usage(format!("unknown option `{other}`")));
    }
    tools::provide(tools::DENY)?;
    let program = tools::directory()?.join("cargo-deny/bin/cargo-deny");
    let mut deny = Command::new(program);
    deny.current_dir(tree::root()).args([
        "--locked",
        "--offline",
        "check",
        "--hide-inclusion-graph",
        // An exception that nothing needs any more, too.
        "--deny",
        "warnings",
        "licenses",
        "bans",
        "sources",
    ]);
    step::run("supply chain", &mut deny)
}

/// The toolchain that CI uses is the oldest one that the manifests allow, so that what builds here is what was promised; and
/// no dependency wants a newer one.
pub(crate) fn toolchain() -> Result<(), Failure> {
    let text = step::read(&mut cargo([
        "metadata",
        "--format-version",
        "1",
        "--locked",
    ]))?;
    let metadata: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("`cargo metadata` is not JSON: {error}")))?;
    let pinned = dist::pinned_toolchain()?;
    let faults = faults(&metadata, &pinned);
    if faults.is_empty() {
        println!("toolchain: ok ({pinned} is what the manifests promise)");
        return Ok(());
    }
    Err(Failure::new(format!(
        "the toolchain does not fit\n  {}",
        faults.join("\n  ")
    )))
}

fn faults(metadata: &Value, pinned: &str) -> Vec<String> {
    let packages = metadata.get("packages").and_then(Value::as_array);
    let text = |package: &Value, key: &str| {
        let value = package.get(key).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let mut faults = Vec::new();
    for package in packages.into_iter().flatten() {
        let (name, wanted) = (text(package, "name"), text(package, "rust_version"));
        let ours = package.get("source").is_none_or(Value::is_null);
        if ours && numbers(&wanted) != numbers(pinned) {
            faults.push(format!(
                "`{name}` promises to build with Rust `{wanted}`, but rust-toolchain.toml pins {pinned}: nothing shows that it does"
            ));
        } else if !ours && numbers(&wanted) > numbers(pinned) {
            faults.push(format!("`{name}` wants Rust {wanted}, newer than {pinned}"));
        }
    }
    faults
}

/// `1.95` is `1.95.0`.
fn numbers(version: &str) -> [u64; 3] {
    let mut numbers = [0; 3];
    for (number, part) in numbers.iter_mut().zip(version.split('.')) {
        *number = part.parse().unwrap_or_default();
    }
    numbers
}

pub(crate) const HELP_MINIMAL: &str = "\
Check that the oldest versions of our dependencies that Cargo.toml allows are enough.

Usage: cargo xtask minimal

In a copy of the tree a lock file is made that takes the lowest version of every direct dependency, and the programs and
libraries are checked with it. Takes some minutes; part of `cargo xtask test --full`.
";

pub(crate) fn minimal(words: &[String]) -> Result<(), Failure> {
    if let Some(other) = words.first() {
        return Err(Failure::usage(format!("unknown option `{other}`")));
    }
    let place = tools::target()?.join("minimal");
    tree::copy(&place.join("tree"))?;
    let in_copy = |words: &[&str]| {
        let mut command = cargo([]);
        command
            .args(words)
            .current_dir(place.join("tree"))
            .env("CARGO_TARGET_DIR", place.join("target"))
            .env_remove("CARGO_MANIFEST_DIR");
        command
    };
    let lock = place.join("tree/Cargo.lock");
    remove(&lock)?;
    let mut choose = in_copy(&["generate-lockfile", "-Zdirect-minimal-versions"]);
    step::run("lowest versions", choose.env("RUSTC_BOOTSTRAP", "1"))?;
    step::run(
        "check",
        &mut in_copy(&["check", "--locked", "--workspace", "--exclude", "xtask"]),
    )
}

fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("`{}`: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_promise_that_nobody_checks_and_a_newer_need_are_faults() {
        let packages = |ours: &str, theirs: &str| {
            json!({ "packages": [
                { "name": "mezhub", "rust_version": ours, "source": null },
                { "name": "serde", "rust_version": theirs, "source": "registry" },
                { "name": "old", "rust_version": null, "source": "registry" },
            ]})
        };
        assert!(faults(&packages("1.95", "1.60.1"), "1.95.0").is_empty());
        assert!(faults(&packages("1.90", "1.60"), "1.95.0")[0].contains("mezhub"));
        assert!(faults(&packages("1.95", "1.95.1"), "1.95.0")[0].contains("serde"));
    }
}
