//! `audit export`: the whole log as a file.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mezite_api::v1::ExportLogRequest;
use mezite_api::v1::export_log_response::Item;
use mezite_audit::bundle;
use serde_json::Value;

use super::csv;
use super::tree::keys_of;
use crate::fail::Failure;
use crate::files::Output;
use crate::hub::{Hub, within};

/// In which form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// One event a line, exactly as it is sealed.
    #[default]
    Jsonl,
    /// For spreadsheets: the fields that most events have, then the whole event.
    Csv,
    /// Events, checkpoint and keys: verified by `mezctl audit verify --bundle` with no hub and no account.
    Bundle,
}

/// What `audit export` takes.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Where to; standard output by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// In which form.
    #[arg(long, value_enum, default_value_t)]
    format: Form,
    /// Where the newest checkpoint goes.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
}

pub(crate) async fn run(args: &ExportArgs, hub: &mut Hub) -> Result<(), Failure> {
    let failed = |error: std::io::Error| match &args.out {
        Some(path) => Failure::failed(format_args!("cannot write `{}`: {error}", path.display())),
        None => Failure::output(&error),
    };
    let mut output = Output::open(args.out.as_deref())?;
    if args.format == Form::Csv {
        output.write_all(csv::HEAD.as_bytes()).map_err(failed)?;
    }
    let mut checkpoint = None;
    let mut items = within(hub.client.export_log(ExportLogRequest::default())).await?;
    while let Some(answer) = items.message().await? {
        let Some(item) = answer.item else { continue };
        if let Some(line) = line(args.format, &item)? {
            output.write_all(&line).map_err(failed)?;
            output.write_all(b"\n").map_err(failed)?;
        }
        if let Item::Checkpoint(note) = item {
            checkpoint = Some(note);
        }
    }
    output.finish()?;
    if let Some(path) = &args.checkpoint {
        let note = checkpoint
            .ok_or_else(|| Failure::failed("the hub has sealed no checkpoint yet: try again"))?;
        let mut output = Output::open(Some(path))?;
        output.write_all(note.as_bytes()).map_err(failed)?;
        output.finish()?;
    }
    Ok(())
}

/// What an item is in the file, if it is in it.
fn line(form: Form, item: &Item) -> Result<Option<Vec<u8>>, Failure> {
    let line = match (form, item) {
        (Form::Jsonl | Form::Bundle, Item::Event(event)) => event.body.clone(),
        (Form::Csv, Item::Event(event)) => {
            let body: Value = super::body(event)?;
            csv::row(&body).into_bytes()
        }
        (Form::Bundle, Item::Keys(keys)) => {
            let cluster = keys.cluster.parse().map_err(Failure::failed)?;
            let parsed = keys_of(keys)?;
            bundle::header(&cluster, &keys.origin, &parsed).into_bytes()
        }
        (Form::Bundle, Item::Text(text)) => {
            bundle::text_line(text.sequence, &text.field, &text.text).into_bytes()
        }
        (Form::Bundle, Item::Checkpoint(note)) => bundle::checkpoint_line(note).into_bytes(),
        (Form::Bundle, Item::Pruned(pruned)) => {
            bundle::pruned_line(pruned.first, &pruned.leaf_hashes).into_bytes()
        }
        (
            Form::Jsonl | Form::Csv,
            Item::Keys(_) | Item::Checkpoint(_) | Item::Pruned(_) | Item::Text(_),
        ) => {
            return Ok(None);
        }
    };
    Ok(Some(line))
}
