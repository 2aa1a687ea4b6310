//! Locks, and the sessions that they end.

use mezite_api::document::{Document, LockMetadata, LockSpec, LockTarget};
use mezite_api::request;
use mezite_core::store::{Commit, Expect, StoreError};
use mezite_core::{RoleName, SessionId, UnixTime, UserName};
use mezite_rbac::{Resource, Verb};
use serde_json::Value;

use super::{Shown, shown};
use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;
use crate::random;
use crate::record::{self, Lock, prefix};
use crate::session::Running;

impl Auth {
    pub(super) async fn apply_lock(
        &self,
        actor: &Actor,
        document: Document<LockMetadata, LockSpec>,
    ) -> Result<(Shown, bool), Error> {
        let name = document.metadata.name;
        // A lock's name is bounded like a role's.
        name.parse::<RoleName>()
            .map_err(|error| Error::Document(error.to_string()))?;
        let spec = document.spec;
        if let Some(end) = spec
            .expires
            .as_deref()
            .filter(|end| UnixTime::parse_rfc3339(end).is_none())
        {
            return Err(Error::Document(format!(
                "`{}` is not a time: write for example 2026-01-31T12:00:00.000Z",
                end.escape_default()
            )));
        }
        self.guard(actor, Resource::Lock, Verb::Create, None)
            .await?;
        let lock = Lock { name, spec };
        self.create_lock_record(actor, &lock).await?;
        Ok((show_lock(lock), true))
    }

    /// Makes a lock; it works at once. Returns its name.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unavailable`].
    pub async fn create_lock(
        &self,
        actor: &Actor,
        wanted: request::CreateLock,
    ) -> Result<String, Error> {
        self.guard(actor, Resource::Lock, Verb::Create, None)
            .await?;
        let lock = Lock {
            name: random::document_name(self.now()),
            spec: LockSpec {
                target: wanted.target,
                reason: wanted.reason,
                expires: wanted.expires.map(|end| end.to_string()),
            },
        };
        self.create_lock_record(actor, &lock).await?;
        Ok(lock.name)
    }

    async fn create_lock_record(&self, actor: &Actor, lock: &Lock) -> Result<(), Error> {
        let key = record::key(prefix::LOCK, &lock.name)?;
        let commit = Commit::new(self.tell().lock_created(actor, lock)).put(
            key,
            Expect::Absent,
            record::write(lock)?,
        );
        match self.commit(commit).await {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict(_)) => Err(Error::exists("lock", &lock.name)),
            Err(error) => Err(error.into()),
        }
    }

    /// The sessions that run, at whichever hub, and that the actor may see: all, or one's own. Oldest first.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn sessions(&self, actor: &Actor) -> Result<Vec<Running>, Error> {
        let own = actor.subject().map(|subject| &subject.user);
        let all = self.may(actor, Resource::Session, Verb::List, None);
        if !all {
            self.guard(actor, Resource::Session, Verb::List, own)
                .await?;
        }
        let sees = |user: &UserName| all || own == Some(user);
        let running = self.running().clone();
        let mut seen: Vec<Running> = running
            .into_values()
            .filter(|session| sees(&session.user))
            .collect();
        for (hub, user, session_id) in self.running_elsewhere().await? {
            if !sees(&user) {
                continue;
            }
            // Granted and not begun; or over since the hub's last sign of life.
            let Some(begun) = self.session_event(session_id, "session.start").await? else {
                continue;
            };
            if self
                .session_event(session_id, "session.end")
                .await?
                .is_none()
            {
                seen.push(elsewhere(session_id, hub, user, &begun)?);
            }
        }
        seen.sort_by_key(|session| (session.started, session.session_id));
        Ok(seen)
    }

    /// Ends a running session by a lock on it: it is over within a second, on whichever hub it runs.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::Unavailable`].
    pub async fn end_session(
        &self,
        actor: &Actor,
        session_id: SessionId,
        reason: String,
    ) -> Result<(), Error> {
        let here = self.running().get(&session_id).map(|it| it.user.clone());
        let owner = match here {
            Some(owner) => Some(owner),
            None => self.runs_elsewhere(session_id).await?,
        };
        self.guard(actor, Resource::Session, Verb::Delete, owner.as_ref())
            .await?;
        if owner.is_none() {
            return Err(Error::not_found("running session", &session_id.to_string()));
        }
        let now = self.now();
        let reason = match reason.as_str() {
            "" => "ended by an administrator".to_owned(),
            _ => reason,
        };
        let lock = Lock {
            name: random::document_name(now),
            spec: LockSpec {
                target: LockTarget::Session(session_id),
                reason,
                // No session lives longer than an identity.
                expires: Some(now.plus(mezite_ca::IDENTITY_CEILING).to_string()),
            },
        };
        self.create_lock_record(actor, &lock).await
    }

    /// Whose session it is, if it began and nothing tells of its end: it runs at another hub.
    async fn runs_elsewhere(&self, session_id: SessionId) -> Result<Option<UserName>, Error> {
        for kind in ["session.end", "session.recording.recovered"] {
            if self.session_event(session_id, kind).await?.is_some() {
                return Ok(None);
            }
        }
        let begun = self.session_event(session_id, "session.start").await?;
        let owner = begun.as_ref().and_then(|event| event.get("user_name"));
        Ok(owner
            .and_then(Value::as_str)
            .and_then(|name| name.parse().ok()))
    }
}

pub(super) fn show_lock(lock: Lock) -> Shown {
    let metadata = LockMetadata {
        name: lock.name.clone(),
    };
    shown(
        "lock",
        lock.name,
        &Document::v1("lock", metadata, lock.spec),
    )
}

/// A session at another hub, as the event of its beginning tells of it.
fn elsewhere(
    session_id: SessionId,
    hub: String,
    user: UserName,
    begun: &Value,
) -> Result<Running, Error> {
    let text = |field: &str| begun.get(field).and_then(Value::as_str);
    let corrupt = || {
        Error::Corrupt(format!(
            "the event of the beginning of session {session_id}"
        ))
    };
    Ok(Running {
        session_id,
        hub,
        user,
        node: text("server_hostname")
            .and_then(|name| name.parse().ok())
            .ok_or_else(corrupt)?,
        login: text("login")
            .and_then(|login| login.parse().ok())
            .ok_or_else(corrupt)?,
        started: text("timestamp")
            .and_then(UnixTime::parse_rfc3339)
            .ok_or_else(corrupt)?,
        source: text("client_ip").and_then(|source| source.parse().ok()),
    })
}
