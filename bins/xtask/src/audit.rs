//! `cargo xtask audit`: known vulnerabilities of what Cargo.lock names, from a copy of the RustSec database; no network.

use std::path::PathBuf;

use rustsec::advisory::{Date, Id, Informational};
use rustsec::report::{Report, Settings};
use rustsec::{Database, Lockfile};

use crate::step::{self, Failure};
use crate::tree;

pub(crate) const HELP: &str = "\
Look for known vulnerabilities in what Cargo.lock names.

Usage: cargo xtask audit --db DIR [--lock FILE] [--max-age DAYS] [--ignore ID]…

  --db DIR         a copy of the RustSec advisory database (a clone, or unpacked); nothing is fetched
  --lock FILE      another Cargo.lock than the workspace's
  --max-age DAYS   fail when the newest advisory is older: an old database knows no new fault
  --ignore ID      an advisory that does not concern us; say why in deny.toml

Vulnerable and unsound versions are failures; unmaintained ones are named.
";

/// From this age on the database's age is a warning.
const OLD: u64 = 30;

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let options = Options::parse(words)?;
    let database = Database::open(&options.db).map_err(|error| {
        Failure::new(format!(
            "`{}` cannot be read as an advisory database: {error}",
            options.db.display()
        ))
    })?;
    let newest = database
        .iter()
        .map(|advisory| &advisory.metadata.date)
        .max()
        .ok_or_else(|| Failure::new(format!("`{}` holds no advisory", options.db.display())))?;
    let age = age(newest)?;
    println!(
        "audit: {} advisories, the newest of {}, {age} days old",
        database.iter().count(),
        newest.as_str()
    );
    if options.max_age.is_some_and(|limit| age > limit) {
        return Err(Failure::new(format!(
            "the database is {age} days old: bring it up to date, or allow it with `--max-age {age}`"
        )));
    }
    if age > OLD {
        eprintln!("warning: the database is {age} days old and knows nothing newer");
    }
    let lock = Lockfile::load(&options.lock).map_err(|error| {
        Failure::new(format!("cannot read `{}`: {error}", options.lock.display()))
    })?;
    let settings = Settings {
        ignore: options.ignore,
        informational_warnings: vec![Informational::Unmaintained, Informational::Unsound],
        ..Settings::default()
    };
    let report = Report::generate(&database, &lock, &settings);
    let mut faults: Vec<String> = report
        .vulnerabilities
        .list
        .iter()
        .map(|found| {
            format!(
                "{} {} {}: {} (fixed in {})",
                found.advisory.id,
                found.package.name,
                found.package.version,
                found.advisory.title,
                versions(found.versions.patched())
            )
        })
        .collect();
    for warning in report.warnings.values().flatten() {
        let Some(advisory) = &warning.advisory else {
            continue;
        };
        let line = format!(
            "{} {} {}: {}",
            advisory.id, warning.package.name, warning.package.version, advisory.title
        );
        if advisory.informational == Some(Informational::Unsound) {
            faults.push(line);
        } else {
            eprintln!("warning: {line}");
        }
    }
    if faults.is_empty() {
        println!("audit: ok, {} packages", lock.packages.len());
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} known faults in {} packages\n  {}",
        faults.len(),
        lock.packages.len(),
        faults.join("\n  ")
    )))
}

struct Options {
    db: PathBuf,
    lock: PathBuf,
    max_age: Option<u64>,
    ignore: Vec<Id>,
}

