//! `sessions`: what runs and what was recorded, as far as the caller may see it.

use clap::Args;
use mezite_api::v1::{ListRecordingsRequest, ListSessionsRequest, Recording, Session};
use mezite_core::UnixTime;
use serde_json::{Value, json};

use crate::fail::{Code, Failure};
use crate::home::Login;
use crate::hub;
use crate::out::{self, Format, Table};

/// What `sessions` takes.
#[derive(Debug, Args)]
pub(crate) struct SessionsArgs {
    /// How many recordings at most, newest first.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// How to show the list.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn sessions(args: &SessionsArgs, login: &Login) -> Result<(), Failure> {
    let mut client = hub::hub(login).await?;
    let live = hub::within(client.list_sessions(ListSessionsRequest {})).await;
    let live = live.map(|answer| answer.sessions);
    let request = ListRecordingsRequest {
        limit: args.limit,
        user: String::new(),
    };
    let recorded = hub::within(client.list_recordings(request)).await;
    let recorded = recorded.map(|answer| answer.recordings);
    // A role may allow one and not the other; then there is still something to show.
    let (live, recorded) = match (live, recorded) {
        (Err(failure), Ok(recorded)) if failure.code == Code::Denied => (Vec::new(), recorded),
        (Ok(live), Err(failure)) if failure.code == Code::Denied => (live, Vec::new()),
        (live, recorded) => (live?, recorded?),
    };
    let rows = rows(&live, &recorded);
    let value: Value = rows.iter().map(Row::document).collect();
    out::show(args.output, &value, || table(&rows))
}

struct Row {
    session: String,
    user: String,
    target: String,
    started: UnixTime,
    state: &'static str,
}

impl Row {
    fn document(&self) -> Value {
        let Self {
            session,
            user,
            target,
            started,
            state,
        } = self;
        json!({ "session": session, "user": user, "target": target, "started": started.to_string(), "state": state })
    }
}

fn rows(live: &[Session], recorded: &[Recording]) -> Vec<Row> {
    let running = live.iter().map(|session| Row {
        session: session.session_id.clone(),
        user: session.user.clone(),
        target: format!("{}@{}", session.login, session.node),
        started: UnixTime::from_millis(session.started_ms),
        state: "live",
    });
    let over = recorded.iter().filter(|recording| {
        !live
            .iter()
            .any(|session| session.session_id == recording.session_id)
    });
    let over = over.map(|recording| Row {
        session: recording.session_id.clone(),
        user: recording.user.clone(),
        target: format!("{}@{}", recording.login, recording.node),
        started: UnixTime::from_millis(recording.started_ms),
        state: if recording.sealed {
            "recorded"
        } else {
            "unfinished"
        },
    });
    running.chain(over).collect()
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&["SESSION", "USER", "TARGET", "STARTED", "STATE"]);
    for row in rows {
        let Row {
            session,
            user,
            target,
            started,
            state,
        } = row;
        table.row(&[
            session.clone(),
            user.clone(),
            target.clone(),
            started.to_string(),
            (*state).to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_session_is_listed_once() {
        let live = [Session {
            session_id: "a".to_owned(),
            ..Session::default()
        }];
        let recorded = ["a", "b"].map(|id| Recording {
            session_id: id.to_owned(),
            sealed: id == "b",
            ..Recording::default()
        });
        let states: Vec<_> = rows(&live, &recorded).iter().map(|row| row.state).collect();
        assert_eq!(states, ["live", "recorded"]);
    }
}
