//! `recordings ls`, `recordings export`, `recordings verify`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use mezite_api::v1::export_log_response::Item;
use mezite_api::v1::{ExportLogRequest, ListEventsRequest, ListRecordingsRequest, Recording};
use mezite_core::{SessionId, UnixTime};
use mezite_record::export::{ExportError, Options, asciicast_v2, json as json_lines, text};
use mezite_record::{Ending, verify};
use serde_json::{Value, json};

use crate::fail::Failure;
use crate::files::Output;
use crate::hub::{Hub, within};
use crate::out::{self, Format, Table};
use crate::recording;

/// What `recordings` takes.
#[derive(Debug, Subcommand)]
pub(crate) enum Recordings {
    /// List recordings, newest first.
    #[command(after_help = "Example:\n  mezctl recordings ls --user alice")]
    Ls(LsArgs),
    /// Write a recording in a form that other tools read.
    #[command(
        after_help = "Example:\n  mezctl recordings export --format asciicast-v2 018bcfe5-6800-7fff-bfff-ffffffffffff > session.cast"
    )]
    Export(ExportArgs),
    /// Check digest and signature of a recording, and that the log knows the digest.
    #[command(
        after_help = "Example:\n  mezctl recordings verify 018bcfe5-6800-7fff-bfff-ffffffffffff"
    )]
    Verify {
        /// The session.
        id: SessionId,
    },
}

/// What `recordings ls` takes.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only those of this user.
    #[arg(long, value_name = "NAME", default_value = "")]
    user: String,
    /// How many at most.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// How to show the list.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Forms of an export.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// For `asciinema play`: one channel with its timing.
    AsciicastV2,
    /// A transcript for reading and searching.
    Text,
    /// Every frame as a line of JSON.
    Json,
}

/// What `recordings export` takes.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The session.
    id: SessionId,
    /// In which form.
    #[arg(long, value_enum)]
    format: Form,
    /// Where to; standard output by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Only this channel.
    #[arg(long, value_name = "N")]
    channel: Option<u32>,
    /// Keep escape sequences that do more than paint; a terminal that plays the export obeys them.
    #[arg(long)]
    verbatim: bool,
}

pub(crate) async fn run(command: &Recordings, hub: &mut Hub) -> Result<(), Failure> {
    match command {
        Recordings::Ls(args) => ls(args, hub).await,
        Recordings::Export(args) => export(args, hub).await,
        Recordings::Verify { id } => check(*id, hub).await,
    }
}

async fn ls(args: &LsArgs, hub: &mut Hub) -> Result<(), Failure> {
    let request = ListRecordingsRequest {
        limit: args.limit,
        user: args.user.clone(),
    };
    let recordings = within(hub.client.list_recordings(request))
        .await?
        .recordings;
    let value: Value = recordings.iter().map(document).collect();
    out::show(args.output, &value, || {
        let mut table = Table::new(&["SESSION", "USER", "TARGET", "STARTED", "BYTES", "STATE"]);
        for recording in &recordings {
            table.row(&[
                recording.session_id.clone(),
                recording.user.clone(),
                format!("{}@{}", recording.login, recording.node),
                UnixTime::from_millis(recording.started_ms).to_string(),
                recording.bytes.to_string(),
                if recording.sealed { "sealed" } else { "open" }.to_owned(),
            ]);
        }
        table
    })
}

fn document(recording: &Recording) -> Value {
    json!({
        "session": recording.session_id, "user": recording.user, "login": recording.login, "node": recording.node,
        "started": UnixTime::from_millis(recording.started_ms).to_string(), "bytes": recording.bytes,
        "sealed": recording.sealed,
    })
}

async fn export(args: &ExportArgs, hub: &mut Hub) -> Result<(), Failure> {
    let (id, form) = (args.id, args.format);
    let options = Options {
        channel: args.channel,
        verbatim: args.verbatim,
    };
    let opened = recording::open(hub, id).await?;
    let mut output = Output::open(args.out.as_deref())?;
    let (output, ending) = opened
        .read_frames(move |mut frames| {
            let header = frames.header().clone();
            if header.session_id != id {
                return Err(Failure::failed(
                    "the hub sent the recording of another session",
                ));
            }
            let written = match form {
                Form::AsciicastV2 => asciicast_v2(&header, frames.by_ref(), options, &mut output),
                Form::Text => text(&header, frames.by_ref(), options, &mut output),
                Form::Json => json_lines(&header, frames.by_ref(), options, &mut output),
            };
            written.map_err(stopped)?;
            Ok((output, frames.ending()))
        })
        .await?;
    output.finish()?;
    if let Ending::Open { .. } = ending {
        out::note("the recording has no end: the session still runs, or was cut off");
    }
    Ok(())
}

fn stopped(error: ExportError) -> Failure {
    match &error {
        ExportError::Write(error) => Failure::output(error),
        ExportError::Read(_) | _ => Failure::failed(error),
    }
}

async fn check(id: SessionId, hub: &mut Hub) -> Result<(), Failure> {
    let trusted = audit_keys(hub).await?;
    let told = told_digest(hub, id).await?;
    let opened = recording::open(hub, id).await?;
    let verified = opened
        .read_bytes(move |bytes| verify(bytes, &trusted).map_err(Failure::failed))
        .await?;
    if verified.header.session_id != id {
        return Err(Failure::failed(format_args!(
            "this is the recording of session {}, not of {id}",
            verified.header.session_id
        )));
    }
    let log = compared(&verified.digest, told.as_deref())?;
    let recovered = if verified.recovered {
        ", closed after its recorder died"
    } else {
        ""
    };
    out::line(format_args!(
        "recording: verified, {} frames, {}{recovered}, sha256 {} ({log})",
        verified.frames, verified.duration, verified.digest
    ))
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

/// The keys that sign recordings are those that seal the log.
async fn audit_keys(hub: &mut Hub) -> Result<Vec<[u8; 32]>, Failure> {
    let mut items = within(hub.client.export_log(ExportLogRequest {})).await?;
    let first = items.message().await?.and_then(|answer| answer.item);
    let Some(Item::Keys(keys)) = first else {
        return Err(Failure::failed(
            "the hub's log does not begin with its keys",
        ));
    };
    let keys = keys.keys.into_iter().map(<[u8; 32]>::try_from);
    keys.collect::<Result<_, _>>()
        .map_err(|_| Failure::failed("the hub sent an audit key that is none"))
}

/// The digest in the last event that tells one.
async fn told_digest(hub: &mut Hub, id: SessionId) -> Result<Option<String>, Failure> {
    let request = ListEventsRequest {
        session_id: id.to_string(),
        newest_first: true,
        limit: 100,
        ..Default::default()
    };
    let events = within(hub.client.list_events(request)).await?.events;
    Ok(events.iter().find_map(|event| {
        let body: Value = serde_json::from_slice(&event.body).ok()?;
        Some(body.get("recording_sha256")?.as_str()?.to_owned())
    }))
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
}
