//! `cargo xtask lint`: everything that can be said about the tree without running a test.

use crate::step::{self, Failure, cargo};
use crate::{api, attacks, fence, supply};

pub(crate) const HELP: &str = "\
Format, clippy, docs, fence, attacks, toolchain, supply chain, the libraries' interfaces, and each pure crate compiled on its own.

Usage: cargo xtask lint [--locked] [--offline]

  --locked    fail when Cargo.lock would change
  --offline   do not touch the network
";

pub(crate) const HELP_CI: &str = "\
What CI runs: `cargo xtask lint`, then `cargo xtask test`.

Usage: cargo xtask ci [--locked] [--offline]
";

pub(crate) fn run(options: &[String]) -> Result<(), Failure> {
    if let Some(other) = options
        .iter()
        .find(|word| !["--locked", "--offline"].contains(&word.as_str()))
    {
        return Err(Failure::usage(format!(
            "unknown option `{other}`; known are `--locked` and `--offline`"
        )));
    }
    step::run("format", &mut cargo(["fmt", "--all", "--check"]))?;
    fence::run(&[])?;
    attacks::run(&[])?;
    supply::toolchain()?;
    supply::deny(&[])?;
    let mut clippy = cargo(["clippy", "--workspace", "--all-targets"]);
    step::run(
        "clippy",
        clippy.args(options).args(["--", "-D", "warnings"]),
    )?;
    let mut docs = cargo(["doc", "--workspace", "--no-deps"]);
    step::run(
        "docs",
        docs.args(options).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    for package in fence::PURE {
        step::run(
            "alone",
            cargo(["check", "--package", package]).args(options),
        )?;
    }
    api::run(&[])?;
    println!("lint: ok");
    Ok(())
}
