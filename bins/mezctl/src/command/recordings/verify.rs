//! `recordings verify`: digest and signature of recordings, against what the log tells of them.

use std::collections::BTreeMap;

use clap::Args;
use indicatif::ProgressBar;
use mezite_api::v1::ExportLogRequest;
use mezite_api::v1::export_log_response::Item;
use mezite_core::SessionId;
use mezite_record::verify;
use serde_json::Value;

use crate::fail::Failure;
use crate::hub::{Hub, within};
use crate::out;
use crate::recording;

/// What `recordings verify` takes.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The session.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<SessionId>,
    /// Every session of which the log tells a recording: each must be there and intact, or deleted by an event.
    #[arg(long)]
    all: bool,
}

/// What the log tells of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    digest: Option<String>,
    /// By which rule it was deleted, and when.
    deleted: Option<String>,
}

/// What the log tells of all recordings.
#[derive(Debug, Default)]
struct Log {
    keys: Vec<[u8; 32]>,
    told: BTreeMap<SessionId, Told>,
}

impl Log {
    async fn read(hub: &mut Hub) -> Result<Self, Failure> {
        let mut log = Self::default();
        let mut items = within(hub.client.export_log(ExportLogRequest::default())).await?;
        while let Some(answer) = items.message().await? {
            match answer.item {
                // The keys that sign recordings are those that seal the log.
                Some(Item::Keys(sent)) => {
                    let keys = sent.keys.into_iter().map(<[u8; 32]>::try_from);
                    let keys: Result<Vec<_>, _> = keys.collect();
                    log.keys = keys
                        .map_err(|_| Failure::failed("the hub sent an audit key that is none"))?;
                }
                Some(Item::Event(event)) => log.take(&event.body),
                _ => {}
            }
        }
        Ok(log)
    }

    fn take(&mut self, body: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Value>(body) else {
            return;
        };
        let field = |name: &str| event.get(name).and_then(Value::as_str);
        let (Some(kind), Some(Ok(id))) = (
            field("event_type"),
            field("session_id").map(str::parse::<SessionId>),
        ) else {
            return;
        };
        match (kind, field("recording_sha256")) {
            ("session.end" | "session.recording.recovered", Some(digest)) => {
                self.told.entry(id).or_default().digest = Some(digest.to_owned());
            }
            ("recording.deleted", digest) => {
                let rule = field("retention_rule").unwrap_or_default();
                let at = field("timestamp").unwrap_or_default();
                let told = self.told.entry(id).or_default();
                told.deleted = Some(format!("at {at} by the rule `{rule}`"));
                told.digest = told.digest.take().or_else(|| digest.map(str::to_owned));
            }
            _ => {}
        }
    }
}

pub(crate) async fn run(args: &VerifyArgs, hub: &mut Hub) -> Result<(), Failure> {
    let log = Log::read(hub).await?;
    if let Some(id) = args.id {
        let told = log.told.get(&id).cloned().unwrap_or_default();
        let fate = one(id, &told, &log, hub).await?;
        return out::line(format_args!("recording: {fate}"));
    }
    let bar = ProgressBar::new(u64::try_from(log.told.len()).unwrap_or(u64::MAX));
    let (mut intact, mut deleted, mut faults) = (0, 0, 0);
    for (id, told) in &log.told {
        match one(*id, told, &log, hub).await {
            Ok(Fate::Deleted(_)) => deleted += 1,
            Ok(Fate::Intact(_)) => intact += 1,
            Err(failure) if failure.is_of_the_recording() => {
                faults += 1;
                bar.suspend(|| out::note(format_args!("{id}: {failure}")));
            }
            Err(failure) => return Err(failure),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    out::line(format_args!(
        "recordings: {intact} intact, {deleted} deleted by retention, {faults} with faults"
    ))?;
    if faults > 0 {
        return Err(Failure::failed(format_args!(
            "{faults} recordings are not what the log says"
        )));
    }
    Ok(())
}

/// What became of a recording that is as the log says.
enum Fate {
    Intact(String),
    Deleted(String),
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Intact(text) | Self::Deleted(text) => f.write_str(text),
        }
    }
}

async fn one(id: SessionId, told: &Told, log: &Log, hub: &mut Hub) -> Result<Fate, Failure> {
    let opened = match recording::open(&mut hub.client, id).await {
        Ok(opened) => opened,
        Err(failure) if failure.is_of_the_recording() => return gone(told, failure),
        Err(failure) => return Err(failure),
    };
    let trusted = log.keys.clone();
    let progress = recording::progress(opened.bytes(), false);
    let verified = opened
        .read_bytes(progress, move |bytes| {
            verify(bytes, &trusted).map_err(Failure::failed)
        })
        .await?;
    if verified.header.session_id != id {
        return Err(Failure::failed(format_args!(
            "this is the recording of session {}, not of {id}",
            verified.header.session_id
        )));
    }
    let compared = compared(&verified.digest, told.digest.as_deref())?;
    let recovered = if verified.recovered {
        ", closed after its recorder died"
    } else {
        ""
    };
    Ok(Fate::Intact(format!(
        "verified, {} frames, {}{recovered}, sha256 {} ({compared})",
        verified.frames, verified.duration, verified.digest
    )))
}

/// A recording that is not there: fine only if an event tells of its deletion.
fn gone(told: &Told, failure: Failure) -> Result<Fate, Failure> {
    match (&told.deleted, &told.digest) {
        (Some(deleted), digest) => {
            let digest = digest.as_deref().unwrap_or("unknown");
            Ok(Fate::Deleted(format!("deleted {deleted}, sha256 {digest}")))
        }
        (None, Some(digest)) => Err(Failure::failed(format_args!(
            "the recording with sha256 {digest} is gone, and no event tells that it was deleted"
        ))),
        (None, None) => Err(failure),
    }
}

/// Whether the digest is the one that the log tells.
fn compared(found: &str, told: Option<&str>) -> Result<&'static str, Failure> {
    match told {
        Some(told) if told == found => Ok("as the log says"),
        Some(told) => Err(Failure::failed(format_args!(
            "the recording's digest is {found}, but the event of its end says {told}"
        ))),
        None => Ok("the log tells no digest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_digest_than_the_logs_is_a_fault() {
        assert!(compared("ab", Some("ab")).is_ok());
        assert!(compared("ab", None).is_ok());
        assert_eq!(compared("ab", Some("cd")).unwrap_err().code.number(), 1);
    }

    #[test]
    fn attack_51_a_recording_that_is_gone_is_a_fault_unless_an_event_tells_of_its_deletion() {
        let id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff".parse().unwrap();
        let mut log = Log::default();
        let end = format!(
            r#"{{"event_type":"session.end","session_id":"{id}","recording_sha256":"ab"}}"#
        );
        log.take(end.as_bytes());
        let missing = || Failure::failed("there is no recording");
        let told = log.told[&id].clone();
        let error = gone(&told, missing()).err().unwrap().to_string();
        assert!(
            error.contains("ab") && error.contains("no event"),
            "{error}"
        );
        let deleted = format!(
            r#"{{"event_type":"recording.deleted","session_id":"{id}","timestamp":"T","retention_rule":"keep 90d"}}"#
        );
        log.take(deleted.as_bytes());
        let told = &log.told[&id];
        let fate = gone(told, missing()).unwrap().to_string();
        assert_eq!(fate, "deleted at T by the rule `keep 90d`, sha256 ab");
        assert!(gone(&Told::default(), missing()).is_err());
    }
}
