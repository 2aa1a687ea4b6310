//! `cargo xtask`: the tools of this repository behind one door. CI calls the same commands.
//!
//! This file holds the door only: it reads the command's name and hands the rest of the line on.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer tool speaks to its terminal"
)]

mod api;
mod attacks;
mod audit;
mod bench;
mod dist;
mod fence;
mod fuzz;
mod lint;
mod needs;
mod reproduce;
mod sign;
mod step;
mod suite;
mod supply;
mod tools;
mod tree;

use std::process::ExitCode;

use step::Failure;

const HELP: &str = "\
The tools of this repository.

Usage: cargo xtask COMMAND [OPTIONS]

Commands:
  lint      format, clippy, docs, fence, attacks, toolchain, deny, api, and each pure crate on its own
  fence     the dependency and source rules of ARCHITECTURE.md, executed
  test      install what the tests need (Debian, Ubuntu), build the programs, run every test
  ci        lint, then test
  attacks   check ATTACKS.md against the tests in the tree
  bench     measure direct, `ssh -J` and the Mezite gateway side by side
  fuzz      run the fuzz targets, each for a while
  deny      check licences, sources and duplicates with cargo-deny
  dist      build what is released: programs, packages, image, what tells where they come from
  api       compare the libraries' public interfaces with the text in the tree
  audit     look for known vulnerabilities in what Cargo.lock names, offline
  minimal   check the oldest versions of dependencies that the manifests allow
  reproduce build twice and compare the bytes
  sign      sign what `dist` made
  help      this text

`cargo xtask COMMAND --help` says more. A failing step prints the command that reproduces it.
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(command) = arguments.next() else {
        eprint!("{HELP}");
        return ExitCode::from(2);
    };
    let rest: Vec<String> = arguments.collect();
    match run(&command, &rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cargo xtask {command}: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(command: &str, rest: &[String]) -> Result<(), Failure> {
    let help = match command {
        "api" => api::HELP,
        "attacks" => attacks::HELP,
        "audit" => audit::HELP,
        "bench" => bench::HELP,
        "ci" => lint::HELP_CI,
        "deny" => supply::HELP_DENY,
        "dist" => dist::HELP,
        "fence" => fence::HELP,
        "fuzz" => fuzz::HELP,
        "lint" => lint::HELP,
        "minimal" => supply::HELP_MINIMAL,
        "reproduce" => reproduce::HELP,
        "sign" => sign::HELP,
        "test" => suite::HELP,
        "help" | "--help" | "-h" => HELP,
        other => {
            return Err(Failure::usage(format!(
                "unknown command `{other}`; `cargo xtask help` lists them"
            )));
        }
    };
    if help == HELP || asks_for_help(rest) {
        print!("{help}");
        return Ok(());
    }
    match command {
        "api" => api::run(rest),
        "attacks" => attacks::run(rest),
        "audit" => audit::run(rest),
        "bench" => bench::run(rest),
        "ci" => lint::run(rest).and_then(|()| suite::run(rest)),
        "deny" => supply::deny(rest),
        "dist" => dist::run(rest),
        "fence" => fence::run(rest),
        "fuzz" => fuzz::run(rest),
        "lint" => lint::run(rest),
        "minimal" => supply::minimal(rest),
        "reproduce" => reproduce::run(rest),
        "sign" => sign::run(rest),
        _ => suite::run(rest),
    }
}

/// `--help` before a `--`: what stands behind it belongs to the test programs.
fn asks_for_help(rest: &[String]) -> bool {
    rest.iter()
        .take_while(|word| *word != "--")
        .any(|word| word == "--help" || word == "-h")
}
