//! `recordings hold|release|prune`: how long recordings are kept.

use clap::Args;
use mezite_api::v1::{
    HoldRecordingRequest, PruneRecordingsRequest, PrunedRecording, ReleaseRecordingRequest,
};
use mezite_core::{SessionId, UnixTime};
use serde_json::{Value, json};

use super::document;
use crate::fail::Failure;
use crate::hub::{Hub, within};
use crate::out::{self, Format, Table};

/// What `recordings hold` and `recordings release` take.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// The session.
    id: SessionId,
    /// Why; the audit log keeps it.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// What `recordings prune` takes.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Only show what would be deleted.
    #[arg(long)]
    dry_run: bool,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn hold(args: &HoldArgs, hub: &mut Hub) -> Result<(), Failure> {
    let request = HoldRecordingRequest {
        session_id: args.id.to_string(),
        reason: args.reason.clone(),
    };
    within(hub.client.hold_recording(request)).await?;
    out::line(format_args!("{}: on hold", args.id))
}

pub(crate) async fn release(args: &HoldArgs, hub: &mut Hub) -> Result<(), Failure> {
    let request = ReleaseRecordingRequest {
        session_id: args.id.to_string(),
        reason: args.reason.clone(),
    };
    within(hub.client.release_recording(request)).await?;
    out::line(format_args!("{}: released", args.id))
}

pub(crate) async fn prune(args: &PruneArgs, hub: &mut Hub) -> Result<(), Failure> {
    let dry_run = args.dry_run;
    // Deleting much takes its time; the hub goes on whether we wait or not.
    let answer = hub
        .client
        .prune_recordings(PruneRecordingsRequest { dry_run })
        .await?
        .into_inner();
    let what = if dry_run {
        "would be deleted"
    } else {
        "deleted"
    };
    let all = [(what, &answer.pruned), ("held", &answer.held)];
    let each = all
        .iter()
        .flat_map(|(state, list)| list.iter().map(move |it| (*state, it)));
    let value: Value = each.clone().map(|(state, it)| shown(state, it)).collect();
    out::show(args.output, &value, || {
        let mut table = Table::new(&["SESSION", "USER", "STARTED", "BYTES", "RULE", "STATE"]);
        for (state, it) in each {
            let recording = it.recording.clone().unwrap_or_default();
            table.row(&[
                recording.session_id,
                recording.user,
                UnixTime::from_millis(recording.started_ms).to_string(),
                recording.bytes.to_string(),
                it.rule.clone(),
                state.to_owned(),
            ]);
        }
        table
    })
}

fn shown(state: &str, pruned: &PrunedRecording) -> Value {
    let recording = pruned.recording.as_ref().map(document);
    json!({ "recording": recording, "rule": pruned.rule, "state": state })
}
