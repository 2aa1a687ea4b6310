//! What the tests need on this machine besides the Rust toolchain, and how it gets there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::Uid;

use crate::step::{self, Failure};

/// A program that tests drive or a file that they read, the package of Debian and Ubuntu that brings it, and what it is
/// for.
pub(crate) struct Need {
    /// Looked up in `PATH`; with a `/` at its beginning, a file or directory that must be there.
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
    pub(crate) purpose: &'static str,
}

pub(crate) const TESTS: &[Need] = &[
    Need {
        program: "ssh",
        package: "openssh-client",
        purpose: "the client that users have",
    },
    Need {
        program: "ssh-keygen",
        package: "openssh-client",
        purpose: "reads every certificate we make",
    },
    Need {
        program: "scp",
        package: "openssh-client",
        purpose: "copies through the gateway",
    },
    Need {
        program: "sftp",
        package: "openssh-client",
        purpose: "copies through the gateway",
    },
    Need {
        program: "sshd",
        package: "openssh-server",
        purpose: "the agentless node",
    },
    Need {
        program: "/usr/lib/openssh/regress/unittests",
        package: "openssh-tests",
        purpose: "OpenSSH's own certificates, as test vectors",
    },
    Need {
        program: "curl",
        package: "curl",
        purpose: "fetches the revocation list",
    },
    Need {
        program: "initdb",
        package: "postgresql",
        purpose: "the database of several hubs",
    },
    Need {
        program: "rsync",
        package: "rsync",
        purpose: "copies through the gateway",
    },
    Need {
        program: "git",
        package: "git",
        purpose: "clones through the gateway",
    },
    Need {
        program: "asciinema",
        package: "asciinema",
        purpose: "plays our exported recordings",
    },
    Need {
        program: "xauth",
        package: "xauth",
        purpose: "keeps the cookies of forwarded displays",
    },
    Need {
        program: "python3",
        package: "python3-venv",
        purpose: "runs a store that speaks S3",
    },
    Need {
        program: "systemd-analyze",
        package: "systemd",
        purpose: "judges the units",
    },
    Need {
        program: "systemd-socket-activate",
        package: "systemd",
        purpose: "hands sockets to the hub",
    },
    Need {
        program: "strace",
        package: "strace",
        purpose: "sees what programs want to reach",
    },
    Need {
        program: "ip",
        package: "iproute2",
        purpose: "a network that is nothing but the machine itself",
    },
    Need {
        program: "tmux",
        package: "tmux",
        purpose: "a terminal that tests can type into",
    },
];

/// What the tests of a release need beyond these.
pub(crate) const RELEASE: &[Need] = &[
    Need {
        program: "bwrap",
        package: "bubblewrap",
        purpose: "runs programs and images in roots of their own",
    },
    Need {
        program: "skopeo",
        package: "skopeo",
        purpose: "reads our container image",
    },
    Need {
        program: "umoci",
        package: "umoci",
        purpose: "unpacks our container image",
    },
    Need {
        program: "dpkg",
        package: "dpkg",
        purpose: "installs our packages",
    },
    Need {
        program: "readelf",
        package: "binutils",
        purpose: "reads what programs ask of the system",
    },
    Need {
        program: "openssl",
        package: "openssl",
        purpose: "signs releases, and verifies them",
    },
    Need {
        program: "node",
        package: "nodejs",
        purpose: "runs Sigstore's own verifier",
    },
    Need {
        program: "npm",
        package: "npm",
        purpose: "installs it",
    },
    Need {
        program: "debootstrap",
        package: "debootstrap",
        purpose: "makes a new system",
    },
    Need {
        program: "systemd-nspawn",
        package: "systemd-container",
        purpose: "boots it",
    },
];

/// Makes sure every program is there: installs on Debian and Ubuntu as root, elsewhere says what is missing.
///
/// # Errors
/// When something is missing and cannot be installed here, with the list of what to install.
pub(crate) fn provide(needs: &[Need]) -> Result<(), Failure> {
    let missing: Vec<&Need> = needs
        .iter()
        .filter(|need| find(need.program).is_none())
        .collect();
    if missing.is_empty() {
        eprintln!("==> needs: all {} programs are there", needs.len());
        return Ok(());
    }
    if find("apt-get").is_none() || !Uid::effective().is_root() {
        return Err(Failure::new(wanted(&missing)));
    }
    let packages = packages(&missing);
    if install(&packages).is_err() {
        step::run("package lists", apt().arg("update"))?;
        install(&packages)?;
    }
    let still: Vec<&Need> = missing
        .into_iter()
        .filter(|need| find(need.program).is_none())
        .collect();
    if still.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(wanted(&still)))
    }
}

fn install(packages: &[&str]) -> Result<(), Failure> {
    step::run(
        "install",
        apt()
            .args(["install", "-y", "--no-install-recommends"])
            .args(packages),
    )
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .arg("-q")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    command
}

fn packages(needs: &[&Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = needs.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// The message for a machine where we may not install.
fn wanted(missing: &[&Need]) -> String {
    let mut text = String::from("programs that the tests need are missing; nothing was run:\n");
    for need in missing {
        text.push_str(&format!("  {:<12} {}\n", need.program, need.purpose));
    }
    text.push_str(&format!(
        "on Debian or Ubuntu: sudo apt-get install -y --no-install-recommends {}\nelsewhere: install the packages that bring these programs",
        packages(missing).join(" ")
    ));
    text
}

/// The program's absolute path, looked up in `PATH` and where servers are kept; or that of a file, if it is there.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let servers = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/libexec"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(servers)
        .chain(postgresql())
        .map(|directory| directory.join(program))
        .find(|path| is_program(path))
}

/// Debian keeps PostgreSQL's programs by version, out of the way of everybody but its own scripts.
fn postgresql() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    versions
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .collect()
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_and_an_absent_one_is_not() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("no-such-program-anywhere"), None);
        assert_eq!(find("/"), Some(PathBuf::from("/")));
        assert_eq!(find("/no/such/file"), None);
    }

    #[test]
    fn the_message_names_programs_once_and_packages_once() {
        let missing: Vec<&Need> = TESTS
            .iter()
            .filter(|need| need.package == "openssh-client")
            .collect();
        let text = wanted(&missing);
        assert!(text.contains("ssh-keygen"), "{text}");
        assert_eq!(text.matches("openssh-client").count(), 1, "{text}");
    }
}
