//! Debian packages (`deb(5)`): `mezhub` with the hub and the command lines, `mezd` with the agent. Both need nothing of the
//! system, because the programs are static. Neither starts anything by itself: who installs, decides when.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::archive::{ROOT, Tar, ar, gzip, parents};
use super::{ARCHITECTURE, Release, read, sums};
use crate::step::Failure;
use crate::tree;

/// What a package holds beyond what its programs say of themselves.
struct Package {
    name: &'static str,
    programs: &'static [&'static str],
    /// The account that its units run as.
    account: &'static str,
    /// Installed to /etc/mezite, from `bins/packaging`, and left alone when the operator has changed it.
    configuration: Option<&'static str>,
    summary: &'static str,
    description: &'static str,
}

const PACKAGES: [Package; 2] = [
    Package {
        name: "mezhub",
        programs: &["mezhub", "mezctl", "msh"],
        account: "mezite",
        configuration: Some("mezite.yaml"),
        summary: "SSH access with short-lived certificates: hub and command lines",
        description: " The hub issues certificates, decides who may log in where, and records sessions.\n With it come mezctl for administrators and msh for users.\n",
    },
    Package {
        name: "mezd",
        programs: &["mezd"],
        account: "mezite-node",
        configuration: None,
        summary: "SSH access with short-lived certificates: node agent",
        description: " The agent dials out to a hub and listens nowhere; sessions reach the node through it.\n",
    },
];

/// A package's files: path below the root, mode, content.
type Files = BTreeMap<String, (u32, Vec<u8>)>;

/// Writes both packages.
pub(crate) fn write(out: &Path, release: &Release, pages: &Path) -> Result<(), Failure> {
    for package in &PACKAGES {
        let files = package.files(out, pages)?;
        let control = package.control(release, &files)?;
        let data = gzip(&package.data(release, &files)?)?;
        let archive = ar(
            &[
                ("debian-binary", b"2.0\n"),
                ("control.tar.gz", &control),
                ("data.tar.gz", &data),
            ],
            release.epoch,
        );
        let name = format!("{}_{}_{ARCHITECTURE}.deb", package.name, release.version);
        super::write(&out.join(name), archive)?;
    }
    Ok(())
}

impl Package {
    fn files(&self, out: &Path, pages: &Path) -> Result<Files, Failure> {
        let mut files = Files::new();
        let mut put = |path: String, mode: u32, bytes: Vec<u8>| {
            files.insert(path, (mode, bytes));
        };
        for program in self.programs {
            put(
                format!("usr/bin/{program}"),
                0o755,
                read(&out.join(program))?,
            );
            let own = pages.join(program);
            for page in sums::names(&own.join("man"))? {
                let text = read(&own.join("man").join(&page))?;
                put(format!("usr/share/man/man1/{page}.gz"), 0o644, gzip(&text)?);
            }
            for (file, place) in [
                (
                    format!("{program}.bash"),
                    format!("usr/share/bash-completion/completions/{program}"),
                ),
                (
                    format!("_{program}"),
                    format!("usr/share/zsh/vendor-completions/_{program}"),
                ),
                (
                    format!("{program}.fish"),
                    format!("usr/share/fish/vendor_completions.d/{program}.fish"),
                ),
            ] {
                put(place, 0o644, read(&own.join("completions").join(file))?);
            }
        }
        let packaging = tree::root().join("bins/packaging");
        for unit in self.units()? {
            let text = read(&packaging.join("systemd").join(&unit))?;
            put(format!("usr/lib/systemd/system/{unit}"), 0o644, text);
        }
        for kind in ["sysusers.d", "tmpfiles.d"] {
            let text = tree::text(&packaging.join("systemd").join(kind).join("mezite.conf"))?;
            put(
                format!("usr/lib/{kind}/{}.conf", self.name),
                0o644,
                lines_of(&text, self.account).into_bytes(),
            );
        }
        if let Some(name) = self.configuration {
            put(
                format!("etc/mezite/{name}"),
                0o644,
                read(&packaging.join(name))?,
            );
        }
        let root = tree::root();
        let doc = format!("usr/share/doc/{}", self.name);
        put(
            format!("{doc}/copyright"),
            0o644,
            read(&root.join("LICENSE"))?,
        );
        put(
            format!("{doc}/changelog.gz"),
            0o644,
            gzip(&read(&root.join("CHANGELOG.md"))?)?,
        );
        put(
            format!("{doc}/OPERATIONS.md"),
            0o644,
            read(&root.join("bins/mezhub/OPERATIONS.md"))?,
        );
        Ok(files)
    }

    /// The units whose name begins with the package's name.
    fn units(&self) -> Result<Vec<String>, Failure> {
        let names = sums::names(&tree::root().join("bins/packaging/systemd"))?;
        let own = |name: &String| {
            name.strip_prefix(self.name)
                .is_some_and(|rest| rest.starts_with(['.', '@', '-']))
        };
        Ok(names.into_iter().filter(own).collect())
    }

    fn data(&self, release: &Release, files: &Files) -> Result<Vec<u8>, Failure> {
        let mut tar = Tar::new(release.epoch);
        let mut made = BTreeSet::new();
        for (path, (mode, bytes)) in files {
            for parent in parents(path) {
                if made.insert(parent.clone()) {
                    tar.directory(&format!("./{parent}"), 0o755, ROOT)?;
                }
            }
            tar.file(&format!("./{path}"), *mode, bytes)?;
        }
        tar.finish()
    }

