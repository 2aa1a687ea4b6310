//! `join`: watches a session while it runs. Nothing that the watcher types reaches it.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use mezite_core::SessionId;
use mezite_record::play::{Live, RESET};
use mezite_record::{Identity, Recording};

use crate::command::play::read_identities;
use crate::fail::Failure;
use crate::home::Login;
use crate::recording::{self, Pulled};
use crate::terminal::Terminal;
use crate::{hub, out};

/// What `join` takes.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The session, as `msh sessions` shows it.
    #[arg(value_name = "ID")]
    session: SessionId,
    /// Which channel, where the session has several.
    #[arg(long, value_name = "N")]
    channel: Option<u32>,
    /// The age identity that opens the recording, where the hub cannot.
    #[arg(long, value_name = "KEY")]
    identity: Option<PathBuf>,
}

pub(crate) async fn join(args: &JoinArgs, login: &Login) -> Result<(), Failure> {
    let own = || args.identity.as_deref().map(read_identities).transpose();
    let own = || Ok::<_, Failure>(own()?.unwrap_or_default());
    let (first, again) = (own()?, own()?);
    let mut client = hub::hub(login).await?;
    let id = args.session;
    let opened = recording::follow(&mut client, id).await?;
    if opened.is_sealed() {
        return Err(Failure::failed(format_args!(
            "session {id} is over: `msh play {id}` shows it"
        )));
    }
    out::note("you watch; Ctrl-C stops watching, the session goes on");
    let seen_by_a_person = std::io::stdout().is_terminal();
    let quiet = (seen_by_a_person && std::io::stdin().is_terminal())
        .then(Terminal::quiet)
        .transpose()?;
    let live = Live::new(args.channel);
    let watched = tokio::select! {
        watched = watch(opened, first, live) => watched.map(Some),
        _ = tokio::signal::ctrl_c() => Ok(None),
    };
    let over = match watched {
        Ok(Some((live, shown))) => {
            // What was written while the recording was sealed did not come any more.
            let rest = recording::open(&mut client, id).await;
            let rest = match rest {
                Ok(rest) => show_rest(rest, again, live, shown).await,
                Err(failure) => Err(failure),
            };
            rest.map(|()| true)
        }
        Ok(None) => Ok(false),
        Err(failure) => Err(failure),
    };
    if seen_by_a_person {
        out::bytes(RESET.as_bytes())?;
    }
    drop(quiet);
    if over? {
        out::note("the session is over");
    }
    Ok(())
}

/// Shows the session until it is over; gives how many frames it had.
async fn watch(
    opened: recording::Opened,
    identities: Vec<Identity>,
    mut live: Live,
) -> Result<(Live, usize), Failure> {
    let before = opened.bytes();
    let hidden = recording::no_progress();
    opened
        .read_frames(identities, hidden, move |mut frames: Recording<Pulled>| {
            let mut shown = 0;
            while let Some(timed) = frames.next() {
                out::bytes(live.push(&timed.map_err(Failure::failed)?).as_bytes())?;
                shown += 1;
                if frames.get_ref().taken() >= before {
                    out::bytes(live.present().as_bytes())?;
                }
            }
            Ok((live, shown))
        })
        .await
}

async fn show_rest(
    rest: recording::Opened,
    identities: Vec<Identity>,
    mut live: Live,
    shown: usize,
) -> Result<(), Failure> {
    let hidden = recording::no_progress();
    rest.read_frames(identities, hidden, move |frames| {
        let mut text = live.present();
        for timed in frames.skip(shown) {
            text.push_str(&live.push(&timed.map_err(Failure::failed)?));
        }
        out::bytes(text.as_bytes())
    })
    .await
}
