//! `audit:` and `disk:`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use mezite_auth::{Export, LogRetention};
use mezite_core::Span;
use mezite_net::tls::Outside;
use mezite_sinks::{JsonLines, Syslog, Url, Webhook};
use serde::Deserialize;

use crate::disk;

/// Where distributions keep the authorities that everybody trusts, all in one file.
pub(crate) const SYSTEM_CA: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// The audit log.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Audit {
    /// How long events are kept.
    pub(crate) retention: Keep,
    /// Who gets copies.
    pub(crate) sinks: Vec<Receiver>,
}

/// How long events are kept.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Keep {
    /// For types that are not named. `forever` unless it is set.
    pub(crate) default: Age,
    /// By event type, or by a prefix of types that ends with a dot.
    pub(crate) types: BTreeMap<String, Age>,
}

/// A time like `90d`, or `forever`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Age(Option<Span>);

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self(None));
        }
        let span: Span = text
            .parse()
            .map_err(|error| format!("{error}; or `forever`"))?;
        if span < Span::from_secs(24 * 60 * 60) {
            return Err(format!(
                "`{text}` is less than a day, the least that events are kept"
            ));
        }
        Ok(Self(Some(span)))
    }
}

/// A number of bytes like `64MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor: Option<u64> = match text.strip_prefix(digits) {
            Some("" | "B") => Some(1),
            Some("KiB") => Some(1 << 10),
            Some("MiB") => Some(1 << 20),
            Some("GiB") => Some(1 << 30),
            Some("TiB") => Some(1 << 40),
            Some(_) | None => None,
        };
        let number: Option<u64> = digits.parse().ok();
        let size = number
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor));
        size.map(Self).ok_or_else(|| {
            format!(
                "`{}` is no size: write 64MiB, 1GiB or a number of bytes",
                text.escape_default()
            )
        })
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// One receiver: `name`, and one of the others.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Receiver {
    name: String,
    file: Option<FileReceiver>,
    syslog: Option<SyslogReceiver>,
    webhook: Option<WebhookReceiver>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileReceiver {
    path: PathBuf,
    /// When the file is renamed and a new one begun.
    #[serde(default = "default_max_size")]
    max_size: Size,
    /// How many of the renamed are kept.
    #[serde(default = "default_keep")]
    keep: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SyslogReceiver {
    /// `host:port`
    address: String,
    #[serde(default = "default_tls")]
    tls: bool,
    ca_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookReceiver {
    url: String,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

fn default_max_size() -> Size {
    Size(100 << 20)
}

fn default_keep() -> usize {
    10
}

fn default_tls() -> bool {
    true
}

/// What happens when the disk fills up.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Disk {
    /// Kept free for administrators when the disk is full.
    pub(crate) reserve: Size,
    /// Less than this is a warning.
    pub(crate) warn_below: Size,
    /// What becomes of running sessions when the disk is full.
    pub(crate) sessions: Sessions,
}

/// What becomes of running sessions when the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sessions {
    /// They end.
    End,
    /// They go on until their recording cannot be written.
    Keep,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            reserve: Size(64 << 20),
            warn_below: Size(1 << 30),
            sessions: Sessions::End,
        }
    }
}

impl Disk {
    pub(crate) fn plan(&self) -> disk::Plan {
        disk::Plan {
            reserve: self.reserve.0,
            warn_below: self.warn_below.0,
        }
    }
}

impl Audit {
    pub(crate) fn retention(&self) -> LogRetention {
        let types = self.retention.types.iter();
        LogRetention {
            default: self.retention.default.0,
            types: types.map(|(name, age)| (name.clone(), age.0)).collect(),
        }
    }

    /// What can be seen without touching anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(name) = self.retention().unknown_types().next() {
            return Err(format!(
                "audit.retention.types: there is no event type `{}`: EVENTS.md lists them, and a prefix ends with a dot",
                name.escape_default()
            ));
        }
        let mut names = BTreeSet::new();
        for receiver in &self.sinks {
            receiver.check()?;
            if !names.insert(&receiver.name) {
                return Err(format!(
                    "audit.sinks: two receivers are called `{}`",
                    receiver.name
                ));
            }
        }
        Ok(())
    }

    /// Where receivers write.
    pub(crate) fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let files = self.sinks.iter().filter_map(|sink| sink.file.as_ref());
        files.filter_map(|file| file.path.parent().map(Path::to_owned))
    }

    /// What is read again and again.
    pub(crate) fn token_files(&self) -> impl Iterator<Item = PathBuf> {
        let hooks = self.sinks.iter().filter_map(|sink| sink.webhook.as_ref());
        hooks.filter_map(|hook| hook.token_file.clone())
    }

    /// The receivers, ready to be served by `hub`.
    pub(crate) fn exports(&self, hub: &str) -> Result<Vec<Export>, String> {
        self.sinks
            .iter()
            .map(|receiver| receiver.export(hub))
            .collect()
    }
}

