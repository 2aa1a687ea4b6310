//! `recordings:` where they lie, who can read them, and how long they are kept.

use std::net::IpAddr;
use std::path::PathBuf;

use mezite_auth::{Keep, Retention, RetentionRule};
use mezite_core::{RoleName, Span};
use mezite_record::Recipient;
use serde::Deserialize;

use super::audit::Size;

/// All of `recordings:`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Recordings {
    /// A directory that all hubs of the cluster share; default: `recordings` in the data directory.
    pub(crate) directory: Option<PathBuf>,
    /// In S3-compatible storage instead.
    pub(crate) s3: Option<S3>,
    /// Who can read new recordings: `hub`, age recipients (`age1…`), or both. Without `hub` the hub cannot read what it
    /// wrote.
    pub(crate) recipients: Vec<Reader>,
    /// How long recordings are kept from the start of their session: `forever` or a span.
    pub(crate) keep: Kept,
    /// Other times for the recordings of users with certain roles. Where several fit, the longest counts.
    pub(crate) rules: Vec<Rule>,
}

impl Default for Recordings {
    fn default() -> Self {
        Self {
            directory: None,
            s3: None,
            recipients: vec![Reader::Hub],
            keep: Kept(Keep::Forever),
            rules: Vec::new(),
        }
    }
}

/// `recordings.s3`. The access key comes from a file, a systemd credential, or a variable, as `ID:SECRET`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct S3 {
    pub(crate) bucket: String,
    /// `https://host[:port]`; Amazon's own by default.
    pub(crate) endpoint: Option<String>,
    #[serde(default = "default_region")]
    pub(crate) region: String,
    /// What all names begin with.
    #[serde(default)]
    pub(crate) prefix: String,
    pub(crate) access_key_file: Option<PathBuf>,
    /// The name of a systemd credential.
    pub(crate) access_key_credential: Option<String>,
    /// The certificates, in PEM, of the authority that signed the store's.
    pub(crate) ca_file: Option<PathBuf>,
    /// A directory for what is not in the bucket yet; default: `spool` in the data directory.
    pub(crate) spool: Option<PathBuf>,
    /// How much the bucket may lack before sessions stop.
    #[serde(default = "default_spool_limit")]
    pub(crate) spool_limit: Size,
    /// How much of the search indexes in the bucket is kept on the disk as well, in the spool.
    #[serde(default = "default_index_cache")]
    pub(crate) index_cache: Size,
    /// Hubs whose disks are gone for good: what they had uploaded of unfinished sessions is sealed at the next start.
    #[serde(default)]
    pub(crate) lost_hubs: Vec<String>,
}

fn default_region() -> String {
    String::from("us-east-1")
}

fn default_spool_limit() -> Size {
    Size(1 << 30)
}

fn default_index_cache() -> Size {
    Size(256 << 20)
}

impl S3 {
    fn check(&self) -> Result<(), String> {
        if self.bucket.is_empty() {
            return Err(String::from("recordings.s3.bucket is empty"));
        }
        if self.access_key_file.is_some() && self.access_key_credential.is_some() {
            return Err(String::from(
                "recordings.s3 has both access_key_file and access_key_credential: remove one",
            ));
        }
        if self.spool_limit.0 < 1 << 20 {
            return Err(format!(
                "recordings.s3.spool_limit is {} bytes: at least 1MiB",
                self.spool_limit.0
            ));
        }
        self.endpoint.as_deref().map_or(Ok(()), check_endpoint)
    }

    /// For people.
    pub(crate) fn place(&self) -> &str {
        self.endpoint.as_deref().unwrap_or(&self.region)
    }
}

/// TLS, except to this machine: the access key signs requests and is not sent, but the facts of sessions are.
fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let wrong = |why: &str| format!("recordings.s3.endpoint `{}` {why}", endpoint.escape_debug());
    let uri: hyper::Uri = endpoint
        .parse()
        .map_err(|_| wrong("is no address: write https://host or https://host:port"))?;
    let host = uri.host().unwrap_or_default();
    let here = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse()
            .is_ok_and(|it: IpAddr| it.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if here => Ok(()),
        Some("http") => Err(wrong("is not encrypted: write https://")),
        Some(_) | None => Err(wrong(
            "is no address: write https://host or https://host:port",
        )),
    }
}

/// One of `recordings.rules`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    roles: Vec<RoleName>,
    keep: Kept,
}

