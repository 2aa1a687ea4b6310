//! `play`: shows a recording as it was seen, from the hub or from a file.

mod keys;
mod player;

use std::fs::File;
use std::io::{BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use mezite_core::{Secret, SessionId, Span};
use mezite_record::play::{RESET, Speed, Timeline};
use mezite_record::{Ending, Identity, ReadError, Recording};

use crate::fail::Failure;
use crate::home::Login;
use crate::hub;
use crate::out;
use crate::recording;

/// No file with identities is longer.
const MAX_IDENTITIES: u64 = 64 * 1024;

/// What `play` takes.
#[derive(Debug, Args)]
pub(crate) struct PlayArgs {
    /// The session, as `msh sessions` shows it.
    #[arg(
        value_name = "ID",
        required_unless_present = "file",
        conflicts_with = "file"
    )]
    session: Option<SessionId>,
    /// How fast: 2 is twice as fast, 0.5 half.
    #[arg(long, value_name = "N", default_value = "1")]
    speed: Speed,
    /// Wait no longer than this where nothing happened.
    #[arg(long, value_name = "SPAN")]
    idle_limit: Option<Span>,
    /// Show at once what came before.
    #[arg(long, value_name = "SPAN")]
    from: Option<Span>,
    /// Which channel, where the session had several.
    #[arg(long, value_name = "N")]
    channel: Option<u32>,
    /// Play this file, without a hub.
    #[arg(long, value_name = "FILE", requires = "identity")]
    file: Option<PathBuf>,
    /// The age identity that opens the recording, where the hub cannot.
    #[arg(long, value_name = "KEY")]
    identity: Option<PathBuf>,
    /// List commands and remarks with their times, and play nothing.
    #[arg(long)]
    marks: bool,
}

/// Plays a file; `None` when a session of the hub is meant.
pub(crate) async fn offline(args: &PlayArgs) -> Option<Result<(), Failure>> {
    let (file, identity) = (args.file.as_ref()?, args.identity.as_ref()?);
    let loaded = from_file(file, identity, args.channel);
    Some(match loaded {
        Ok((timeline, ending)) => perform(args, timeline, &ending).await,
        Err(failure) => Err(failure),
    })
}

pub(crate) async fn online(args: &PlayArgs, login: &Login) -> Result<(), Failure> {
    let id = args
        .session
        .ok_or_else(|| Failure::usage("which session? `msh sessions` shows them"))?;
    let channel = args.channel;
    let own = args.identity.as_deref().map(read_identities).transpose()?;
    let opened = recording::open(&mut hub::hub(login).await?, id).await?;
    let progress = recording::progress(opened.bytes(), false);
    let (timeline, ending, found) = opened
        .read_frames(own.unwrap_or_default(), progress, move |mut frames| {
            let timeline = Timeline::collect(frames.by_ref(), channel).map_err(Failure::failed)?;
            Ok((timeline, frames.ending(), frames.header().session_id))
        })
        .await?;
    if found != id {
        return Err(Failure::failed(format_args!(
            "the hub sent the recording of session {found}, not of {id}"
        )));
    }
    perform(args, timeline, &ending).await
}

fn from_file(
    file: &Path,
    identity: &Path,
    channel: Option<u32>,
) -> Result<(Timeline, Ending), Failure> {
    let identities = read_identities(identity)?;
    let source = File::open(file).map_err(|error| unreadable(file, &error))?;
    let mut recording =
        Recording::open(BufReader::new(source), identities).map_err(Failure::failed)?;
    let timeline: Result<Timeline, ReadError> = Timeline::collect(recording.by_ref(), channel);
    Ok((timeline.map_err(Failure::failed)?, recording.ending()))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format_args!("cannot read `{}`: {error}", path.display()))
}

/// The age identities in a file, one a line, as `age-keygen` writes them.
pub(super) fn read_identities(path: &Path) -> Result<Vec<Identity>, Failure> {
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_IDENTITIES).read_to_string(&mut text));
    let text = Secret::new(text);
    read.map_err(|error| unreadable(path, &error))?;
    let lines = text.expose().lines();
    let found: Vec<Identity> = lines.filter_map(|line| line.parse().ok()).collect();
    if found.is_empty() {
        return Err(Failure::usage(format_args!(
            "`{}` holds no age identity: expected a line AGE-SECRET-KEY-1…",
            path.display()
        )));
    }
    Ok(found)
}

async fn perform(args: &PlayArgs, mut timeline: Timeline, ending: &Ending) -> Result<(), Failure> {
    if args.marks {
        for mark in timeline.marks() {
            let label = out::plain(&mark.label);
            out::line(format_args!("{}  {label}", player::clock(mark.at)))?;
        }
        return Ok(());
    }
    timeline.set_speed(args.speed);
    timeline.set_idle_limit(args.idle_limit);
    let from = args.from;
    if std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        player::with_keys(timeline, from)?;
    } else {
        tokio::select! {
            played = player::straight(&mut timeline, from) => played?,
            _ = tokio::signal::ctrl_c() => {}
        }
        if std::io::stdout().is_terminal() {
            out::bytes(RESET.as_bytes())?;
        }
    }
    if let Ending::Open { .. } = ending {
        out::note("the recording has no end: the session still runs, or was cut off");
    }
    Ok(())
}
