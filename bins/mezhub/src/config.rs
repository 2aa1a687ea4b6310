//! `mezite.yaml`: defaults, then the file, then `MEZITE_*` variables. An unknown key is an error with its place.

mod audit;
mod hardening;
mod recordings;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use mezite_core::{ClusterName, Span};
use serde::Deserialize;
use thiserror::Error;

pub(crate) use audit::{Audit, Disk, SYSTEM_CA, Sessions};
pub(crate) use hardening::Hardening;
pub(crate) use recordings::{Recordings, S3};

/// Where the file is looked for.
pub(crate) const DEFAULT_PATH: &str = "/etc/mezite/mezite.yaml";

/// Why there is no configuration.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{path}`: {error}")]
    Read { path: String, error: std::io::Error },
    /// The file does not say what it must.
    #[error("{path}: {error}")]
    Parse { path: String, error: String },
    /// A variable does not say what it must.
    #[error("environment variable {name}: {error}")]
    Variable { name: String, error: String },
    /// Two settings do not fit.
    #[error("{0}")]
    Invalid(String),
}

/// Everything that can be configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The cluster's name. Required, and fixed from the first start on.
    pub(crate) cluster: ClusterName,
    /// This hub's name among the cluster's hubs.
    #[serde(default = "default_hub")]
    pub(crate) hub: String,
    /// Host names and addresses under which people and agents reach this hub.
    #[serde(default)]
    pub(crate) names: Vec<String>,
    /// Database, recordings, sockets.
    #[serde(default = "default_data_dir")]
    pub(crate) data_dir: PathBuf,
    /// Which database.
    #[serde(default)]
    pub(crate) store: Store,
    /// Where it listens.
    #[serde(default)]
    pub(crate) listen: Listen,
    /// What it tells others, where that differs from name and port.
    #[serde(default)]
    pub(crate) advertise: Advertise,
    /// What seals the private keys at rest. Required.
    pub(crate) sealing: Sealing,
    /// What sealed them before: at the next start they are sealed anew. To be removed afterwards.
    #[serde(default)]
    pub(crate) sealing_previous: Option<Sealing>,
    /// Life of identity certificates.
    #[serde(default)]
    pub(crate) identity: Identity,
    /// How long the hub goes on without having confirmed roles and locks with its database.
    #[serde(default = "default_lock_staleness")]
    pub(crate) lock_staleness: Span,
    /// Addresses from which stock sshds see this hub.
    #[serde(default)]
    pub(crate) egress: Vec<IpAddr>,
    /// How long events are kept, and who gets copies of them.
    #[serde(default)]
    pub(crate) audit: Audit,
    /// What happens when the disk fills up.
    #[serde(default)]
    pub(crate) disk: Disk,
    /// Where recordings lie, who can read them, and how long they are kept.
    #[serde(default)]
    pub(crate) recordings: Recordings,
    /// What the hub gives up when it starts.
    #[serde(default)]
    pub(crate) hardening: Hardening,
    /// What it writes to standard error.
    #[serde(default)]
    pub(crate) log: Log,
}

/// The database.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(crate) enum Store {
    /// One file in the data directory, for one hub.
    #[default]
    Sqlite,
    /// A database that several hubs share.
    Postgres(Postgres),
}

/// How to reach it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Postgres {
    /// `postgres://user@host/database`, or as libpq takes it otherwise.
    pub(crate) url: Url,
    /// The password in a file that is its owner's alone.
    pub(crate) password_file: Option<PathBuf>,
    /// The certificates, in PEM, of the authority that signed the server's.
    pub(crate) ca_file: Option<PathBuf>,
}

/// A connection string. A password may be in it, so it is never shown.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Url(pub(crate) String);

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Url(redacted)")
    }
}

/// Listening addresses.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Listen {
    /// API for people, `msh`, login and join.
    pub(crate) https: SocketAddr,
    /// The gateway.
    pub(crate) ssh: SocketAddr,
    /// Agents.
    pub(crate) tunnel: SocketAddr,
    /// gRPC between services.
    pub(crate) auth: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Self {
            https: any(3080),
            ssh: any(3023),
            tunnel: any(3024),
            auth: any(3025),
        }
    }
}

