//! `cargo xtask dist`: what a release consists of, made from the tree alone, the same bytes wherever and whenever it is made.
//!
//! This file holds the command line and the order of the steps; each thing that is made has a file of its own.

mod archive;
mod buildinfo;
mod deb;
mod elf;
mod image;
mod provenance;
mod recipe;
mod sbom;
mod sums;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::step::{self, Failure, cargo};
use crate::tree;
use recipe::Recipe;

pub(crate) use recipe::pinned as pinned_toolchain;
pub(crate) use sums::{NAME as SUMS, names};

pub(crate) const HELP: &str = "\
Build what is released: static programs, packages, container image, and what tells where they come from.

Usage: cargo xtask dist [--out DIR] [--bin NAME]… [--profile NAME] [--prebuilt DIR] [--builder URI]

The programs are static, need no interpreter, and load nothing. Beside them: `.deb` packages for hub and agent, an OCI
image, an SBOM (CycloneDX) for each program, BUILDINFO with what the bytes depend on, provenance.json (SLSA), and SHA256SUMS.
The same commit, toolchain and C library give the same bytes in any directory, at any time, for any user.

  --out DIR        where to (default: `mezite-VERSION` in the target directory); it must be empty or not exist
  --bin NAME       build only this program (mezhub, mezd, msh, mezctl), and nothing beside it but BUILDINFO and SHA256SUMS
  --profile NAME   the profile of Cargo.toml (default: dist; `dist-check` is the same recipe without optimisation, for tests)
  --prebuilt DIR   pack the programs of this directory instead of building; BUILDINFO says so
  --builder URI    who built it, for the provenance statement (default: urn:mezite:builder:local)
";

/// The programs of a release.
pub(crate) const PROGRAMS: [&str; 4] = ["mezhub", "mezd", "msh", "mezctl"];

/// The one platform that is built for.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";
/// As Debian and container images call its processor.
const ARCHITECTURE: &str = "amd64";

/// What was asked for.
struct Options {
    out: Option<PathBuf>,
    bins: Vec<String>,
    profile: String,
    prebuilt: Option<PathBuf>,
    builder: String,
}

/// What all parts of a release say of it.
pub(crate) struct Release {
    pub(crate) version: String,
    /// Seconds since 1970 that stand wherever a file format wants a time: those of the commit.
    pub(crate) epoch: u64,
    /// The commit, if this is a clone.
    pub(crate) commit: Option<String>,
    /// The time of the commit as image formats write it.
    created: Option<String>,
    /// Whether the tree differs from the commit.
    changed: bool,
}

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let options = Options::parse(words)?;
    let metadata = metadata()?;
    let release = Release::of(&metadata)?;
    let target = target_directory(&metadata)?;
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| target.join(format!("mezite-{}", release.version)));
    empty(&out)?;
    let recipe = Recipe::new(&options.profile, &target)?;
    let built = match &options.prebuilt {
        Some(directory) => directory.clone(),
        None => recipe.build(&options.bins)?,
    };
    for name in &options.bins {
        copy(&built.join(name), &out.join(name))?;
        if options.prebuilt.is_none() {
            elf::check(&out.join(name), &recipe.secret_paths())?;
        }
    }
    buildinfo::write(&out, &release, &recipe, options.prebuilt.is_some())?;
    if options.bins.len() == PROGRAMS.len() {
        let pages = Pages::of(&out)?;
        deb::write(&out, &release, pages.path())?;
        image::write(&out, &release)?;
        for name in PROGRAMS {
            sbom::write(&out, name, &release, &metadata)?;
        }
        provenance::write(&out, &release, &recipe, &options.builder)?;
    }
    let listed = sums::write(&out)?;
    println!("dist: {} files in {}", listed.len(), out.display());
    for (name, size) in &listed {
        println!("  {size:>10}  {name}");
    }
    Ok(())
}

