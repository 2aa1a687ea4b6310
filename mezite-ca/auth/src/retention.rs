//! Recordings: who may search them, how long they are kept, and legal holds. A deletion is an event that is durable
//! before the file goes, and it leaves the digest.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mezite_core::store::{Commit, Expect, Key, LogQuery, StoreError};
use mezite_core::{RoleName, SessionId, Span, UnixTime, UserName};
use mezite_rbac::{Resource, Verb};
use serde_json::{Value, json};

use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;
use crate::record::{self, Hold, prefix};
use crate::recording::{
    RecordingError, RecordingFacts, RecordingSearch, RecordingSource, SearchOutcome,
};

/// How often the hub looks for recordings that are kept no longer.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A hub that starts has more urgent things to do first.
const FIRST: Duration = Duration::from_secs(60);

/// Holds read at once.
const PAGE: usize = 1000;

/// How long a recording is kept, from the start of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[expect(clippy::exhaustive_enums, reason = "for a time, or not for a time")]
pub enum Keep {
    /// So long.
    For(Span),
    /// Until somebody deletes the file by hand, which verification notices.
    #[default]
    Forever,
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(span) => span.fmt(f),
            Self::Forever => f.write_str("forever"),
        }
    }
}

/// How long recordings of users with any of these roles are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the composition root builds it")]
pub struct RetentionRule {
    /// A user who had one of them when the session began.
    pub roles: Vec<RoleName>,
    /// How long.
    pub keep: Keep,
}

/// How long recordings are kept. Where several rules fit, the longest time counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the composition root builds it")]
pub struct Retention {
    /// Where no rule fits.
    pub keep: Keep,
    /// By role.
    pub rules: Vec<RetentionRule>,
}

impl Retention {
    /// The shortest time of all: a younger recording need not be looked at.
    fn shortest(&self) -> Keep {
        let rules = self.rules.iter().map(|rule| rule.keep);
        rules.fold(self.keep, Keep::min)
    }

    /// How long a recording of a user with these roles is kept, and by which rule. Roles that nobody knows any more
    /// could have been any: the longest time of all counts.
    #[must_use]
    pub fn keep(&self, roles: Option<&[String]>) -> (Keep, String) {
        let fits = |rule: &&RetentionRule| {
            let had =
                |role: &RoleName| roles.is_none_or(|had| had.iter().any(|it| it == role.as_str()));
            rule.roles.iter().any(had)
        };
        let longest = self.rules.iter().filter(fits).max_by_key(|rule| rule.keep);
        match longest {
            Some(rule) if roles.is_some() || rule.keep >= self.keep => {
                let roles: Vec<_> = rule.roles.iter().map(RoleName::as_str).collect();
                (
                    rule.keep,
                    format!("keep {} for {}", rule.keep, roles.join(", ")),
                )
            }
            _ => (self.keep, format!("keep {}", self.keep)),
        }
    }
}

/// A recording that is not kept any longer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Which.
    pub facts: RecordingFacts,
    /// The rule.
    pub rule: String,
    /// A legal hold keeps it all the same.
    pub held: bool,
}

impl Auth {
    /// Looks for text in the recordings that the actor may read. Who searches has read what is found: the event that names
    /// those recordings is durable before a line of them is given out.
    ///
    /// # Errors
    /// [`Error::Denied`] if the actor may read none, not even their own; [`Error::Query`], [`Error::Recordings`], [`Error::Unavailable`].
    pub async fn search_recordings(
        &self,
        actor: &Actor,
        recordings: &dyn RecordingSource,
        search: RecordingSearch,
    ) -> Result<SearchOutcome, Error> {
        if !self.may(actor, Resource::Recording, Verb::Read, None) {
            let own = actor.subject().map(|subject| subject.user.clone());
            self.guard(actor, Resource::Recording, Verb::Read, own.as_ref())
                .await?;
        }
        let query = json!({
            "text": search.text, "ignore_case": search.ignore_case, "user": search.user,
            "since": search.since.map(|it| it.to_string()), "until": search.until.map(|it| it.to_string()),
        });
        let (auth, reader) = (self.clone(), actor.clone());
        let may = Arc::new(move |owner: &str| {
            let owner = owner.parse::<UserName>().ok();
            auth.may(&reader, Resource::Recording, Verb::Read, owner.as_ref())
        });
        let outcome = recordings.search(search, may).await?;
        let read: Vec<String> = outcome
            .found
            .iter()
            .map(|found| found.facts.session_id.to_string())
            .collect();
        let event = self
            .tell()
            .recording_searched(actor, &query, outcome.searched, &read);
        self.commit(Commit::new(event)).await?;
        Ok(outcome)
    }