    fn control(&self, release: &Release, files: &Files) -> Result<Vec<u8>, Failure> {
        let size: usize = files
            .values()
            .map(|(_, bytes)| bytes.len().div_ceil(1024))
            .sum();
        let control = format!(
            "Package: {}\nVersion: {}\nArchitecture: {ARCHITECTURE}\nMaintainer: Mezite maintainers <maintainers@mezite.invalid>\nInstalled-Size: {size}\nRecommends: systemd\nSection: net\nPriority: optional\nDescription: {}\n{}",
            self.name, release.version, self.summary, self.description
        );
        let mut tar = Tar::new(release.epoch);
        tar.file("./control", 0o644, control.as_bytes())?;
        if let Some(name) = self.configuration {
            tar.file(
                "./conffiles",
                0o644,
                format!("/etc/mezite/{name}\n").as_bytes(),
            )?;
        }
        let units = self.units()?.join(" ");
        for (name, script) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
            let script = script
                .replace("@PACKAGE@", self.name)
                .replace("@ACCOUNT@", self.account)
                .replace("@UNITS@", &units);
            tar.file(&format!("./{name}"), 0o755, script.as_bytes())?;
        }
        gzip(&tar.finish()?)
    }
}

/// The lines that name an account, and no comment.
fn lines_of(text: &str, account: &str) -> String {
    text.lines()
        .filter(|line| {
            !line.starts_with('#')
                && line
                    .split_whitespace()
                    .any(|word| word == account || word.starts_with("/etc/"))
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Makes the account and the directories; with systemd by its files, without it (a container, a chroot) by hand.
const POSTINST: &str = r#"#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
if command -v systemd-sysusers >/dev/null && command -v systemd-tmpfiles >/dev/null; then
    systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} @PACKAGE@.conf
    systemd-tmpfiles ${DPKG_ROOT:+--root="$DPKG_ROOT"} --create @PACKAGE@.conf
else
    if ! grep -q '^@ACCOUNT@:' "$DPKG_ROOT/etc/passwd"; then
        useradd ${DPKG_ROOT:+--prefix "$DPKG_ROOT"} --system --user-group --no-create-home \
            --home-dir /var/lib/@ACCOUNT@ --shell /usr/sbin/nologin @ACCOUNT@
    fi
    account=$(sed -n 's/^@ACCOUNT@:[^:]*:\([0-9]*:[0-9]*\):.*/\1/p' "$DPKG_ROOT/etc/passwd")
    sed -n 's/^d \([^ ]*\) \([0-7]*\) \([^ ]*\) .*/\1 \2 \3/p' "$DPKG_ROOT/usr/lib/tmpfiles.d/@PACKAGE@.conf" |
        while read -r directory mode owner; do
            mkdir -p -m "$mode" "$DPKG_ROOT$directory"
            [ "$owner" = root ] || chown "$account" "$DPKG_ROOT$directory"
        done
fi
# Running sessions are worth more than a fast upgrade: what runs goes on until it is restarted.
if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if [ -n "$2" ] && systemctl --quiet is-active @UNITS@; then
        echo "@PACKAGE@: the version before still runs; restart it when it suits" >&2
    fi
fi
"#;

const PRERM: &str = r#"#!/bin/sh
set -e
if [ "$1" = remove ] && [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
    for unit in @UNITS@; do
        case $unit in
            *@.*) systemctl --quiet stop "${unit%%@*}@*.${unit##*.}" || true ;;
            *) systemctl --quiet disable --now "$unit" || true ;;
        esac
    done
fi
"#;

/// Keys, log and recordings are evidence: no package manager removes them.
const POSTRM: &str = r#"#!/bin/sh
set -e
if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
if [ "$1" = purge ]; then
    rmdir "$DPKG_ROOT/etc/mezite" 2>/dev/null || true
    for directory in /var/lib/@ACCOUNT@ /var/log/@ACCOUNT@; do
        if [ -d "$DPKG_ROOT$directory" ] && ! rmdir "$DPKG_ROOT$directory" 2>/dev/null; then
            echo "@PACKAGE@: $directory is kept, with the account @ACCOUNT@; remove it by hand" >&2
        fi
    done
fi
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_makes_its_own_account_alone() {
        let text = "# accounts\nu mezite - \"hub\" /var/lib/mezite\nu mezite-node - \"agent\" /var/lib/mezite-node\n";
        assert_eq!(
            lines_of(text, "mezite"),
            "u mezite - \"hub\" /var/lib/mezite\n"
        );
        assert!(lines_of(text, "mezite-node").starts_with("u mezite-node"));
    }

    #[test]
    fn every_unit_belongs_to_one_package() {
        let mut units: Vec<String> = PACKAGES
            .iter()
            .flat_map(|package| package.units().unwrap())
            .collect();
        let mut there = sums::names(&tree::root().join("bins/packaging/systemd")).unwrap();
        there.retain(|name| !name.ends_with(".d"));
        units.sort();
        assert_eq!(units, there);
        assert!(units.contains(&"mezhub.service".to_owned()));
    }
}