impl Options {
    fn parse(words: &[String]) -> Result<Self, Failure> {
        let (mut db, mut max_age, mut ignore) = (None, None, Vec::new());
        let mut lock = tree::root().join("Cargo.lock");
        for pair in words.chunks(2) {
            let [name, value] = pair else {
                return Err(Failure::usage(format!(
                    "`{}` wants a value, or is unknown",
                    pair.concat()
                )));
            };
            let bad = || Failure::usage(format!("`{name} {value}` cannot be read"));
            match name.as_str() {
                "--db" => db = Some(PathBuf::from(value)),
                "--lock" => lock = PathBuf::from(value),
                "--max-age" => max_age = Some(value.parse().map_err(|_| bad())?),
                "--ignore" => ignore.push(value.parse().map_err(|_| bad())?),
                other => return Err(Failure::usage(format!("unknown option `{other}`"))),
            }
        }
        let db = db.ok_or_else(|| {
            Failure::usage(
                "name a copy of the advisory database with `--db DIR`; nothing is fetched",
            )
        })?;
        Ok(Self {
            db,
            lock,
            max_age,
            ignore,
        })
    }
}

fn versions<T: ToString>(found: &[T]) -> String {
    if found.is_empty() {
        return String::from("no version");
    }
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    shown.join(" or ")
}

/// Whole days since a date.
fn age(date: &Date) -> Result<u64, Failure> {
    let then = days(date.year().into(), date.month().into(), date.day().into());
    Ok((step::now() / 86_400).saturating_sub(then))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (after Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 {
        year.saturating_sub(1)
    } else {
        year
    };
    let era = year / 400;
    let of_era = year % 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.saturating_sub(1);
    let days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    (era * 146_097 + days).saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn dates_are_counted_from_1970() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 3, 1), 11_017);
        assert_eq!(days(2026, 11, 26), 20_783);
    }

    fn audit(place: &Path, words: &[&str]) -> Result<(), Failure> {
        let (db, lock) = (place.join("db"), place.join("Cargo.lock"));
        let own = [
            "--db",
            db.to_str().unwrap(),
            "--lock",
            lock.to_str().unwrap(),
        ];
        let words: Vec<String> = own
            .iter()
            .chain(words)
            .map(|word| (*word).to_owned())
            .collect();
        run(&words)
    }

    #[test]
    fn attack_81_a_known_fault_is_found_offline_and_an_old_database_says_so() {
        let scratch = tempfile::tempdir().unwrap();
        let place = scratch.path();
        let advisory = |id: &str, informational: &str| {
            let text = format!(
                "```toml\n[advisory]\nid = \"{id}\"\npackage = \"leftpad\"\ndate = \"2020-02-01\"\n{informational}\n[versions]\npatched = [\">= 1.2.0\"]\n```\n\n# Reads too far\n\nIt does.\n"
            );
            let directory = place.join("db/crates/leftpad");
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(format!("{id}.md")), text).unwrap();
        };
        let lock = |version: &str| {
            let text = format!(
                "version = 4\n\n[[package]]\nname = \"leftpad\"\nversion = \"{version}\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{}\"\n",
                "0".repeat(64)
            );
            std::fs::write(place.join("Cargo.lock"), text).unwrap();
        };
        advisory("RUSTSEC-2020-0001", "");
        lock("1.1.9");
        let failure = audit(place, &[]).unwrap_err().to_string();
        assert!(
            failure.contains("RUSTSEC-2020-0001 leftpad 1.1.9: Reads too far"),
            "{failure}"
        );
        audit(place, &["--ignore", "RUSTSEC-2020-0001"]).unwrap();
        lock("1.2.0");
        audit(place, &[]).unwrap();
        let failure = audit(place, &["--max-age", "30"]).unwrap_err().to_string();
        assert!(failure.contains("days old"), "{failure}");
        lock("1.1.9");
        advisory("RUSTSEC-2020-0001", "informational = \"unsound\"");
        audit(place, &[]).unwrap_err();
        advisory("RUSTSEC-2020-0001", "informational = \"unmaintained\"");
        audit(place, &[]).unwrap();
    }

    #[test]
    fn a_directory_without_advisories_is_no_database() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("Cargo.lock"), "version = 4\n").unwrap();
        assert!(audit(scratch.path(), &[]).is_err());
        assert_eq!(run(&[]).unwrap_err().exit_code(), 2);
    }
}
