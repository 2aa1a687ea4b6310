//! Reading the log: lists, explanations. Whoever reads leaves an event.

use mezite_core::store::{Commit, LogQuery, StoredEvent};
use mezite_core::{EventId, UnixTime, UserName};
use mezite_rbac::{Explanation, Resource, Verb};
use serde_json::{Value, json};

use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;

/// Which rules decided what an event tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explained {
    /// For programs.
    pub json: Value,
    /// For people.
    pub text: String,
}

impl Auth {
    /// Events that match `query`. Whoever may read only their own gets only their own.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unavailable`].
    pub async fn events(
        &self,
        actor: &Actor,
        mut query: LogQuery,
    ) -> Result<Vec<StoredEvent>, Error> {
        self.restrict(actor, &mut query).await?;
        let found = self.store().log(&query).await?;
        let event = self
            .tell()
            .audit_read(actor, "list", &shown(&query), found.len());
        self.commit(Commit::new(event)).await?;
        Ok(found)
    }

    /// Narrows the question to what the actor may read.
    pub(crate) async fn restrict(&self, actor: &Actor, query: &mut LogQuery) -> Result<(), Error> {
        if self.may(actor, Resource::Audit, Verb::List, None) {
            return Ok(());
        }
        let own = actor.subject().map(|subject| subject.user.clone());
        self.guard(actor, Resource::Audit, Verb::List, own.as_ref())
            .await?;
        let own = own.map(|user| user.to_string());
        if query.user_name.is_some() && query.user_name != own {
            // Asked for what is not theirs: nothing happened before the beginning.
            query.until = Some(UnixTime::from_millis(0));
        }
        query.user_name = own;
        Ok(())
    }

    /// Which role, rule and selector decided what the event tells of.
    ///
    /// # Errors
    /// [`Error::NotFound`] also for an event that the actor may not read, [`Error::Unavailable`].
    pub async fn explain(&self, actor: &Actor, id: EventId) -> Result<Explained, Error> {
        let missing = || Error::not_found("event", &id.to_string());
        let event = self.event_with(id).await?.ok_or_else(missing)?;
        let owner = event.get("user_name").and_then(Value::as_str);
        let owner = owner.and_then(|name| name.parse::<UserName>().ok());
        if !self.may(actor, Resource::Audit, Verb::Read, owner.as_ref()) {
            return Err(missing());
        }
        let query = json!({ "id": id });
        self.commit(Commit::new(
            self.tell().audit_read(actor, "explain", &query, 1),
        ))
        .await?;
        let decision = self.decision_behind(&event).await?;
        Ok(explained(&event, decision.as_ref().unwrap_or(&event)))
    }

    /// The decision that let the session in which `event` happened begin, where `event` is none itself. It is of the same
    /// user, so that whoever may read the one may read the other.
    async fn decision_behind(&self, event: &Value) -> Result<Option<Value>, Error> {
        let session = event.get("session_id").and_then(Value::as_str);
        let (Some(session), None) = (session, event.get("explanation")) else {
            return Ok(None);
        };
        let query = LogQuery {
            session_id: Some(session.to_owned()),
            event_type: Some(GRANTED.to_owned()),
            limit: 1,
            ..LogQuery::default()
        };
        let found = self.one(&query).await?;
        Ok(found.filter(|granted| granted.get("user_name") == event.get("user_name")))
    }

    async fn event_with(&self, id: EventId) -> Result<Option<Value>, Error> {
        let query = LogQuery {
            id: Some(id),
            limit: 1,
            ..LogQuery::default()
        };
        self.one(&query).await
    }

    async fn one(&self, query: &LogQuery) -> Result<Option<Value>, Error> {
        let found = self.store().log(query).await?;
        found
            .first()
            .map(|event| {
                serde_json::from_slice(&event.body)
                    .map_err(|error| Error::Corrupt(error.to_string()))
            })
            .transpose()
    }
}

const GRANTED: &str = "access.granted";
const DENIED: &str = "authz.denied";

/// What `decision` says, which is `event` itself or what let its session begin.
fn explained(event: &Value, decision: &Value) -> Explained {
    let text_of = |value: &Value, name: &str| {
        let text = value.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let (kind, time) = (text_of(event, "event_type"), text_of(event, "timestamp"));
    let why = text_of(event, "error_message");
    let mut text = format!("{kind} at {time}: ");
    text.push_str(
        &match (kind.as_str(), text_of(decision, "event_type").as_str()) {
            (DENIED, _) => format!("refused, {why}"),
            (GRANTED, _) => format!("allowed, with {}", text_of(event, "obligations")),
            (_, GRANTED) => format!(
                "in a session that was allowed (event {})",
                text_of(decision, "id")
            ),
            ("auth.attempt.failed", _) => format!("refused before the rules were asked: {why}"),
            _ => format!("no decision of the rules. {why}"),
        },
    );
    let stored = text_of(decision, "explanation");
    let json = serde_json::from_str::<Value>(&stored).unwrap_or(Value::Null);
    let explanation = serde_json::from_value::<Explanation>(json.clone()).ok();
    let decided_by = match &explanation {
        Some(explanation) => json!(explanation.decided_by()),
        None => decision.get("decided_by").cloned().unwrap_or_default(),
    };
    let said = match &explanation {
        Some(explanation) => explanation.to_string(),
        None => match decided_by.as_array() {
            Some(rules) => {
                let rules: Vec<&str> = rules.iter().filter_map(Value::as_str).collect();
                format!("decided by {}", rules.join(", "))
            }
            None => text_of(&json, "why"),
        },
    };
    // Only a text too long for an event is cut, and then it is JSON no more.
    let said = if said.is_empty() { stored } else { said };
    if !said.is_empty() && said != why {
        text.push_str(&format!("\n{said}"));
    }
    Explained {
        json: json!({ "event": event, "explanation": json, "decided_by": decided_by }),
        text,
    }
}

pub(crate) fn shown(query: &LogQuery) -> Value {
    json!({
        "event_type": query.event_type, "user_name": query.user_name, "server_hostname": query.server_hostname,
        "session_id": query.session_id, "success": query.success, "after": query.after, "before": query.before,
        "limit": query.limit,
    })
}
