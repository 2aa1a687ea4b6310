//! `audit rotate-key`: another key signs the log's checkpoints from now on.

use clap::Args;
use mezite_api::v1::RotateKeyRequest;
use serde_json::json;

use crate::fail::Failure;
use crate::hub::{Hub, within};
use crate::out::{self, Format, Table};

/// What `audit rotate-key` takes.
#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(args: &RotateArgs, hub: &mut Hub) -> Result<(), Failure> {
    let request = RotateKeyRequest {
        kind: "audit".to_owned(),
        step: "begin".to_owned(),
        force: false,
    };
    let answer = within(hub.client.rotate_key(request)).await?;
    let generation = answer.key.as_ref().and_then(|key| key.generations.first());
    let number = generation.map_or(0, |generation| generation.number);
    let key = out::plain(&answer.audit_key);
    let value = json!({ "generation": number, "audit_key": key });
    out::show(args.output, &value, || {
        let mut table = Table::new(&["GENERATION", "AUDIT KEY"]);
        table.row(&[number.to_string(), key.clone()]);
        table
    })?;
    out::note(
        "auditors who know the old key verify as before, and are told of the new one: let them keep it, and a checkpoint \
         that it signed, from now on",
    );
    Ok(())
}