impl Options {
    fn parse(words: &[String]) -> Result<Self, Failure> {
        let mut options = Self {
            out: None,
            bins: Vec::new(),
            profile: String::from("dist"),
            prebuilt: None,
            builder: String::from("urn:mezite:builder:local"),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words
                .next()
                .ok_or_else(|| Failure::usage(format!("`{word}` wants a value, or is unknown")))?;
            match word.as_str() {
                "--out" => options.out = Some(PathBuf::from(value)),
                "--bin" if PROGRAMS.contains(&value.as_str()) => options.bins.push(value.clone()),
                "--bin" => {
                    return Err(Failure::usage(format!(
                        "no program `{value}`; there are {}",
                        PROGRAMS.join(", ")
                    )));
                }
                "--profile" => options.profile.clone_from(value),
                "--prebuilt" => options.prebuilt = Some(PathBuf::from(value)),
                "--builder" => options.builder.clone_from(value),
                other => {
                    return Err(Failure::usage(format!(
                        "unknown option `{other}`; `cargo xtask dist --help` lists them"
                    )));
                }
            }
        }
        if options.bins.is_empty() {
            options.bins = PROGRAMS.map(String::from).to_vec();
        }
        Ok(options)
    }
}

impl Release {
    fn of(metadata: &Value) -> Result<Self, Failure> {
        let version = list(metadata, "packages")
            .iter()
            .find(|package| text(package, "name") == "mezhub")
            .map(|package| text(package, "version").to_owned())
            .ok_or_else(|| Failure::new("`cargo metadata` knows no package `mezhub`"))?;
        let named = std::env::var("SOURCE_DATE_EPOCH").ok();
        let commit = git(&["rev-parse", "HEAD"]).ok();
        let of_commit = git(&["log", "-1", "--format=%ct"]).ok();
        let epoch = named.or(of_commit).and_then(|text| text.parse().ok());
        let epoch = epoch.ok_or_else(|| {
            Failure::new(
                "this is no clone, so there is no commit to take the time from: set SOURCE_DATE_EPOCH to a number of seconds",
            )
        })?;
        let changed = git(&["status", "--porcelain"]).is_ok_and(|lines| !lines.is_empty());
        let created = git(&[
            "log",
            "-1",
            "--format=%cd",
            "--date=format-local:%Y-%m-%dT%H:%M:%SZ",
        ])
        .ok();
        Ok(Self {
            version,
            epoch,
            commit,
            created,
            changed,
        })
    }
}

/// Manual pages and completions of the built programs, as they write them themselves.
struct Pages(tempfile::TempDir);

impl Pages {
    fn of(out: &Path) -> Result<Self, Failure> {
        let scratch = tempfile::tempdir()
            .map_err(|error| Failure::new(format!("no scratch directory: {error}")))?;
        for name in PROGRAMS {
            let mut program = Command::new(out.join(name));
            step::read(program.arg("pages").arg(scratch.path().join(name)))?;
        }
        Ok(Self(scratch))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

/// `cargo metadata` for the platform that is built for.
fn metadata() -> Result<Value, Failure> {
    let text = step::read(&mut cargo([
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        TARGET,
    ]))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("`cargo metadata` is not JSON: {error}")))
}

fn target_directory(metadata: &Value) -> Result<PathBuf, Failure> {
    match text(metadata, "target_directory") {
        "" => Err(Failure::new("`cargo metadata` names no target directory")),
        path => Ok(PathBuf::from(path)),
    }
}

fn git(words: &[&str]) -> Result<String, Failure> {
    let mut git = Command::new("git");
    git.arg("-C").arg(tree::root()).args(words).env("TZ", "UTC");
    step::read(&mut git).map(|text| text.trim().to_owned())
}

/// The time that a release that was made says it has.
pub(crate) fn epoch_of(out: &Path) -> Result<String, Failure> {
    let facts = tree::text(&out.join(buildinfo::NAME))?;
    let line = facts
        .lines()
        .find_map(|line| line.strip_prefix("source-date-epoch: "));
    line.map(str::to_owned)
        .ok_or_else(|| Failure::new(format!("`{}` names no time", out.display())))
}

/// Makes sure that the directory is there and holds nothing that an earlier run or somebody else put there.
fn empty(directory: &Path) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::new(format!("`{}`: {error}", directory.display()));
    std::fs::create_dir_all(directory).map_err(failed)?;
    if directory.read_dir().map_err(failed)?.next().is_some() {
        return Err(Failure::new(format!(
            "`{}` is not empty: remove it, or name another with `--out`",
            directory.display()
        )));
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::copy(from, to).map_err(|error| {
        Failure::new(format!(
            "cannot copy `{}` to `{}`: {error}",
            from.display(),
            to.display()
        ))
    })?;
    Ok(())
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|error| Failure::new(format!("cannot read `{}`: {error}", path.display())))
}

pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    std::fs::write(path, bytes)
        .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", path.display())))
}

/// SHA-256 as digests are written: in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(bytes))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}
