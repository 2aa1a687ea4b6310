//! Questions to the rules: may somebody, who can, what would other roles change, what looks odd. Whoever may read roles,
//! users and nodes may ask; each question is an event before it is answered.

use std::net::IpAddr;
use std::sync::Arc;

use mezite_api::{request, v1};
use mezite_core::store::Commit;
use mezite_core::{SessionId, UserName};
use mezite_rbac::{
    Action, Inventory, Node, Obligations, PolicySet, Request, Resource, Role, Subject, Verb,
    builtin_roles, conditions, differences, explain, lint, who_can,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;
use crate::live::Snapshot;
use crate::random;
use crate::session::Wish;

/// An answer, for programs and for people.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// Yes or no.
    pub allowed: bool,
    /// For programs.
    pub json: Value,
    /// For people.
    pub text: String,
}

/// Answers that come one after the other, as they are found.
type Answers<T> = ReceiverStream<Result<T, Error>>;

impl Auth {
    /// Whether a user may log in to a node and do something there, as the gateway would decide at this moment; and why.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`] for a user or node, [`Error::Unfit`] for an unknown action,
    /// [`Error::Unavailable`].
    pub async fn can(&self, actor: &Actor, asked: &request::Can) -> Result<Answer, Error> {
        let action = match &asked.action {
            None => Action::Shell,
            Some(word) => word.parse().map_err(unfit)?,
        };
        let query = json!({
            "user": asked.user, "login": asked.login, "node": asked.node, "action": action,
            "client_ip": asked.client_ip,
        });
        self.ask(actor, Some(&asked.user), "can", &query).await?;
        let snapshot = self.snapshot();
        let user = snapshot.subject(&asked.user);
        let subject = user.ok_or_else(|| Error::not_found("user", asked.user.as_str()))?;
        let node = snapshot.node_named(&asked.node);
        let target = node
            .ok_or_else(|| Error::not_found("node", asked.node.as_str()))?
            .target();
        let mut request = Request {
            subject,
            node: &target,
            login: &asked.login,
            source: asked.client_ip,
        };
        request.source = asked
            .client_ip
            .or_else(|| admitted(snapshot.policy(), &request));
        let wish = Wish {
            user: &asked.user,
            node: &asked.node,
            login: &asked.login,
            source: request.source,
            session_id: SessionId::new(self.now(), random::bytes()),
        };
        let decided = match self.weigh(&snapshot, &wish, None) {
            Ok((permit, _)) => Ok(permit.obligations().clone()),
            Err(no) => Err(no.why),
        };
        Ok(answer(query, action, decided, snapshot.policy(), &request))
    }

    /// Who may log in where, by the rules alone: locks, which stop people for a while, are left out.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`] for a user or node, [`Error::Unavailable`].
    pub(crate) async fn who_can(
        &self,
        actor: &Actor,
        asked: request::WhoCan,
    ) -> Result<Answers<v1::WhoCanResponse>, Error> {
        let query = json!({ "user": asked.user, "login": asked.login, "node": asked.node });
        self.ask(actor, asked.user.as_ref(), "who_can", &query)
            .await?;
        let snapshot = self.snapshot();
        if let Some(user) = asked
            .user
            .as_ref()
            .filter(|user| snapshot.subject(user).is_none())
        {
            return Err(Error::not_found("user", user.as_str()));
        }
        if let Some(node) = asked
            .node
            .as_ref()
            .filter(|node| snapshot.node_named(node).is_none())
        {
            return Err(Error::not_found("node", node.as_str()));
        }
        Ok(answers(move |send| {
            let mut nodes = targets(&snapshot);
            nodes.retain(|node| asked.node.as_ref().is_none_or(|name| *name == node.name));
            let wanted =
                |user: &&Subject| asked.user.as_ref().is_none_or(|name| *name == user.user);
            let users = snapshot.subjects().filter(wanted);
            for access in who_can(snapshot.policy(), users, &nodes, asked.login.as_ref()) {
                let answer = v1::WhoCanResponse {
                    user: access.subject.user.to_string(),
                    logins: texts(&access.reach.logins),
                    patterns: texts(&access.reach.patterns),
                    nodes: texts(access.nodes.iter().map(|node| &node.name)),
                    exhausted: access.reach.exhausted,
                };
                if !send(answer) {
                    return;
                }
            }
        }))
    }

    /// What these roles in place of those of the same name, and without those that go, would change for whom.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Document`] with file, line and column, [`Error::NotFound`] or [`Error::Unfit`] for a
    /// role that is to go, [`Error::Unavailable`].
    pub(crate) async fn diff_roles(
        &self,
        actor: &Actor,
        asked: request::DiffRoles,
    ) -> Result<Answers<v1::DiffRolesResponse>, Error> {
        let names: Vec<&String> = asked.files.iter().map(|(name, _)| name).collect();
        let query = json!({ "files": names, "removed": asked.removed });
        self.ask(actor, None, "diff", &query).await?;
        let snapshot = self.snapshot();
        let present = Arc::clone(&snapshot);
        let after = tokio::task::spawn_blocking(move || proposed(&present, &asked)).await;
        let after = after.map_err(|error| Error::Corrupt(error.to_string()))??;
        Ok(answers(move |send| {
            let inventory = inventory(&snapshot);
            for change in differences(snapshot.policy(), &after, &inventory) {
                let answer = v1::DiffRolesResponse {
                    change: json!(change).to_string(),
                    text: change.to_string(),
                };
                if !send(answer) {
                    return;
                }
            }
        }))
    }

