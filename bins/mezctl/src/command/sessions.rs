//! `sessions ls`, `sessions end`: what runs now.

use clap::{Args, Subcommand};
use mezite_api::v1::{EndSessionRequest, ListSessionsRequest, Session};
use mezite_core::{SessionId, UnixTime};
use serde_json::{Value, json};

use crate::fail::Failure;
use crate::hub::{Hub, within};
use crate::out::{self, Format, Table};

/// What `sessions` takes.
#[derive(Debug, Subcommand)]
pub(crate) enum Sessions {
    /// List the sessions that run, at every hub.
    #[command(after_help = "Example:\n  mezctl sessions ls")]
    Ls {
        /// How to show the list.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// End a session at once.
    #[command(
        after_help = "Example:\n  mezctl sessions end 018bcfe5-6800-7fff-bfff-ffffffffffff --reason maintenance"
    )]
    End(EndArgs),
}

/// What `sessions end` takes.
#[derive(Debug, Args)]
pub(crate) struct EndArgs {
    /// The session.
    id: SessionId,
    /// Shown to its user.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

pub(crate) async fn run(command: &Sessions, hub: &mut Hub) -> Result<(), Failure> {
    match command {
        Sessions::Ls { output } => ls(*output, hub).await,
        Sessions::End(args) => {
            let request = EndSessionRequest {
                session_id: args.id.to_string(),
                reason: args.reason.clone(),
            };
            within(hub.client.end_session(request)).await?;
            out::line(format_args!("session {} ends", args.id))
        }
    }
}

async fn ls(format: Format, hub: &mut Hub) -> Result<(), Failure> {
    let sessions = within(hub.client.list_sessions(ListSessionsRequest {}))
        .await?
        .sessions;
    let value: Value = sessions.iter().map(document).collect();
    out::show(format, &value, || {
        let mut table = Table::new(&["SESSION", "USER", "TARGET", "FROM", "HUB", "STARTED"]);
        for session in &sessions {
            table.row(&[
                session.session_id.clone(),
                session.user.clone(),
                format!("{}@{}", session.login, session.node),
                session.client_ip.clone(),
                session.hub.clone(),
                UnixTime::from_millis(session.started_ms).to_string(),
            ]);
        }
        table
    })
}

fn document(session: &Session) -> Value {
    json!({
        "session": session.session_id, "user": session.user, "login": session.login, "node": session.node,
        "client_ip": session.client_ip, "hub": session.hub, "started": UnixTime::from_millis(session.started_ms).to_string(),
    })
}
