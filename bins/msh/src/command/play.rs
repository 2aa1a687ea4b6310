//! `play`: shows a recording as it was seen, from the hub or from a file.

use std::fs::File;
use std::io::{BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use mezite_core::{SessionId, Span};
use mezite_record::play::{RESET, Shown, Speed, Timeline};
use mezite_record::{Ending, Identity, ReadError, Recording};

use crate::fail::Failure;
use crate::home::Login;
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
    /// The age identity that opens the file.
    #[arg(long, value_name = "KEY", requires = "file")]
    identity: Option<PathBuf>,
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
    let opened = recording::open(login, id).await?;
    let (timeline, ending, found) = opened
        .read(move |mut frames| {
            let timeline = Timeline::collect(frames.by_ref(), channel)?;
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
    let unreadable = |path: &Path, error: std::io::Error| {
        Failure::failed(format_args!("cannot read `{}`: {error}", path.display()))
    };
    let identities = identities(identity).map_err(|error| unreadable(identity, error))?;
    if identities.is_empty() {
        let path = identity.display();
        return Err(Failure::usage(format_args!(
            "`{path}` holds no age identity: expected a line AGE-SECRET-KEY-1…"
        )));
    }
    let source = File::open(file).map_err(|error| unreadable(file, error))?;
    let mut recording =
        Recording::open(BufReader::new(source), identities).map_err(Failure::failed)?;
    let timeline: Result<Timeline, ReadError> = Timeline::collect(recording.by_ref(), channel);
    Ok((timeline.map_err(Failure::failed)?, recording.ending()))
}

fn identities(path: &Path) -> std::io::Result<Vec<Identity>> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_IDENTITIES)
        .read_to_string(&mut text)?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

async fn perform(args: &PlayArgs, mut timeline: Timeline, ending: &Ending) -> Result<(), Failure> {
    timeline.set_speed(args.speed);
    timeline.set_idle_limit(args.idle_limit);
    let terminal = std::io::stdout().is_terminal();
    let played = tokio::select! {
        played = play(&mut timeline, args.from) => played,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    if terminal {
        out::bytes(RESET.as_bytes())?;
    }
    played?;
    if let Ending::Open { .. } = ending {
        out::note("the recording has no end: the session still runs, or was cut off");
    }
    Ok(())
}

async fn play(timeline: &mut Timeline, from: Option<Span>) -> Result<(), Failure> {
    if let Some(from) = from {
        for (_, shown) in timeline.seek(from) {
            show(shown)?;
        }
    }
    while let Some(step) = timeline.step() {
        tokio::time::sleep(step.wait.as_duration()).await;
        show(step.shown)?;
    }
    Ok(())
}

/// The watcher's terminal keeps its own size.
fn show(shown: &Shown) -> Result<(), Failure> {
    match shown {
        Shown::Text(text) => out::bytes(text.as_bytes()),
        Shown::Resize { .. } | _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_found_between_comments() {
        let identity = Identity::generate();
        let text = format!(
            "# created\n# public key\n{}\n",
            identity.to_secret_text().expose()
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let found = identities(file.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].recipient(), identity.recipient());
    }
}