/// `hub`, or an age recipient.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Reader {
    Hub,
    Other(Recipient),
}

impl TryFrom<String> for Reader {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "hub" {
            return Ok(Self::Hub);
        }
        let recipient = text.parse().map(Self::Other);
        recipient.map_err(|error| format!("{error}, or `hub`"))
    }
}

/// `forever`, or a span.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Kept(Keep);

impl TryFrom<String> for Kept {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self(Keep::Forever));
        }
        let span: Span = text
            .parse()
            .map_err(|error| format!("{error}, or `forever`"))?;
        if span < Span::from_secs(60 * 60) {
            return Err(format!(
                "recordings cannot be kept for {span} only: at least 1h"
            ));
        }
        Ok(Self(Keep::For(span)))
    }
}

impl Recordings {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.directory.is_some() && self.s3.is_some() {
            return Err(String::from(
                "recordings has both directory and s3: remove one (recordings.s3.spool is where the spool lies)",
            ));
        }
        self.s3.as_ref().map_or(Ok(()), S3::check)?;
        if self.recipients.is_empty() {
            return Err(String::from(
                "recordings.recipients is empty: nobody could read a recording; write `hub`, or age recipients",
            ));
        }
        if self.rules.iter().any(|rule| rule.roles.is_empty()) {
            return Err(String::from(
                "a rule in recordings.rules names no role, so it fits nobody: name one, or set recordings.keep",
            ));
        }
        Ok(())
    }

    pub(crate) fn retention(&self) -> Retention {
        let rules = self.rules.iter().map(|rule| RetentionRule {
            roles: rule.roles.clone(),
            keep: rule.keep.0,
        });
        Retention {
            keep: self.keep.0,
            rules: rules.collect(),
        }
    }

    /// The recipients, with `hub` for the hub's own.
    pub(crate) fn recipients(&self, hub: &Recipient) -> Vec<Recipient> {
        let each = self.recipients.iter().map(|reader| match reader {
            Reader::Hub => hub.clone(),
            Reader::Other(recipient) => recipient.clone(),
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Recordings, String> {
        let parsed: Recordings = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        parsed.check().map(|()| parsed)
    }

    #[test]
    fn times_and_readers_read_as_the_guide_writes_them() {
        let own = mezite_record::Identity::generate().recipient();
        let other = mezite_record::Identity::generate().recipient();
        let text = format!(
            "recipients: [hub, {other}]\nkeep: 90d\nrules:\n  - {{ roles: [dba], keep: forever }}\n"
        );
        let parsed = parse(&text).unwrap();
        assert_eq!(parsed.recipients(&own), [own.clone(), other]);
        let retention = parsed.retention();
        assert_eq!(retention.keep(Some(&["dba".into()])).0, Keep::Forever);
        assert_eq!(retention.keep(Some(&[])).1, "keep 90d");
        assert_eq!(parse("{}").unwrap().recipients(&own), [own]);
        for endpoint in [
            "https://s3.example.org:9000",
            "http://127.0.0.1:9000",
            "http://[::1]:1",
        ] {
            let text = format!("s3: {{ bucket: b, endpoint: '{endpoint}' }}");
            assert_eq!(parse(&text).unwrap().s3.unwrap().place(), endpoint);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_value() {
        for (text, told) in [
            ("keep: 5m", "5m"),
            ("keep: sometimes", "sometimes"),
            ("recipients: []", "nobody could read"),
            ("recipients: [age1x]", "age1x"),
            ("rules: [{ roles: [], keep: 90d }]", "names no role"),
            ("rules: [{ role: dba, keep: 90d }]", "role"),
            ("s3: { bucket: '' }", "bucket is empty"),
            ("directory: /r\ns3: { bucket: b }", "both directory and s3"),
            (
                "s3: { bucket: b, access_key_file: f, access_key_credential: c }",
                "remove one",
            ),
            (
                "s3: { bucket: b, endpoint: 'http://s3.example.org' }",
                "not encrypted",
            ),
            (
                "s3: { bucket: b, endpoint: s3.example.org }",
                "https://host",
            ),
            ("s3: { bucket: b, endpoint: 'ftp://host' }", "ftp://host"),
            ("s3: { bucket: b, spool_limit: 4KiB }", "4096"),
            ("s3: { bucket: b, index_cache: much }", "much"),
            ("s3: { bucket: b, secret: x }", "secret"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