/// Advertised `host:port`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Advertise {
    /// For `msh login --proxy`.
    pub(crate) https: Option<String>,
    /// For stock ssh.
    pub(crate) ssh: Option<String>,
    /// For agents.
    pub(crate) tunnel: Option<String>,
}

/// One of three ways to unseal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(crate) enum Sealing {
    /// 64 hexadecimal digits in a file outside the data directory.
    KeyFile(PathBuf),
    /// A passphrase in a file outside the data directory.
    PassphraseFile(PathBuf),
    /// The name of a systemd credential that holds a key like `key_file`.
    SystemdCredential(String),
}

/// Life of identity certificates.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Identity {
    /// When the user asks for none.
    pub(crate) default_ttl: Span,
    /// The most a user can ask for.
    pub(crate) max_ttl: Span,
}

impl Default for Identity {
    fn default() -> Self {
        let twelve_hours = Span::from_secs(12 * 60 * 60);
        Self {
            default_ttl: twelve_hours,
            max_ttl: twelve_hours,
        }
    }
}

/// The log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// `text` or `json`.
    pub(crate) format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub(crate) level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: String::from("info"),
        }
    }
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn default_lock_staleness() -> Span {
    Span::from_secs(30)
}

fn default_hub() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .map_or_else(|| String::from("hub"), |name| name.to_ascii_lowercase())
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("/var/lib/mezite")
}

/// The variables, each with its place in the document.
const VARIABLES: [(&str, &[&str]); 24] = [
    ("MEZITE_CLUSTER", &["cluster"]),
    ("MEZITE_HUB", &["hub"]),
    ("MEZITE_DATA_DIR", &["data_dir"]),
    ("MEZITE_STORE_POSTGRES_URL", &["store", "postgres", "url"]),
    (
        "MEZITE_STORE_POSTGRES_PASSWORD_FILE",
        &["store", "postgres", "password_file"],
    ),
    (
        "MEZITE_STORE_POSTGRES_CA_FILE",
        &["store", "postgres", "ca_file"],
    ),
    ("MEZITE_RECORDINGS_DIRECTORY", &["recordings", "directory"]),
    (
        "MEZITE_RECORDINGS_S3_BUCKET",
        &["recordings", "s3", "bucket"],
    ),
    (
        "MEZITE_RECORDINGS_S3_ENDPOINT",
        &["recordings", "s3", "endpoint"],
    ),
    (
        "MEZITE_RECORDINGS_S3_REGION",
        &["recordings", "s3", "region"],
    ),
    (
        "MEZITE_RECORDINGS_S3_PREFIX",
        &["recordings", "s3", "prefix"],
    ),
    (
        "MEZITE_RECORDINGS_S3_ACCESS_KEY_FILE",
        &["recordings", "s3", "access_key_file"],
    ),
    ("MEZITE_LISTEN_HTTPS", &["listen", "https"]),
    ("MEZITE_LISTEN_SSH", &["listen", "ssh"]),
    ("MEZITE_LISTEN_TUNNEL", &["listen", "tunnel"]),
    ("MEZITE_LISTEN_AUTH", &["listen", "auth"]),
    ("MEZITE_ADVERTISE_HTTPS", &["advertise", "https"]),
    ("MEZITE_ADVERTISE_SSH", &["advertise", "ssh"]),
    ("MEZITE_ADVERTISE_TUNNEL", &["advertise", "tunnel"]),
    ("MEZITE_SEALING_KEY_FILE", &["sealing", "key_file"]),
    ("MEZITE_HARDENING_USER", &["hardening", "user"]),
    ("MEZITE_HARDENING_GROUP", &["hardening", "group"]),
    ("MEZITE_LOG_FORMAT", &["log", "format"]),
    ("MEZITE_LOG_LEVEL", &["log", "level"]),
];

