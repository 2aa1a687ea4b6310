//! `lock`, `unlock`.

use clap::{Args, ValueEnum};
use mezite_api::v1::{CreateLockRequest, RemoveResourceRequest};
use mezite_core::{Clock, Span};
use mezite_net::clock::SystemClock;
use serde_json::json;

use crate::fail::Failure;
use crate::hub::{Hub, within};
use crate::out::{self, Format};

/// What can be locked.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Target {
    User,
    Role,
    Node,
    Login,
    Session,
}

impl Target {
    fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Role => "role",
            Self::Node => "node",
            Self::Login => "login",
            Self::Session => "session",
        }
    }
}

/// What `lock` takes.
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// What is to be locked.
    #[arg(value_enum)]
    kind: Target,
    /// Its name, or a session's id.
    name: String,
    /// Shown to whoever is stopped.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// For how long; until it is removed by default.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// How to show the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What `unlock` takes.
#[derive(Debug, Args)]
pub(crate) struct UnlockArgs {
    /// The lock, as `mezctl lock` answered and `mezctl get locks` lists it.
    id: String,
}

pub(crate) async fn lock(args: &LockArgs, hub: &mut Hub) -> Result<(), Failure> {
    let end = args.ttl.map(|ttl| SystemClock.now().plus(ttl));
    let request = CreateLockRequest {
        target_kind: args.kind.as_str().to_owned(),
        target_name: args.name.clone(),
        reason: args.reason.clone(),
        expires_ms: end.map_or(0, |end| end.as_millis()),
    };
    let id = within(hub.client.create_lock(request)).await?.id;
    let value = json!({ "id": id, "kind": args.kind.as_str(), "name": args.name });
    match args.output {
        Format::Json => out::json(&value),
        Format::Yaml => out::yaml(&value),
        Format::Table => out::line(out::plain(&format!(
            "{} {} is locked; to undo: mezctl unlock {id}",
            args.kind.as_str(),
            args.name
        ))),
    }
}

pub(crate) async fn unlock(args: &UnlockArgs, hub: &mut Hub) -> Result<(), Failure> {
    let request = RemoveResourceRequest {
        kind: "lock".to_owned(),
        name: args.id.clone(),
    };
    within(hub.client.remove_resource(request)).await?;
    out::line(out::plain(&format!("lock {} removed", args.id)))
}
