//! What a session's events say: its facts, its end, and everything that happens in between.

use std::net::IpAddr;

use data_encoding::HEXLOWER;
use mezite_audit::Stamp;
use mezite_audit::catalogue::{
    SessionEnd, SessionExec, SessionForward, SessionNestedSsh, SessionRecordingFailed, SessionSftp,
    SessionStart,
};
use mezite_ca::verify::VerifiedIdentity;
use mezite_core::{Event, SessionId, UnixTime};
use mezite_record::Outcome;
use tokio::time::Instant;

use crate::authority::Grant;
use crate::session::files::FileFact;
use crate::session::{Fact, Route, Step, Tally};

/// What is known of a session from its start.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) id: SessionId,
    pub(super) identity: VerifiedIdentity,
    pub(super) grant: Box<dyn Grant>,
    pub(super) source: IpAddr,
    pub(super) started: UnixTime,
    /// The same moment on a clock that nobody sets.
    pub(super) begun: Instant,
}

/// How a session ended, for its last event.
pub(super) struct Ending {
    pub(super) success: bool,
    pub(super) reason: String,
    pub(super) tally: Tally,
}

impl Ending {
    pub(super) fn failed(reason: &str) -> Self {
        Self {
            success: false,
            reason: reason.to_owned(),
            tally: Tally::default(),
        }
    }
}

/// The fields that every session event has.
macro_rules! session_event {
    ($type:ident, $facts:expr, $stamp:expr, { $($field:ident: $value:expr),* $(,)? }) => {
        $type {
            user_name: $facts.identity.user(),
            session_id: $facts.id,
            server_id: &$facts.grant.permit().node().id,
            server_hostname: &$facts.grant.permit().node().name,
            login: $facts.grant.permit().login(),
            client_ip: Some($facts.source),
            $($field: $value),*
        }
        .event($stamp)
    };
}

impl Facts {
    pub(super) fn recording_failed(&self, stamp: &Stamp<'_>, error: &str) -> Event {
        self.recording(stamp, "terminated", Some(error))
    }

    pub(super) fn recording(&self, stamp: &Stamp<'_>, action: &str, error: Option<&str>) -> Event {
        session_event!(SessionRecordingFailed, self, stamp, {
            action: action,
            success: error.is_none(),
            error_message: error,
        })
    }

    pub(super) fn start(&self, stamp: &Stamp<'_>) -> Event {
        session_event!(SessionStart, self, stamp, {
            user_roles: &self.grant.permit().subject().roles,
            client_version: None,
            server_address: None,
            recorded: true,
        })
    }

    pub(super) fn fact(&self, stamp: &Stamp<'_>, channel: u32, fact: &Fact) -> Event {
        match fact {
            Fact::Exec { command, pty } => session_event!(SessionExec, self, stamp, {
                channel: channel,
                command: command.as_deref().unwrap_or(""),
                pty: *pty,
            }),
            Fact::Subsystem(name) => session_event!(SessionSftp, self, stamp, {
                channel: channel,
                subsystem: Some(name),
                operation: "open",
                path: None,
                target_path: None,
                bytes_read: None,
                bytes_written: None,
                content_sha256: None,
                whole: None,
                success: true,
                error_message: None,
                attempts: 1,
            }),
            Fact::Files(fact) => self.files(stamp, channel, fact),
            Fact::FilesUnreadable(why) => session_event!(SessionSftp, self, stamp, {
                channel: channel,
                subsystem: None,
                operation: "unreadable",
                path: None,
                target_path: None,
                bytes_read: None,
                bytes_written: None,
                content_sha256: None,
                whole: None,
                success: false,
                error_message: Some(why),
                attempts: 1,
            }),
            Fact::Forward(route, step) => self.forward(stamp, channel, route, step),
            Fact::Nested(nested) => session_event!(SessionNestedSsh, self, stamp, {
                channel: channel,
                action: if nested.refused { "refused" } else { "allowed" },
                success: !nested.refused,
                found_in: nested.found_in,
                sent_by: nested.by.as_str(),
                identification: &nested.identification,
            }),
        }
    }

    fn files(&self, stamp: &Stamp<'_>, channel: u32, fact: &FileFact) -> Event {
        let operation = &fact.operation;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let target = (!operation.target.is_empty()).then(|| text(&operation.target));
        let one = (fact.attempts == 1).then_some(());
        let passed = operation.written.as_ref().or(operation.read.as_ref());
        let passed = one.and(passed);
        let digest = passed.and_then(|it| it.sha256);
        let digest = digest.map(|digest| HEXLOWER.encode(&digest));
        let error = match &operation.outcome {
            Outcome::Unanswered => Some(String::from("the channel ended before the answer")),
            Outcome::Status { code: 0, .. } => None,
            Outcome::Status { code, message } => Some(format!("status {code}: {message}")),
        };
        session_event!(SessionSftp, self, stamp, {
            channel: channel,
            subsystem: None,
            operation: operation.action.as_str(),
            path: Some(&text(&operation.path)),
            target_path: target.as_deref(),
            bytes_read: (fact.read > 0 || operation.read.is_some()).then_some(fact.read),
            bytes_written: (fact.written > 0 || operation.written.is_some()).then_some(fact.written),
            content_sha256: digest.as_deref(),
            whole: passed.map(|it| it.whole),
            success: fact.success,
            error_message: error.as_deref(),
            attempts: fact.attempts,
        })
    }

    fn forward(&self, stamp: &Stamp<'_>, channel: u32, route: &Route, step: &Step) -> Event {
        let (action, error, attempts) = match step {
            Step::Listening => ("listening", None, 1),
            Step::Stopped => ("stopped", None, 1),
            Step::Opened => ("opened", None, 1),
            Step::Closed {
                error, attempts, ..
            } => ("closed", error.as_deref(), *attempts),
            Step::Refused { why, attempts } => ("refused", Some(why.as_str()), *attempts),
        };
        let closed = match step {
            Step::Closed {
                to_client,
                to_node,
                lasted,
                ..
            } => Some((*to_client, *to_node, lasted.as_millis())),
            Step::Listening | Step::Stopped | Step::Opened | Step::Refused { .. } => None,
        };
        session_event!(SessionForward, self, stamp, {
            channel: (action != "refused" && attempts == 1).then_some(channel),
            action: action,
            direction: route.direction.as_str(),
            destination: &route.destination,
            origin: route.origin.as_deref(),
            success: error.is_none(),
            error_message: error,
            attempts: attempts,
            bytes_to_client: closed.map(|(to_client, _, _)| to_client),
            bytes_to_node: closed.map(|(_, to_node, _)| to_node),
            duration_ms: closed.map(|(_, _, lasted)| lasted),
        })
    }

    pub(super) fn end(
        &self,
        stamp: &Stamp<'_>,
        ending: &Ending,
        summary: Option<&mezite_record::Summary>,
    ) -> Event {
        session_event!(SessionEnd, self, stamp, {
            success: ending.success && summary.is_some(),
            reason: &ending.reason,
            exit_code: ending.tally.exit_code,
            duration_ms: stamp.now.since(self.started).as_millis(),
            bytes_to_client: ending.tally.to_client,
            bytes_to_node: ending.tally.to_node,
            recording_sha256: summary.map(|summary| summary.digest.as_str()),
            recording_bytes: summary.map(|summary| summary.bytes),
        })
    }
}