    /// What in the roles is hardly meant, seen with the users and nodes that there are.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unavailable`].
    pub(crate) async fn lint_roles(&self, actor: &Actor) -> Result<Vec<v1::RoleLint>, Error> {
        self.ask(actor, None, "lint", &json!({})).await?;
        let snapshot = self.snapshot();
        let found = tokio::task::spawn_blocking(move || {
            let lints = lint(snapshot.policy(), Some(&inventory(&snapshot)));
            let lints = lints.into_iter().map(|lint| v1::RoleLint {
                role: lint.role.to_string(),
                place: lint.place,
                concern: lint.concern.as_str().to_owned(),
                message: lint.message,
                warning: lint.concern.is_warning(),
            });
            lints.collect()
        });
        found
            .await
            .map_err(|error| Error::Corrupt(error.to_string()))
    }

    /// The guard of every question, and its event.
    async fn ask(
        &self,
        actor: &Actor,
        about: Option<&UserName>,
        action: &str,
        query: &Value,
    ) -> Result<(), Error> {
        self.guard(actor, Resource::Role, Verb::Read, None).await?;
        self.guard(actor, Resource::User, Verb::Read, about).await?;
        self.guard(actor, Resource::Node, Verb::Read, None).await?;
        let event = self.tell().policy_read(actor, action, query);
        self.commit(Commit::new(event)).await?;
        Ok(())
    }
}

/// An address from which the roles admit the request, where they demand one.
fn admitted(policy: &PolicySet, request: &Request<'_>) -> Option<IpAddr> {
    let networks = conditions(policy, request).ok()?.source_networks?;
    networks.first().map(mezite_rbac::Network::address)
}

fn answer(
    query: Value,
    action: Action,
    decided: Result<Obligations, String>,
    policy: &PolicySet,
    request: &Request<'_>,
) -> Answer {
    let explanation = explain(policy, request);
    let decided = decided.and_then(|obligations| {
        if obligations.permits(action) {
            return Ok(obligations);
        }
        Err(format!(
            "the conditions of these roles do not permit {action}"
        ))
    });
    let Request {
        subject,
        node,
        login,
        ..
    } = request;
    let who = format!("{} as {login} on {}, {action}", subject.user, node.name);
    let mut text = match &decided {
        Ok(obligations) => format!("yes: {who}\nconditions: {}", listed(obligations)),
        Err(_) if explanation.reason.is_some() => format!("no: {who}"),
        Err(why) => format!("no: {who}: {why}"),
    };
    text.push_str(&format!("\n{explanation}"));
    let mut json = json!({
        "allowed": decided.is_ok(),
        "reason": decided.as_ref().err(),
        "obligations": decided.as_ref().ok(),
        "decided_by": explanation.decided_by(),
        "explanation": explanation,
    });
    if let (Some(json), Value::Object(query)) = (json.as_object_mut(), query) {
        json.extend(query);
    }
    Answer {
        allowed: decided.is_ok(),
        json,
        text,
    }
}

/// Obligations in one line; what is not limited is left out.
fn listed(obligations: &Obligations) -> String {
    let Value::Object(fields) = json!(obligations) else {
        return String::new();
    };
    let words: Vec<String> = fields
        .iter()
        .filter(|(name, value)| {
            let none = name.as_str() == "require_session_mfa" && **value == json!([]);
            !value.is_null() && !none
        })
        .map(|(name, value)| {
            format!(
                "{name} {}",
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            )
        })
        .collect();
    words.join(", ")
}

/// The roles of now, changed as asked.
fn proposed(present: &Snapshot, asked: &request::DiffRoles) -> Result<PolicySet, Error> {
    let mut fresh: Vec<Role> = Vec::new();
    for (name, text) in &asked.files {
        fresh.extend(Role::parse(text, name).map_err(|error| Error::Document(error.to_string()))?);
    }
    for name in &asked.removed {
        if !present.has_role(name) {
            return Err(Error::not_found("role", name.as_str()));
        }
        if builtin_roles().iter().any(|role| role.name() == name) {
            return Err(Error::Unfit(format!(
                "the role `{name}` is built in and stays"
            )));
        }
    }
    let gone = |role: &&Role| {
        asked.removed.contains(role.name()) || fresh.iter().any(|new| new.name() == role.name())
    };
    let kept: Vec<Role> = present
        .policy()
        .roles()
        .filter(|role| !gone(role))
        .cloned()
        .collect();
    PolicySet::compile(kept.into_iter().chain(fresh))
        .map_err(|error| Error::Document(error.to_string()))
}

fn inventory(snapshot: &Snapshot) -> Inventory {
    Inventory {
        users: snapshot.subjects().cloned().collect::<Vec<Subject>>(),
        nodes: targets(snapshot),
        logins: Vec::new(),
    }
}

/// Every node as the rules see it, by name.
fn targets(snapshot: &Snapshot) -> Vec<Node> {
    let mut nodes: Vec<Node> = snapshot.nodes().map(crate::record::Node::target).collect();
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    nodes
}

/// Runs `find` where it holds up nobody; what it sends is sent on. Sending says whether anybody still listens.
fn answers<T: Send + 'static>(
    find: impl FnOnce(&dyn Fn(T) -> bool) + Send + 'static,
) -> Answers<T> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::task::spawn_blocking(move || find(&|answer| sender.blocking_send(Ok(answer)).is_ok()));
    ReceiverStream::new(receiver)
}

fn texts<T: ToString>(names: impl IntoIterator<Item = T>) -> Vec<String> {
    names.into_iter().map(|name| name.to_string()).collect()
}

fn unfit(error: impl std::fmt::Display) -> Error {
    Error::Unfit(error.to_string())
}