    /// Why retention leaves recordings alone, by session.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn recording_holds(&self) -> Result<BTreeMap<SessionId, String>, Error> {
        let mut holds = BTreeMap::new();
        let mut after: Option<Key> = None;
        loop {
            let page = self
                .store()
                .list(prefix::RECORDING_HOLD, after.as_ref(), PAGE)
                .await?;
            let Some((last, _)) = page.last() else {
                return Ok(holds);
            };
            after = Some(last.clone());
            for (key, stored) in &page {
                let hold: Hold = record::read(key, stored)?;
                holds.insert(hold.session_id, hold.reason);
            }
        }
    }

    /// Puts a recording on hold.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`] if there is none, [`Error::Exists`] if it is held already.
    pub async fn hold_recording(
        &self,
        actor: &Actor,
        recordings: &dyn RecordingSource,
        session_id: SessionId,
        reason: String,
    ) -> Result<(), Error> {
        self.guard(actor, Resource::Recording, Verb::Update, None)
            .await?;
        let facts = recordings.facts(session_id).await?;
        let event = self
            .tell()
            .recording_held(actor, session_id, &facts.user, &reason);
        let hold = Hold {
            session_id,
            reason,
            by: actor.name().to_owned(),
            since_ms: self.now().as_millis(),
        };
        let key = hold_key(&session_id)?;
        let commit = Commit::new(event).put(key, Expect::Absent, record::write(&hold)?);
        match self.commit(commit).await {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict(_)) => {
                Err(Error::exists("legal hold", &session_id.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Lifts a hold.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`] without a hold.
    pub async fn release_recording(
        &self,
        actor: &Actor,
        recordings: &dyn RecordingSource,
        session_id: SessionId,
        reason: &str,
    ) -> Result<(), Error> {
        self.guard(actor, Resource::Recording, Verb::Update, None)
            .await?;
        let key = hold_key(&session_id)?;
        let stored = self.store().get(&key).await?;
        let missing = || Error::not_found("legal hold", &session_id.to_string());
        let revision = stored.ok_or_else(missing)?.revision;
        let facts = recordings.facts(session_id).await.ok();
        let whose = facts.as_ref().map(|facts| facts.user.as_str());
        let event = self
            .tell()
            .recording_released(actor, session_id, whose, reason);
        let commit = Commit::new(event).remove(key, Expect::Revision(revision));
        self.commit(commit).await?;
        Ok(())
    }

    /// Deletes the recordings that are kept no longer, or only tells which.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Recordings`], [`Error::Unavailable`]. What was deleted up to then has its event.
    pub async fn prune_recordings(
        &self,
        actor: &Actor,
        recordings: &dyn RecordingSource,
        dry_run: bool,
    ) -> Result<Vec<Pruned>, Error> {
        self.guard(actor, Resource::Recording, Verb::Delete, None)
            .await?;
        self.sweep_recordings(actor, recordings, dry_run).await
    }

    /// Prunes once a day, until the future is dropped.
    pub async fn run_retention(&self, recordings: Arc<dyn RecordingSource>) {
        tokio::time::sleep(FIRST).await;
        let actor = Actor::hub(&self.settings().hub);
        loop {
            match self
                .sweep_recordings(&actor, recordings.as_ref(), false)
                .await
            {
                Ok(pruned) => {
                    let deleted = pruned.iter().filter(|it| !it.held).count();
                    tracing::info!(deleted, "recordings were swept");
                }
                Err(error) => {
                    tracing::error!(%error, "recordings could not be swept; trying again tomorrow")
                }
            }
            tokio::time::sleep(DAY).await;
        }
    }

    async fn sweep_recordings(
        &self,
        actor: &Actor,
        recordings: &dyn RecordingSource,
        dry_run: bool,
    ) -> Result<Vec<Pruned>, Error> {
        let Keep::For(shortest) = self.settings().retention.shortest() else {
            return Ok(Vec::new());
        };
        let now = self.now();
        let holds = self.recording_holds().await?;
        let mut pruned = Vec::new();
        for facts in recordings.list(None, usize::MAX).await? {
            if !facts.sealed || now.since(facts.started) <= shortest {
                continue;
            }
            if let Some(rule) = self.expired(&facts, now).await? {
                let held = holds.contains_key(&facts.session_id);
                pruned.push(Pruned { facts, rule, held });
            }
        }
        if !dry_run {
            for it in &mut pruned {
                it.held = it.held || !self.delete(actor, recordings, it).await?;
            }
        }
        Ok(pruned)
    }

    /// The rule that keeps the recording no longer.
    async fn expired(
        &self,
        facts: &RecordingFacts,
        now: UnixTime,
    ) -> Result<Option<String>, Error> {
        let start = self
            .session_event(facts.session_id, "session.start")
            .await?;
        let roles = start.as_ref().and_then(|start| start.get("user_roles"));
        let roles: Option<Vec<String>> =
            roles.and_then(|roles| serde_json::from_value(roles.clone()).ok());
        let (keep, rule) = self.settings().retention.keep(roles.as_deref());
        Ok(match keep {
            Keep::For(span) if now.since(facts.started) > span => Some(rule),
            Keep::For(_) | Keep::Forever => None,
        })
    }

    /// Deletes one; `false` if it was put on hold meanwhile.
    async fn delete(
        &self,
        actor: &Actor,
        recordings: &dyn RecordingSource,
        pruned: &Pruned,
    ) -> Result<bool, Error> {
        let facts = &pruned.facts;
        let mut digest = None;
        for kind in ["session.end", "session.recording.recovered"] {
            let event = self.session_event(facts.session_id, kind).await?;
            let told = event.as_ref().and_then(|it| it.get("recording_sha256"));
            digest = digest.or_else(|| told.and_then(Value::as_str).map(str::to_owned));
        }
        let event = self
            .tell()
            .recording_deleted(actor, facts, digest.as_deref(), &pruned.rule);
        // That nothing is there is what the transaction checks: a hold and a deletion cannot cross.
        let unheld = Commit::new(event).remove(hold_key(&facts.session_id)?, Expect::Absent);
        match self.commit(unheld).await {
            Ok(_) => {}
            Err(StoreError::Conflict(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        match recordings.remove(facts.session_id).await {
            // Another hub was faster.
            Ok(()) | Err(RecordingError::NotFound(_)) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The first event of that type about a session.
    pub(crate) async fn session_event(
        &self,
        id: SessionId,
        kind: &str,
    ) -> Result<Option<Value>, Error> {
        let query = LogQuery {
            session_id: Some(id.to_string()),
            event_type: Some(kind.to_owned()),
            limit: 1,
            ..LogQuery::default()
        };
        let found = self.store().log(&query).await?;
        Ok(found
            .first()
            .and_then(|event| serde_json::from_slice(&event.body).ok()))
    }
}

fn hold_key(id: &SessionId) -> Result<Key, Error> {
    record::key(prefix::RECORDING_HOLD, &id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(days: u64) -> Keep {
        Keep::For(Span::from_secs(days * 24 * 60 * 60))
    }

    fn rule(roles: &[&str], keep: Keep) -> RetentionRule {
        RetentionRule {
            roles: roles.iter().map(|it| it.parse().unwrap()).collect(),
            keep,
        }
    }

    #[test]
    fn the_longest_rule_that_fits_counts() {
        let retention = Retention {
            keep: days(90),
            rules: vec![
                rule(&["contractor"], days(30)),
                rule(&["dba", "root"], days(400)),
            ],
        };
        let keep = |roles: &[&str]| {
            let roles: Vec<String> = roles.iter().map(|it| (*it).to_owned()).collect();
            retention.keep(Some(&roles))
        };
        assert_eq!(retention.shortest(), days(30));
        assert_eq!(keep(&["access"]), (days(90), "keep 90d".to_owned()));
        assert_eq!(
            keep(&["contractor"]),
            (days(30), "keep 30d for contractor".to_owned())
        );
        assert_eq!(keep(&["contractor", "dba"]).0, days(400));
        assert_eq!(retention.keep(None).0, days(400), "nobody knows the roles");
    }

    #[test]
    fn without_rules_everything_is_kept() {
        assert_eq!(Retention::default().shortest(), Keep::Forever);
        assert_eq!(Retention::default().keep(None).0, Keep::Forever);
    }
}
