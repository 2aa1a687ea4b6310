//! Events of searching, holding and deleting recordings.

use mezite_audit::catalogue::{
    Json, RecordingDeleted, RecordingHeld, RecordingReleased, RecordingSearched,
};
use mezite_core::{Event, SessionId};

use super::{Teller, count};
use crate::actor::Actor;
use crate::recording::RecordingFacts;

impl Teller<'_> {
    pub(crate) fn recording_searched(
        &self,
        actor: &Actor,
        query: &serde_json::Value,
        searched: usize,
        session_ids: &[String],
    ) -> Event {
        let event = RecordingSearched {
            user_name: actor.name(),
            client_ip: actor.source(),
            query: Json::of(query),
            count: count(searched),
            session_ids,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn recording_held(
        &self,
        actor: &Actor,
        session_id: SessionId,
        whose: &str,
        reason: &str,
    ) -> Event {
        let event = RecordingHeld {
            user_name: actor.name(),
            client_ip: actor.source(),
            session_id,
            recorded_user: Some(whose),
            reason,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn recording_released(
        &self,
        actor: &Actor,
        session_id: SessionId,
        whose: Option<&str>,
        reason: &str,
    ) -> Event {
        let event = RecordingReleased {
            user_name: actor.name(),
            client_ip: actor.source(),
            session_id,
            recorded_user: whose,
            reason,
        };
        event.event(&self.stamp())
    }

    pub(crate) fn recording_deleted(
        &self,
        actor: &Actor,
        facts: &RecordingFacts,
        digest: Option<&str>,
        rule: &str,
    ) -> Event {
        let event = RecordingDeleted {
            user_name: actor.name(),
            client_ip: actor.source(),
            session_id: facts.session_id,
            recorded_user: Some(&facts.user),
            recording_sha256: digest,
            recording_bytes: facts.bytes,
            retention_rule: rule,
        };
        event.event(&self.stamp())
    }
}
