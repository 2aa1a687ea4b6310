//! Reading the log: lists, explanations. Whoever reads leaves an event.

use mezite_core::store::{Commit, LogQuery, StoredEvent};
use mezite_core::{EventId, UserName};
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
        if !self.may(actor, Resource::Audit, Verb::List, None) {
            let own = actor.subject().map(|subject| subject.user.clone());
            self.guard(actor, Resource::Audit, Verb::List, own.as_ref())
                .await?;
            let asked = query.user_name.take();
            let own = own.map(|user| user.to_string());
            if asked.is_some() && asked != own {
                return Ok(Vec::new());
            }
            query.user_name = own;
        }
        let found = self.store().log(&query).await?;
        let event = self
            .tell()
            .audit_read(actor, "list", &shown(&query), found.len());
        self.commit(Commit::new(event)).await?;
        Ok(found)
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
        Ok(explained(&event))
    }

    async fn event_with(&self, id: EventId) -> Result<Option<Value>, Error> {
        let query = LogQuery {
            id: Some(id),
            limit: 1,
            ..LogQuery::default()
        };
        let found = self.store().log(&query).await?;
        found
            .first()
            .map(|event| {
                serde_json::from_slice(&event.body)
                    .map_err(|error| Error::Corrupt(error.to_string()))
            })
            .transpose()
    }
}

fn explained(event: &Value) -> Explained {
    let text_of = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut text = format!("{} at {}: ", text_of("event_type"), text_of("timestamp"));
    match text_of("event_type") {
        "authz.denied" => text.push_str(&format!("refused, {}\n", text_of("error_message"))),
        "access.granted" => text.push_str(&format!("allowed, with {}\n", text_of("obligations"))),
        _ => text.push_str(&format!(
            "no decision of the rules. {}\n",
            text_of("error_message")
        )),
    }
    let stored = text_of("explanation");
    let json = serde_json::from_str::<Value>(stored).unwrap_or(Value::Null);
    match serde_json::from_value::<Explanation>(json.clone()) {
        Ok(explanation) => text.push_str(&explanation.to_string()),
        Err(_) => text.push_str(json.get("why").and_then(Value::as_str).unwrap_or(stored)),
    }
    Explained {
        json: json!({ "event": event, "explanation": json }),
        text: text.trim_end().to_owned(),
    }
}

fn shown(query: &LogQuery) -> Value {
    json!({
        "event_type": query.event_type, "user_name": query.user_name, "server_hostname": query.server_hostname,
        "session_id": query.session_id, "success": query.success, "after": query.after, "before": query.before,
        "limit": query.limit,
    })
}
