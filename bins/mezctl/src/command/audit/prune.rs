//! `audit prune`: removes what is older than the hub's configuration keeps.

use clap::Args;
use mezite_api::v1::PruneLogRequest;
use mezite_core::Span;
use serde_json::{Value, json};

use crate::fail::Failure;
use crate::hub::Hub;
use crate::out::{self, Format, Table};

/// What `audit prune` takes.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(args: &PruneArgs, hub: &mut Hub) -> Result<(), Failure> {
    let request = PruneLogRequest {
        dry_run: args.dry_run,
    };
    // A first sweep over years of events takes its time.
    let types = hub.client.prune_log(request).await?.into_inner().types;
    let rows: Vec<_> = types
        .into_iter()
        .map(|pruned| {
            let age = Span::from_millis(pruned.age_ms);
            (pruned.event_type, age, pruned.count)
        })
        .collect();
    let value: Value = rows
        .iter()
        .map(|(event_type, age, count)| {
            json!({ "event_type": event_type, "kept": age.to_string(), "events": count })
        })
        .collect();
    out::show(args.output, &value, || {
        let events = if args.dry_run { "WOULD GO" } else { "REMOVED" };
        let mut table = Table::new(&["TYPE", "KEPT", events]);
        for (event_type, age, count) in &rows {
            table.row(&[event_type.clone(), age.to_string(), count.to_string()]);
        }
        table
    })
}
