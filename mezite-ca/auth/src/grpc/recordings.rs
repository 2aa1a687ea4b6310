//! Recordings as messages.

use mezite_api::request;
use mezite_api::v1::{self, search_recordings_response::Item};
use mezite_core::UnixTime;

use crate::recording::{FoundRecording, RecordingFacts, RecordingSearch, SearchOutcome};
use crate::retention::Pruned;

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
