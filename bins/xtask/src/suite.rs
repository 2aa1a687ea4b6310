//! `cargo xtask test`: the whole suite on a machine that was made ready for it, with one closing line.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::needs;
use crate::reproduce;
use crate::step::{self, Failure, Stopwatch, cargo};
use crate::supply;
use crate::tools;

pub(crate) const HELP: &str = "\
Make the machine ready, build the programs, run every test.

Usage: cargo xtask test [--full] [CARGO TEST OPTIONS] [-- TEST PROGRAM OPTIONS]

On Debian and Ubuntu, as root, missing programs (OpenSSH, PostgreSQL, rsync, git, asciinema, xauth, tmux) are installed
with apt-get. Elsewhere the command says what to install and fails: it never leaves a test out. Tools in a
version of the tests' own (moto, paramiko, asciinema 3) are installed once, below the target directory. An
ignored test counts as a failure. Everything after `test` is handed to `cargo test`; without
`-p PACKAGE` the whole workspace is tested. Where nothing is left out, a release is built without optimisation, one program of it by
another user once more, and what is released is installed, run and verified, on a Debian that is booted for it; that asks for root.

With `--full` the crash tests kill hub and database 1,000 times each, and the hub under a busy session 500 times, which takes two hours
or three; the oldest dependencies that the manifests allow are tried; the release is as it is shipped, all of it built twice; and the
end-to-end tests run on its programs once more.

  cargo xtask test
  cargo xtask test -p mezite-rbac
  cargo xtask test -p mezhub -- end_to_end
";

/// Packages whose tests drive the programs, so that these must be built before.
const DRIVERS: [&str; 5] = ["mezhub", "mezd", "msh", "mezctl", "mezite-examples"];

/// Read by the crash tests: how often they kill.
const CRASHES: &str = "MEZITE_CRASHES";

pub(crate) fn run(options: &[String]) -> Result<(), Failure> {
    let (full, options): (Vec<_>, Vec<_>) =
        options.iter().cloned().partition(|word| word == "--full");
    let options = options.as_slice();
    let full = !full.is_empty();
    // Who names packages or tests wants these.
    let whole = full || build_options(options).len() == options.len();
    let watch = Stopwatch::start();
    needs::provide(needs::TESTS)?;
    tools::provide(tools::TESTS)?;
    if whole {
        needs::provide(needs::RELEASE)?;
        tools::provide(tools::RELEASE)?;
    }
    let packages = named_packages(options);
    if packages.is_empty() || packages.iter().any(|name| DRIVERS.contains(name)) {
        step::run(
            "programs",
            cargo(["build", "--workspace", "--bins"]).args(build_options(options)),
        )?;
    }
    let mut tests = cargo(["test", "--no-fail-fast"]);
    if packages.is_empty() {
        tests.arg("--workspace");
    }
    if full {
        tests.env(CRASHES, "1000");
    }
    let mut tally = Tally::default();
    let mut failed = Vec::new();
    let mut run = |tests: &mut Command| {
        if !counted(tests, &mut tally)? {
            failed.push(step::shown(tests));
        }
        Ok(())
    };
    run(tests.args(options))?;
    let released = match whole {
        true => release(full),
        false => Ok(Vec::new()),
    };
    match released {
        Ok(of_release) => {
            for mut tests in of_release {
                run(&mut tests)?;
            }
        }
        Err(failure) => failed.push(failure.to_string()),
    }
    let seconds = watch.elapsed().as_secs_f64();
    if failed.is_empty() && tally.failed == 0 && tally.ignored == 0 && tally.programs > 0 {
        println!("test: ok. {tally}, {seconds:.0} s");
        return Ok(());
    }
    println!("test: FAILED. {tally}, {seconds:.0} s");
    Err(Failure::new(if !failed.is_empty() {
        format!("tests failed; reproduce with\n  {}", failed.join("\n  "))
    } else if tally.ignored > 0 {
        String::from("some tests were ignored; the suite leaves nothing out")
    } else {
        String::from("no test program ran")
    }))
}

