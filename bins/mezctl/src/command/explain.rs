//! `explain`: which rules decided.

use clap::Args;
use mezite_api::v1::ExplainRequest;
use mezite_core::EventId;
use serde_json::Value;

use crate::fail::Failure;
use crate::hub::{Hub, within};
use crate::out::{self, Format};

/// What `explain` takes.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The id of an event, as a denial shows it and `mezctl audit ls` lists it.
    #[arg(value_name = "EVENT_ID")]
    event: EventId,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(args: &ExplainArgs, hub: &mut Hub) -> Result<(), Failure> {
    let request = ExplainRequest {
        event_id: args.event.to_string(),
    };
    let explained = within(hub.client.explain(request)).await?;
    let value = || serde_json::from_str::<Value>(&explained.explanation).map_err(Failure::failed);
    match args.output {
        Format::Json => out::json(&value()?),
        Format::Yaml => out::yaml(&value()?),
        Format::Table => out::lines(&explained.text),
    }
}
