//! Recordings as messages.

use std::time::Duration;

use mezite_api::request;
use mezite_api::v1::{self, search_recordings_response::Item};
use mezite_core::{UnixTime, UserName};
use mezite_rbac::{Resource, Verb};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Status};

use super::known_of;
use crate::auth::Auth;
use crate::error::Error;
use crate::recording::{
    FoundRecording, RecordingBytes, RecordingFacts, RecordingSearch, SearchOutcome,
};
use crate::retention::Pruned;
use crate::watch::Watching;

/// How many pieces may wait for a slow reader.
const WAITING: usize = 4;

/// How long somebody who may read no more can read on, where no change of the store says so: a certificate expires.
const CHECK: Duration = Duration::from_secs(1);

/// The bytes of a recording of `owner`, as long as the caller behind `extensions` may read them: who watches a session for hours
/// is asked again at each change.
pub(super) fn while_allowed(
    auth: Auth,
    extensions: Extensions,
    owner: Option<UserName>,
    mut bytes: RecordingBytes,
    watching: Option<Watching>,
) -> ReceiverStream<Result<Vec<u8>, Status>> {
    let (out, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let sending = async {
            while let Some(piece) = bytes.next().await {
                let piece = piece.map_err(|error| Error::from(error).into());
                if out.send(piece).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = sending => {}
            () = out.closed() => {}
            error = until_refused(&auth, &extensions, owner.as_ref(), watching.as_ref()) => {
                // Whoever does not listen any more need not hear it.
                let _gone = out.send(Err(error.into())).await;
            }
        }
        drop(watching);
    });
    ReceiverStream::new(receiver)
}

async fn until_refused(
    auth: &Auth,
    extensions: &Extensions,
    owner: Option<&UserName>,
    watching: Option<&Watching>,
) -> Error {
    let mut changes = auth.changes();
    loop {
        let allowed = async {
            let actor = known_of(auth, extensions).await?.actor()?;
            auth.guard(&actor, Resource::Recording, Verb::Read, owner)
                .await?;
            match watching {
                Some(watching) => watching.confirm().await,
                None => Ok(()),
            }
        };
        if let Err(error) = allowed.await {
            return error;
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(CHECK) => {}
        }
    }
}

pub(super) fn recording(facts: RecordingFacts) -> v1::Recording {
    v1::Recording {
        session_id: facts.session_id.to_string(),
        user: facts.user,
        node: facts.node,
        login: facts.login,
        started_ms: facts.started.as_millis(),
        bytes: facts.bytes,
        sealed: facts.sealed,
        hold: String::new(),
        place: facts.place.unwrap_or_default(),
    }
}

pub(super) fn search(asked: v1::SearchRecordingsRequest) -> RecordingSearch {
    let time = |millis: u64| (millis != 0).then(|| UnixTime::from_millis(millis));
    RecordingSearch {
        text: asked.text,
        ignore_case: asked.ignore_case,
        user: (!asked.user.is_empty()).then_some(asked.user),
        since: time(asked.since_ms),
        until: time(asked.until_ms),
        limit: request::limit(asked.limit),
        lines: request::limit(asked.lines),
    }
}

/// What was found, one message a recording, then the summary.
pub(super) fn answers(outcome: SearchOutcome) -> Vec<v1::SearchRecordingsResponse> {
    let summary = Item::Summary(v1::SearchSummary {
        searched: super::hub::count(outcome.searched),
        closed: super::hub::count(outcome.closed),
        failed: super::hub::count(outcome.failed),
        more: outcome.more,
    });
    let found = outcome.found.into_iter().map(|it| Item::Found(found(it)));
    found
        .chain([summary])
        .map(|item| v1::SearchRecordingsResponse { item: Some(item) })
        .collect()
}

fn found(found: FoundRecording) -> v1::FoundRecording {
    let lines = found.lines.into_iter().map(|line| v1::FoundLine {
        at_ms: line.at.as_millis(),
        channel: line.channel,
        kind: line.kind.to_owned(),
        line: line.line,
    });
    v1::FoundRecording {
        recording: Some(recording(found.facts)),
        lines: lines.collect(),
        more: found.more,
        clipped: found.clipped,
    }
}

pub(super) fn pruned(pruned: Vec<Pruned>) -> v1::PruneRecordingsResponse {
    let mut answer = v1::PruneRecordingsResponse::default();
    for it in pruned {
        let held = it.held;
        let shown = v1::PrunedRecording {
            recording: Some(recording(it.facts)),
            rule: it.rule,
        };
        if held {
            answer.held.push(shown);
        } else {
            answer.pruned.push(shown);
        }
    }
    answer
}
