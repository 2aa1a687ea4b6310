//! What a hub keeps when it has started, and how it shows that.

use std::path::{Path, PathBuf};

use mezite_hardening::{Account, Files, Report, State, confine, give, lower, names};

use crate::config::{self, Config};
use crate::{store, vault};

/// Variables that hold secrets. They are read with the configuration, and gone from then on.
const SECRETS: [&str; 2] = ["MEZITE_STORE_POSTGRES_URL", vault::ACCESS_KEY];

/// What only the account that starts the hub may be able to read.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) store: store::Source,
    pub(crate) vault: vault::Source,
}

impl Sources {
    /// Reads it, and cleans the environment of it.
    ///
    /// # Errors
    /// One sentence: what is wrong and what to do.
    pub(crate) fn read(config: &Config) -> Result<Self, String> {
        let sources = Self {
            store: store::Source::read(&config.store)?,
            vault: vault::Source::read(&config.recordings, &config.hub, &config.data_dir)?,
        };
        mezite_hardening::forget(&SECRETS);
        Ok(sources)
    }
}

/// Becomes the configured account, after its directories were made and given to it.
///
/// # Errors
/// One sentence: what is wrong and what to do. The process must end then.
pub(crate) fn become_account(config: &Config, sources: &Sources) -> Result<Report, String> {
    let account = config.hardening.account()?;
    for (what, directory) in [
        ("data directory", config.data_dir.as_path()),
        ("directory of recordings", sources.vault.directory()),
    ] {
        give(what, directory, account.as_ref())?;
    }
    // Where SQLite sorts what memory does not hold; elsewhere nothing can be written.
    mezite_hardening::set("SQLITE_TMPDIR", config.data_dir.as_os_str());
    drop_rights(account.as_ref())
}

fn drop_rights(account: Option<&Account>) -> Result<Report, String> {
    lower(account).map_err(|error| error.to_string())
}

/// Keeps what the configuration names, and gives up the rest.
///
/// # Errors
/// One sentence: what is wrong and what to do. The process must end then.
pub(crate) fn give_up_the_rest(
    config: &Config,
    vault: &vault::Source,
    report: &mut Report,
) -> Result<(), String> {
    confine_to(config, &files(config, vault), report)
}

/// Says in the log what is in force.
pub(crate) fn tell(report: &Report) {
    let lacks = report.names(State::NotSupported);
    let (in_force, not_asked) = (report.names(State::InForce), report.names(State::NotAsked));
    if lacks.is_empty() {
        tracing::info!(in_force, not_asked, "hardened");
    } else {
        tracing::warn!(
            in_force,
            not_asked,
            this_kernel_lacks = lacks,
            "hardened in part"
        );
    }
    if nix::unistd::geteuid().is_root() {
        tracing::warn!(
            "runs as root, without its capabilities: name an account with `hardening.user`"
        );
    }
}

fn confine_to(config: &Config, files: &Files, report: &mut Report) -> Result<(), String> {
    let config::Hardening {
        strict,
        dangerously_off,
        ..
    } = &config.hardening;
    confine(files, dangerously_off, *strict, report).map_err(|error| error.to_string())
}

/// Takes everything from this process that a hub would give up, and says what came of it. Nothing is made or opened.
///
/// # Errors
/// One sentence: what is wrong and what to do.
pub(crate) fn show(config: &Config) -> Result<Report, String> {
    let recordings = config.recordings.clone();
    let directory = recordings
        .s3
        .map_or(recordings.directory, |s3| s3.spool)
        .unwrap_or_else(|| config.data_dir.clone());
    let mut files = files(config, &vault::Source::Directory(directory));
    files.write.retain(|path| path.exists());
    let mut report = drop_rights(config.hardening.account()?.as_ref())?;
    confine_to(config, &files, &mut report)?;
    Ok(report)
}

/// For people.
pub(crate) fn table(report: &Report) -> String {
    let lines = report.lines().iter();
    let rows = lines.map(|line| [line.measure, line.state.words(), &line.detail]);
    let rows: Vec<_> = std::iter::once(["MEASURE", "STATE", "MEANS"])
        .chain(rows)
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.len()).max().unwrap_or_default()
    };
    let (first, second) = (width(0), width(1));
    let lines = rows
        .iter()
        .map(|[measure, state, detail]| format!("{measure:first$}  {state:second$}  {detail}\n"));
    lines.collect()
}

fn files(config: &Config, vault: &vault::Source) -> Files {
    let recordings = vault.directory().to_owned();
    let write = [config.data_dir.clone(), recordings]
        .into_iter()
        .chain(config.audit.directories());
    // What is in the bucket is fetched over TLS, whose authorities are read when it is opened.
    let authorities = matches!(vault, vault::Source::Bucket { .. })
        .then(|| config::SYSTEM_CA.into_iter().chain(["/etc/ssl/certs"]))
        .into_iter()
        .flatten()
        .map(Path::new)
        .map(PathBuf::from);
    Files {
        read: names()
            .chain(authorities)
            .chain(config.audit.token_files())
            .collect(),
        write: write.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_configuration_names_is_kept_and_nothing_else_is_written() {
        let text = "cluster: example\ndata_dir: /srv/m\nsealing:\n  key_file: /etc/m.key\n\
                    recordings:\n  directory: /srv/r\n\
                    audit:\n  sinks:\n  - { name: a, file: { path: /tmp/log } }\n\
                    \u{20} - { name: b, webhook: { url: 'https://x/', token_file: /srv/token } }\n";
        let config: Config = serde_saphyr::from_str(text).unwrap();
        let source = vault::Source::read(&config.recordings, "hub", &config.data_dir).unwrap();
        let files = files(&config, &source);
        let written = ["/srv/m", "/srv/r", "/tmp"].map(PathBuf::from);
        assert_eq!(files.write, written);
        assert!(files.read.contains(&PathBuf::from("/srv/token")));
        assert!(files.read.contains(&PathBuf::from("/etc/resolv.conf")));
        assert!(!files.read.contains(&PathBuf::from("/etc/m.key")));
        assert!(!files.read.iter().any(|path| path.starts_with("/etc/ssl")));
    }
}