impl Config {
    /// Reads `path` and lays the variables of `environment` over it.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line and column where there is one.
    pub(crate) fn load(
        path: &Path,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: shown.clone(),
            error,
        })?;
        Self::parse(&text, &shown, environment)
    }

    fn parse(
        text: &str,
        path: &str,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let in_file = |error: serde_saphyr::Error| ConfigError::Parse {
            path: path.to_owned(),
            error: one_line(&error),
        };
        // Parsed as it stands first: a mistake in the file is told with the file's line, whatever the variables say.
        let merged = overlay(text, environment)?;
        let config: Self = match &merged {
            None => serde_saphyr::from_str(text).map_err(in_file)?,
            Some((names, merged)) => serde_saphyr::from_str(merged).map_err(|error| {
                match serde_saphyr::from_str::<Self>(text) {
                    Err(own) if !is_missing(&own) => in_file(own),
                    _ => ConfigError::Variable {
                        name: names.clone(),
                        error: one_line(&error),
                    },
                }
            })?,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.identity.default_ttl > self.identity.max_ttl {
            return Err(ConfigError::Invalid(format!(
                "identity.default_ttl ({}) is longer than identity.max_ttl ({})",
                self.identity.default_ttl, self.identity.max_ttl
            )));
        }
        // Shorter, a moment of load ends sessions; longer, a lock may not reach a hub whose database is away.
        let bounds = Span::from_secs(5)..=Span::from_secs(300);
        if !bounds.contains(&self.lock_staleness) {
            return Err(ConfigError::Invalid(format!(
                "lock_staleness ({}) must be from {} to {}",
                self.lock_staleness,
                bounds.start(),
                bounds.end()
            )));
        }
        self.audit.check().map_err(ConfigError::Invalid)?;
        self.recordings.check().map_err(ConfigError::Invalid)?;
        if self.sealing_previous.as_ref() == Some(&self.sealing) {
            return Err(ConfigError::Invalid(String::from(
                "`sealing` and `sealing_previous` are the same: remove `sealing_previous`",
            )));
        }
        self.check_place(&self.sealing)?;
        self.sealing_previous
            .as_ref()
            .map_or(Ok(()), |previous| self.check_place(previous))
    }

    fn check_place(&self, sealing: &Sealing) -> Result<(), ConfigError> {
        let file = match sealing {
            Sealing::KeyFile(file) | Sealing::PassphraseFile(file) => file,
            Sealing::SystemdCredential(_) => return Ok(()),
        };
        let resolved =
            |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if resolved(file).starts_with(resolved(&self.data_dir)) {
            return Err(ConfigError::Invalid(format!(
                "the sealing key `{}` lies in the data directory `{}`, so whoever copies the one has the other: put it elsewhere",
                file.display(),
                self.data_dir.display()
            )));
        }
        Ok(())
    }
}

