//! `recordings:` where they lie, who can read them, and how long they are kept.

use std::path::PathBuf;

use mezite_auth::{Keep, Retention, RetentionRule};
use mezite_core::{RoleName, Span};
use mezite_record::Recipient;
use serde::Deserialize;

/// All of `recordings:`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Recordings {
    /// A directory that all hubs of the cluster share; default: `recordings` in the data directory.
    pub(crate) directory: Option<PathBuf>,
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
            recipients: vec![Reader::Hub],
            keep: Kept(Keep::Forever),
            rules: Vec::new(),
        }
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
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
