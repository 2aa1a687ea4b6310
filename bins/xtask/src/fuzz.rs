//! `cargo xtask fuzz`: runs the fuzz targets below `fuzz/`, each for a while.

use std::path::Path;
use std::process::Command;

use crate::step::{self, Failure, cargo};
use crate::tree;

pub(crate) const HELP: &str = "\
Run fuzz targets with libFuzzer and AddressSanitizer, one after another.

Usage: cargo xtask fuzz [PACKAGE [TARGET]] [--seconds N]

  PACKAGE      a directory below fuzz/, such as `ca`; all of them by default
  TARGET       one target of the package; all of them by default
  --seconds N  how long each target runs, from 1 to 86400 seconds; 60 by default

Needs cargo-fuzz (cargo install --locked cargo-fuzz) and a C++ compiler. What a target finds lies in
fuzz/PACKAGE/artifacts, new inputs in fuzz/PACKAGE/corpus: keep those that reach something new, and
`cargo test` replays them.

  cargo xtask fuzz ca certificate --seconds 600
";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'a> {
    package: Option<&'a str>,
    target: Option<&'a str>,
    seconds: u32,
}

pub(crate) fn run(options: &[String]) -> Result<(), Failure> {
    let wanted = Wanted::parse(options)?;
    let root = tree::root();
    let fuzz = root.join("fuzz");
    let packages = chosen(&fuzz, Path::is_dir, wanted.package)?;
    if Command::new("cargo-fuzz")
        .arg("--version")
        .output()
        .is_err()
    {
        return Err(Failure::new(
            "cargo-fuzz is missing: cargo install --locked cargo-fuzz",
        ));
    }
    for package in packages {
        let targets = fuzz.join(&package).join("fuzz_targets");
        let targets = chosen(&targets, Path::is_file, wanted.target)?;
        for target in targets {
            let mut fuzz = cargo(["fuzz", "run", "--fuzz-dir"]);
            fuzz.arg(format!("fuzz/{package}"))
                .arg(&target)
                .arg("--")
                .arg(format!("-max_total_time={}", wanted.seconds))
                // libFuzzer's instrumentation is unstable; the compiler that is fuzzed is the one that is shipped.
                .env("RUSTC_BOOTSTRAP", "1");
            step::run(&format!("fuzz {package}/{target}"), &mut fuzz)?;
        }
    }
    Ok(())
}

impl<'a> Wanted<'a> {
    fn parse(options: &'a [String]) -> Result<Self, Failure> {
        let mut wanted = Self {
            package: None,
            target: None,
            seconds: 60,
        };
        let mut words = options.iter().map(String::as_str);
        while let Some(word) = words.next() {
            if word == "--seconds" {
                wanted.seconds = seconds(words.next().unwrap_or_default())?;
            } else if let Some(number) = word.strip_prefix("--seconds=") {
                wanted.seconds = seconds(number)?;
            } else if word.starts_with('-') {
                return Err(Failure::usage(format!(
                    "unknown option `{word}`; known is `--seconds N`"
                )));
            } else if wanted.package.is_none() {
                wanted.package = Some(word);
            } else if wanted.target.is_none() {
                wanted.target = Some(word);
            } else {
                return Err(Failure::usage(format!(
                    "`{word}` is one word too many: a package and a target at most"
                )));
            }
        }
        Ok(wanted)
    }
}

/// libFuzzer takes 0 for "without end".
fn seconds(text: &str) -> Result<u32, Failure> {
    text.parse()
        .ok()
        .filter(|seconds| (1..=86_400).contains(seconds))
        .ok_or_else(|| {
            Failure::usage(format!(
                "`--seconds {text}` is not a number from 1 to 86400"
            ))
        })
}

/// What lies in `directory` and is of this `kind`, without the end of its name, in order; or the one that was asked for.
fn chosen(
    directory: &Path,
    kind: fn(&Path) -> bool,
    only: Option<&str>,
) -> Result<Vec<String>, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::new(format!("cannot read `{}`: {error}", directory.display()))
    };
    let mut names = Vec::new();
    for entry in directory.read_dir().map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_stem().filter(|_| kind(&path));
        names.extend(name.map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    match only {
        None => Ok(names),
        Some(only) if names.iter().any(|name| name == only) => Ok(vec![only.to_owned()]),
        Some(only) => Err(Failure::usage(format!(
            "there is no `{only}` to fuzz; there are: {}",
            names.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Option<String>, Option<String>, u32), String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Wanted::parse(&words)
            .map(|wanted| {
                let owned = |word: Option<&str>| word.map(str::to_owned);
                (owned(wanted.package), owned(wanted.target), wanted.seconds)
            })
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_line_says_package_target_and_time() {
        let word = |text: &str| Some(text.to_owned());
        assert_eq!(parse(""), Ok((None, None, 60)));
        assert_eq!(
            parse("ca krl --seconds 600"),
            Ok((word("ca"), word("krl"), 600))
        );
        assert_eq!(parse("--seconds=5 rbac"), Ok((word("rbac"), None, 5)));
        for (line, complaint) in [
            ("--seconds 0", "`--seconds 0`"),
            ("--seconds", "`--seconds `"),
            ("--second 1", "`--second`"),
            ("ca krl sealed", "`sealed`"),
        ] {
            assert!(parse(line).unwrap_err().contains(complaint), "{line}");
        }
    }

    #[test]
    fn every_package_has_targets_and_a_wrong_name_lists_them() {
        let fuzz = tree::root().join("fuzz");
        let packages = chosen(&fuzz, Path::is_dir, None).unwrap();
        assert!(packages.contains(&"ca".to_owned()), "{packages:?}");
        for package in packages {
            let targets = fuzz.join(&package).join("fuzz_targets");
            assert!(
                !chosen(&targets, Path::is_file, None).unwrap().is_empty(),
                "{package}"
            );
            let complaint = chosen(&targets, Path::is_file, Some("nothing")).unwrap_err();
            assert!(complaint.to_string().contains("there are: "), "{complaint}");
        }
    }
}