/// Line, column and what is wrong, without the excerpt that the library draws below it.
fn one_line(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

/// A key that the file leaves to a variable is no mistake of the file.
fn is_missing(error: &serde_saphyr::Error) -> bool {
    error.to_string().contains("missing field")
}

/// The document with the variables in it, and their names; `None` if none is set.
fn overlay(
    text: &str,
    environment: &BTreeMap<String, String>,
) -> Result<Option<(String, String)>, ConfigError> {
    let set: Vec<_> = VARIABLES
        .iter()
        .filter_map(|(name, place)| Some((name, place, environment.get(*name)?)))
        .collect();
    if set.is_empty() {
        return Ok(None);
    }
    let broken = |name: &str, error: String| ConfigError::Variable {
        name: name.to_owned(),
        error,
    };
    let mut document: serde_json::Value = if text.trim().is_empty() {
        serde_json::json!({})
    } else {
        match serde_saphyr::from_str(text) {
            Ok(document) => document,
            // The mistake is told by whoever parses the text itself.
            Err(_) => return Ok(None),
        }
    };
    let mut names = Vec::new();
    for (name, place, value) in set {
        let mut at = &mut document;
        for key in *place {
            let object = at
                .as_object_mut()
                .ok_or_else(|| broken(name, format!("`{key}` is not below a mapping")))?;
            at = object.entry(*key).or_insert_with(|| serde_json::json!({}));
        }
        *at = serde_json::Value::String(value.clone());
        names.push(*name);
    }
    Ok(Some((names.join(", "), document.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "cluster: example\nsealing:\n  key_file: /etc/mezite/sealing.key\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, "mezite.yaml", &BTreeMap::new())
    }

    #[test]
    fn a_small_file_is_enough() {
        let config = parse(SMALL).unwrap();
        assert_eq!(config.listen.ssh.port(), 3023);
        assert_eq!(config.data_dir, Path::new("/var/lib/mezite"));
    }

    #[test]
    fn an_unknown_key_is_told_with_its_place() {
        let error = parse(&format!("{SMALL}lisen:\n  ssh: 127.0.0.1:1\n"))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("mezite.yaml: "), "{error}");
        assert!(
            error.contains("lisen") && error.contains("line 4") && error.contains("column 1"),
            "{error}"
        );
    }

    #[test]
    fn variables_win_over_the_file() {
        let environment = BTreeMap::from([
            (
                String::from("MEZITE_LISTEN_SSH"),
                String::from("127.0.0.1:7"),
            ),
            (String::from("MEZITE_LOG_FORMAT"), String::from("json")),
        ]);
        let config = Config::parse(SMALL, "mezite.yaml", &environment).unwrap();
        assert_eq!(
            (config.listen.ssh.port(), config.listen.https.port()),
            (7, 3080)
        );
        assert_eq!(config.log.format, LogFormat::Json);
        let wrong = BTreeMap::from([(String::from("MEZITE_LISTEN_SSH"), String::from("nowhere"))]);
        let error = Config::parse(SMALL, "mezite.yaml", &wrong)
            .unwrap_err()
            .to_string();
        assert!(error.contains("MEZITE_LISTEN_SSH"), "{error}");
    }

    #[test]
    fn the_database_is_chosen_by_file_or_variable_and_its_url_is_not_shown() {
        assert!(matches!(parse(SMALL).unwrap().store, Store::Sqlite));
        assert!(matches!(
            parse(&format!("{SMALL}store: sqlite\n")).unwrap().store,
            Store::Sqlite
        ));
        let text =
            format!("{SMALL}store:\n  postgres:\n    url: postgres://mezite:hunter2@db/mezite\n");
        let config = parse(&text).unwrap();
        assert!(
            matches!(&config.store, Store::Postgres(postgres) if postgres.url.0.ends_with("@db/mezite"))
        );
        assert!(!format!("{config:?}").contains("hunter2"));
        let url = String::from("postgres://other@db/mezite");
        let environment =
            BTreeMap::from([(String::from("MEZITE_STORE_POSTGRES_URL"), url.clone())]);
        for text in [SMALL, &text] {
            let config = Config::parse(text, "mezite.yaml", &environment).unwrap();
            assert!(matches!(&config.store, Store::Postgres(postgres) if postgres.url.0 == url));
        }
        let unknown = parse(&format!("{SMALL}store:\n  postgres:\n    adress: x\n")).unwrap_err();
        let unknown = unknown.to_string();
        assert!(
            unknown.contains("adress") && unknown.contains("line 6"),
            "{unknown}"
        );
    }

    #[test]
    fn a_sealing_key_in_the_data_directory_is_refused() {
        let text = "cluster: example\ndata_dir: /srv/m\nsealing:\n  key_file: /srv/m/key\n";
        assert!(
            parse(text)
                .unwrap_err()
                .to_string()
                .contains("put it elsewhere")
        );
    }

    #[test]
    fn a_default_longer_than_the_ceiling_is_refused() {
        let text = format!("{SMALL}identity: {{ default_ttl: 13h }}\n");
        assert!(parse(&text).unwrap_err().to_string().contains("13h"));
    }
}