impl Receiver {
    fn check(&self) -> Result<(), String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=64).contains(&self.name.len()) || !self.name.bytes().all(plain) {
            return Err(format!(
                "audit.sinks: `{}` is no name: 1 to 64 letters, digits, `-`, `_` or `.`",
                self.name.escape_default()
            ));
        }
        let bad = |what: String| format!("audit.sinks `{}`: {what}", self.name);
        match (&self.file, &self.syslog, &self.webhook) {
            (Some(file), None, None) => file.check(),
            (None, Some(syslog), None) => syslog.way().and_then(|_| syslog.place()).map(|_| ()),
            (None, None, Some(webhook)) => webhook.way().and_then(|_| webhook.place()).map(|_| ()),
            _ => Err("write exactly one of `file`, `syslog` and `webhook`".to_owned()),
        }
        .map_err(bad)
    }

    fn export(&self, hub: &str) -> Result<Export, String> {
        let bad = |what: String| format!("audit.sinks `{}`: {what}", self.name);
        let sink: Arc<dyn mezite_audit::Sink> = match (&self.file, &self.syslog, &self.webhook) {
            (Some(file), _, _) => {
                let opened = JsonLines::open(file.path.clone(), file.max_size.0, file.keep);
                Arc::new(opened.map_err(|error| bad(error.to_string()))?)
            }
            (None, Some(syslog), _) => {
                let (host, port) = syslog.place().map_err(bad)?;
                let way = syslog.way().map_err(bad)?;
                Arc::new(Syslog::new(way, host, port, hub.to_owned()))
            }
            (None, None, Some(webhook)) => {
                let (way, url) = (webhook.way().map_err(bad)?, webhook.place().map_err(bad)?);
                Arc::new(Webhook::new(way, url, webhook.token_file.clone()))
            }
            (None, None, None) => return Err(bad("it goes nowhere".to_owned())),
        };
        Ok(Export {
            name: self.name.clone(),
            sink,
            shared: self.file.is_none(),
        })
    }
}

impl FileReceiver {
    fn check(&self) -> Result<(), String> {
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => return Err(format!("`{}` is no whole path", self.path.display())),
        };
        if directory.is_dir() {
            Ok(())
        } else {
            Err(format!(
                "there is no directory `{}`: make it first, for the hub's own account",
                directory.display()
            ))
        }
    }
}

impl SyslogReceiver {
    fn place(&self) -> Result<(String, u16), String> {
        let address =
            mezite_api::request::address(&self.address).map_err(|error| error.to_string())?;
        let (host, port) = address.rsplit_once(':').unwrap_or((&address, "0"));
        let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Ok((host.to_owned(), port))
    }

    fn way(&self) -> Result<Outside, String> {
        match (&self.ca_file, self.tls) {
            (Some(_), false) => Err("`ca_file` means nothing with `tls: false`".to_owned()),
            (None, false) => Ok(Outside::dangerously_plain()),
            (file, true) => outside(file.as_deref()),
        }
    }
}

impl WebhookReceiver {
    fn place(&self) -> Result<Url, String> {
        if let Some(file) = &self.token_file {
            crate::check_secret_file(file)?;
        }
        // The text may hold a secret, so it is not repeated.
        self.url.parse().map_err(|error| format!("`url`: {error}"))
    }

    fn way(&self) -> Result<Outside, String> {
        outside(self.ca_file.as_deref())
    }
}

fn outside(file: Option<&Path>) -> Result<Outside, String> {
    let system = || {
        SYSTEM_CA
            .map(Path::new)
            .into_iter()
            .find(|path| path.exists())
    };
    let path = file.or_else(system).ok_or(
        "this system has no file of certificate authorities: name the receiver's with `ca_file`",
    )?;
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
    Outside::tls(&pem).map_err(|error| {
        format!("the certificate authorities in `{shown}` cannot be used: {error}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Audit, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    fn refused(text: &str) -> String {
        match parse(text) {
            Err(error) => error,
            Ok(audit) => audit.check().unwrap_err(),
        }
    }

    #[test]
    fn receivers_and_ages_are_read() {
        let audit = parse(
            "retention: { default: 400d, types: { session.: 90d, lock.created: forever } }\n\
             sinks:\n\
             - name: archive\n  file: { path: /tmp/audit.jsonl, max_size: 1GiB }\n\
             - name: siem\n  syslog: { address: '[::1]:6514', tls: false }\n",
        )
        .unwrap();
        audit.check().unwrap();
        let retention = audit.retention();
        assert_eq!(
            retention.age("session.end"),
            Some(Span::from_secs(90 * 86_400))
        );
        assert_eq!(retention.age("lock.created"), None);
        let place = audit.sinks[1].syslog.as_ref().unwrap().place().unwrap();
        assert_eq!(place, ("::1".to_owned(), 6514));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("sinks: [{ name: a }]", "exactly one of"),
            (
                "sinks: [{ name: a b, syslog: { address: 'x:1', tls: false } }]",
                "is no name",
            ),
            (
                "sinks: [{ name: a, syslog: { address: 'x:1', tls: false } }, { name: a, syslog: { address: 'x:1', tls: false } }]",
                "two receivers",
            ),
            (
                "sinks: [{ name: a, syslog: { address: x, tls: false } }]",
                "host:port",
            ),
            (
                "sinks: [{ name: a, syslog: { address: 'x:1', ca_file: /no/such } }]",
                "/no/such",
            ),
            (
                "sinks: [{ name: a, syslog: { address: 'x:1', ca_file: /etc/hostname } }]",
                "no certificate",
            ),
            (
                "sinks: [{ name: a, file: { path: /no/such/dir/x } }]",
                "/no/such/dir",
            ),
            (
                "sinks: [{ name: a, file: { path: /tmp/x, max_size: 5MB } }]",
                "is no size",
            ),
            ("sinks: [{ name: a, sylog: { address: 'x:1' } }]", "sylog"),
            ("retention: { default: 1h }", "less than a day"),
            ("retention: { default: long }", "forever"),
            (
                "retention: { types: { sesion.: 9d } }",
                "there is no event type `sesion.`",
            ),
        ] {
            let error = refused(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn attack_79_a_secret_in_a_url_is_refused_and_not_repeated() {
        for url in [
            "https://u:sesame@x/",
            "https://x/?token=sesame",
            "http://sesame/",
        ] {
            let error = refused(&format!(
                "sinks: [{{ name: a, webhook: {{ url: '{url}' }} }}]"
            ));
            assert!(
                error.contains("`url`") && !error.contains("sesame"),
                "{error}"
            );
        }
    }
}
