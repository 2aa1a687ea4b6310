//! `recordings ls|export|verify|search|hold|release|prune`.

mod keep;
mod search;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use mezite_api::v1::{ListRecordingsRequest, Recording};
use mezite_core::{SessionId, UnixTime};
use mezite_record::Ending;
use mezite_record::export::{
    ExportError, Options, asciicast_v2, asciicast_v3, json as json_lines, text,
};
use serde_json::{Value, json};

use crate::fail::Failure;
use crate::files::{self, Output};
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
    /// Check digest and signature of a recording, or of all, and that the log knows the digest.
    #[command(
        after_help = "Examples:\n  mezctl recordings verify 018bcfe5-6800-7fff-bfff-ffffffffffff\n  mezctl recordings verify --all"
    )]
    Verify(verify::VerifyArgs),
    /// Find text in what was shown, in commands and in remarks, in every recording that you may read.
    #[command(
        after_help = "Example:\n  mezctl recordings search 'DROP TABLE' --ignore-case --since 30d"
    )]
    Search(search::SearchArgs),
    /// Put a recording on legal hold: retention leaves it alone.
    #[command(
        after_help = "Example:\n  mezctl recordings hold 018bcfe5-6800-7fff-bfff-ffffffffffff --reason 'case 2026-17'"
    )]
    Hold(keep::HoldArgs),
    /// Lift a legal hold.
    #[command(
        after_help = "Example:\n  mezctl recordings release 018bcfe5-6800-7fff-bfff-ffffffffffff --reason 'case closed'"
    )]
    Release(keep::HoldArgs),
    /// Delete the recordings that no rule of retention keeps any longer. The hub does it once a day by itself.
    #[command(after_help = "Example:\n  mezctl recordings prune --dry-run")]
    Prune(keep::PruneArgs),
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
    /// The same for asciinema 3 and later.
    AsciicastV3,
    /// A transcript for reading: what stood on the screen.
    Text,
    /// Every frame as a line of JSON.
    Json,
    /// The sealed file with its events, proofs and checkpoint, for `mezctl verify-bundle`.
    Bundle,
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
    /// The age identity that opens the recording, where the hub cannot.
    #[arg(long, value_name = "KEY")]
    identity: Option<PathBuf>,
}

pub(crate) async fn run(command: &Recordings, hub: &mut Hub) -> Result<(), Failure> {
    match command {
        Recordings::Ls(args) => ls(args, hub).await,
        Recordings::Export(args) => export(args, hub).await,
        Recordings::Verify(args) => verify::run(args, hub).await,
        Recordings::Search(args) => search::run(args, hub).await,
        Recordings::Hold(args) => keep::hold(args, hub).await,
        Recordings::Release(args) => keep::release(args, hub).await,
        Recordings::Prune(args) => keep::prune(args, hub).await,
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
        let mut table = Table::new(&[
            "SESSION", "USER", "TARGET", "STARTED", "BYTES", "STATE", "PLACE",
        ]);
        for recording in &recordings {
            table.row(&[
                recording.session_id.clone(),
                recording.user.clone(),
                format!("{}@{}", recording.login, recording.node),
                UnixTime::from_millis(recording.started_ms).to_string(),
                recording.bytes.to_string(),
                state(recording).to_owned(),
                recording.place.clone(),
            ]);
        }
        table
    })
}

fn state(recording: &Recording) -> &'static str {
    match (recording.sealed, recording.hold.is_empty()) {
        (_, false) => "held",
        (true, true) => "sealed",
        (false, true) => "open",
    }
}

fn document(recording: &Recording) -> Value {
    json!({
        "session": recording.session_id, "user": recording.user, "login": recording.login, "node": recording.node,
        "started": UnixTime::from_millis(recording.started_ms).to_string(), "bytes": recording.bytes,
        "sealed": recording.sealed, "hold": recording.hold, "place": recording.place,
    })
}

async fn export(args: &ExportArgs, hub: &mut Hub) -> Result<(), Failure> {
    let (id, form) = (args.id, args.format);
    if matches!(form, Form::Bundle) {
        return super::bundle::export(id, args.out.as_deref(), hub).await;
    }
    let options = Options {
        channel: args.channel,
        verbatim: args.verbatim,
    };
    let identity = args.identity.as_deref().map(files::identities);
    let identities = identity.transpose()?.unwrap_or_default();
    let opened = recording::open(&mut hub.client, id).await?;
    let progress = recording::progress(opened.bytes(), args.out.is_none());
    let mut output = Output::open(args.out.as_deref())?;
    let (output, ending) = opened
        .read_frames(identities, progress, move |mut frames| {
            let header = frames.header().clone();
            if header.session_id != id {
                return Err(Failure::failed(
                    "the hub sent the recording of another session",
                ));
            }
            let written = match form {
                Form::AsciicastV2 => asciicast_v2(&header, frames.by_ref(), options, &mut output),
                Form::AsciicastV3 => asciicast_v3(&header, frames.by_ref(), options, &mut output),
                Form::Text => text(&header, frames.by_ref(), options, &mut output),
                Form::Json | Form::Bundle => {
                    json_lines(&header, frames.by_ref(), options, &mut output)
                }
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
