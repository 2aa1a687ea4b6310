//! Tools that the tests need in a version of their own: installed once below the target directory, as the caches of CI
//! keep it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::step::{self, Failure, cargo};

/// One of them. Its programs lie in `target/tools/<name>/bin`, where the tests look for them.
pub(crate) struct Tool {
    name: &'static str,
    from: From,
    purpose: &'static str,
}

enum From {
    /// A package of the crate registry, in exactly this version.
    Crate(&'static str),
    /// Packages of the Python index, in an environment of their own.
    Python(&'static [&'static str]),
    /// Packages of the JavaScript registry, in a directory of their own.
    Npm(&'static [&'static str]),
    /// A system of this Debian release below `root`, with packages beyond the least.
    Debian(&'static str, &'static [&'static str]),
}

pub(crate) const TESTS: &[Tool] = &[
    Tool {
        name: "moto",
        from: From::Python(&["moto[server]==5.2.1"]),
        purpose: "a store that speaks S3 and is not ours",
    },
    Tool {
        name: "paramiko",
        from: From::Python(&["paramiko==5.1.0"]),
        purpose: "an SSH client that says what OpenSSH's would not",
    },
    Tool {
        name: "asciinema",
        from: From::Crate("3.2.0"),
        purpose: "plays and converts our exports in the newest format",
    },
];

/// What the tests of a release run.
pub(crate) const RELEASE: &[Tool] = &[
    Tool {
        name: "cyclonedx",
        from: From::Python(&["cyclonedx-python-lib[json-validation]==9.1.0"]),
        purpose: "validates our lists of components",
    },
    Tool {
        name: "sigstore",
        from: From::Npm(&["@sigstore/verify@2.1.1", "@sigstore/bundle@3.1.0"]),
        purpose: "verifies our signature bundles",
    },
    Tool {
        name: "debian",
        from: From::Debian(
            "bookworm",
            &[
                "systemd-sysv",
                "dbus",
                "openssh-server",
                "openssh-client",
                "openssl",
            ],
        ),
        purpose: "a new machine, on which the operations guide is followed",
    },
];

/// What `cargo xtask deny` runs.
pub(crate) const DENY: &[Tool] = &[Tool {
    name: "cargo-deny",
    from: From::Crate("0.20.2"),
    purpose: "licences, sources and duplicates",
}];

/// Installs what is not there.
///
/// # Errors
/// What could not be installed, with the command that failed.
pub(crate) fn provide(tools: &[Tool]) -> Result<(), Failure> {
    let root = directory()?;
    for tool in tools {
        let place = root.join(tool.name);
        // Written last: an installation that was broken off is made anew.
        let stamp = place.join("complete");
        let wanted = tool.from.to_string();
        if std::fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
            continue;
        }
        eprintln!("==> tool: {} ({})", tool.name, tool.purpose);
        let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", place.display()));
        if place.exists() {
            std::fs::remove_dir_all(&place).map_err(failed)?;
        }
        tool.install(&place)?;
        std::fs::write(&stamp, wanted).map_err(failed)?;
    }
    Ok(())
}

/// Where they lie: `tools` in the target directory.
pub(crate) fn directory() -> Result<PathBuf, Failure> {
    Ok(target()?.join("tools"))
}

/// The target directory.
pub(crate) fn target() -> Result<PathBuf, Failure> {
    let text = step::read(&mut cargo([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
    ]))?;
    let metadata: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("`cargo metadata` is not JSON: {error}")))?;
    let target = metadata.get("target_directory").and_then(Value::as_str);
    let target =
        target.ok_or_else(|| Failure::new("`cargo metadata` names no target directory"))?;
    Ok(PathBuf::from(target))
}

impl Tool {
    fn install(&self, place: &Path) -> Result<(), Failure> {
        match self.from {
            From::Crate(version) => {
                let mut install = cargo(["install", "--quiet", "--locked", "--debug"]);
                install.args([self.name, "--version", version, "--root"]);
                // Apart from what the workspace builds, and not kept.
                let build = place.join("build");
                install.arg(place).arg("--target-dir").arg(&build);
                step::run("package", &mut install)?;
                std::fs::remove_dir_all(&build)
                    .map_err(|error| Failure::new(format!("{}: {error}", build.display())))
            }
            From::Python(packages) => {
                let mut venv = Command::new("python3");
                step::run("environment", venv.args(["-m", "venv"]).arg(place))?;
                let mut pip = Command::new(place.join("bin/pip"));
                pip.args(["install", "--quiet", "--disable-pip-version-check"]);
                step::run("packages", pip.args(packages))
            }
            From::Npm(packages) => {
                let mut npm = Command::new("npm");
                npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]);
                npm.arg("--prefix").arg(place);
                step::run("packages", npm.args(packages))
            }
            From::Debian(release, packages) => {
                let mut make = Command::new("debootstrap");
                make.arg("--variant=minbase")
                    .arg(format!("--include={}", packages.join(",")));
                step::run("system", make.arg(release).arg(place.join("root")))
            }
        }
    }
}

impl std::fmt::Display for From {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Crate(version) => write!(out, "crate {version}"),
            Self::Python(packages) => write!(out, "python {}", packages.join(" ")),
            Self::Npm(packages) => write!(out, "npm {}", packages.join(" ")),
            Self::Debian(release, packages) => {
                write!(out, "debian {release} {}", packages.join(" "))
            }
        }
    }
}