/// Builds what is released twice; gives the tests that look at it as those do who install it.
fn release(full: bool) -> Result<Vec<Command>, Failure> {
    let mut tests = cargo(["test", "--locked", "--no-fail-fast", "--package", "xtask"]);
    tests.args(["--test", "release"]);
    if !full {
        reproduce::run(&["--profile", "dist-check", "--bin", "mezctl"].map(String::from))?;
        return Ok(vec![tests]);
    }
    supply::minimal(&[])?;
    reproduce::run(&[])?;
    let mut whole = cargo(["test", "--locked", "--no-fail-fast", "--package", "mezhub"]);
    whole
        .args(["--test", "it"])
        .env("MEZITE_PROGRAMS", tools::target()?.join(reproduce::RELEASE));
    Ok(vec![tests, whole])
}

/// Runs the tests, shows every line as it comes, counts the results; true when cargo says success.
fn counted(command: &mut Command, tally: &mut Tally) -> Result<bool, Failure> {
    eprintln!("==> tests: {}", step::shown(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| step::not_started(command, &error))?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(|error| {
                Failure::new(format!("cannot read what the tests print: {error}"))
            })?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            tally.read(&line);
        }
    }
    let status = child
        .wait()
        .map_err(|error| Failure::new(format!("cannot wait for `cargo test`: {error}")))?;
    Ok(status.success())
}

/// The options that the build of the programs must share with the tests, so that both mean the same files.
fn build_options(options: &[String]) -> Vec<&String> {
    let mut shared = Vec::new();
    let mut words = options.iter().take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        match word.as_str() {
            "--release" | "-r" | "--locked" | "--offline" | "--frozen" => shared.push(word),
            "--profile" | "--target" | "--target-dir" => {
                shared.extend([Some(word), words.next()].into_iter().flatten())
            }
            other
                if ["--profile=", "--target=", "--target-dir="]
                    .iter()
                    .any(|start| other.starts_with(start)) =>
            {
                shared.push(word)
            }
            _ => {}
        }
    }
    shared
}

/// What `-p` and `--package` name, in each of their spellings.
fn named_packages(options: &[String]) -> Vec<&str> {
    let mut named = Vec::new();
    let mut words = options.iter().take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        match word
            .strip_prefix("--package")
            .or_else(|| word.strip_prefix("-p"))
        {
            Some("") => named.extend(words.next().map(String::as_str)),
            Some(name) => named.push(name.trim_start_matches('=')),
            None => {}
        }
    }
    named
}

/// Sums over the `test result:` lines of all test programs.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    programs: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
    filtered: u64,
}

impl Tally {
    fn read(&mut self, line: &str) {
        let Some(result) = line.trim_start().strip_prefix("test result: ") else {
            return;
        };
        self.programs += 1;
        let words: Vec<&str> = result
            .split([' ', ';', '.'])
            .filter(|word| !word.is_empty())
            .collect();
        for pair in words.windows(2) {
            let [count, what] = pair else { continue };
            let Ok(count) = count.parse::<u64>() else {
                continue;
            };
            match *what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                "filtered" => self.filtered += count,
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            programs,
            passed,
            failed,
            ignored,
            filtered,
        } = self;
        write!(
            out,
            "{passed} passed, {failed} failed, {ignored} ignored, {filtered} left out by a filter, in {programs} test programs"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn result_lines_are_summed_and_other_lines_are_not() {
        let mut tally = Tally::default();
        tally.read("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s");
        tally.read("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 10.01s");
        tally.read("running 3 tests: 9 passed");
        assert_eq!(
            tally,
            Tally {
                programs: 2,
                passed: 14,
                failed: 4,
                ignored: 1,
                filtered: 3
            }
        );
    }

    #[test]
    fn the_build_shares_what_selects_files_and_nothing_behind_the_dashes() {
        let options = words("--locked -p mezhub --profile dist end_to_end -- --release");
        assert_eq!(build_options(&options), ["--locked", "--profile", "dist"]);
        assert_eq!(named_packages(&options), ["mezhub"]);
        let spellings = words("-pmsh -p=mezd --package=mezctl --package mezite-ca -- -p none");
        assert_eq!(
            named_packages(&spellings),
            ["msh", "mezd", "mezctl", "mezite-ca"]
        );
        assert!(named_packages(&words("--locked --profile dist")).is_empty());
    }
}
