//! `recordings search`: lines of recordings that hold a text.

use clap::Args;
use mezite_api::v1::search_recordings_response::Item;
use mezite_api::v1::{FoundRecording, SearchRecordingsRequest, SearchSummary};
use mezite_core::{Clock, Span, UnixTime};
use mezite_net::clock::SystemClock;
use serde_json::{Value, json};

use super::document;
use crate::fail::Failure;
use crate::hub::Hub;
use crate::out::{self, Format, plain};

/// What `recordings search` takes.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// A piece of a line.
    text: String,
    /// Find it in any case of letters.
    #[arg(short, long)]
    ignore_case: bool,
    /// Only sessions of this user.
    #[arg(long, value_name = "NAME", default_value = "")]
    user: String,
    /// Only sessions that began so long ago at most.
    #[arg(long, value_name = "SPAN")]
    since: Option<Span>,
    /// Only sessions that began so long ago at least.
    #[arg(long, value_name = "SPAN")]
    until: Option<Span>,
    /// How many recordings at most.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// How many lines of each at most.
    #[arg(long, value_name = "N", default_value_t = 100)]
    lines: u32,
    /// How to show what was found.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(args: &SearchArgs, hub: &mut Hub) -> Result<(), Failure> {
    let ago = |span: Option<Span>| span.map_or(0, |span| SystemClock.now().minus(span).as_millis());
    let request = SearchRecordingsRequest {
        text: args.text.clone(),
        ignore_case: args.ignore_case,
        user: args.user.clone(),
        since_ms: ago(args.since),
        until_ms: ago(args.until),
        limit: args.limit,
        lines: args.lines,
    };
    // Recordings without an index get one first, which may take its time.
    let mut answers = hub.client.search_recordings(request).await?.into_inner();
    let mut found = Vec::new();
    let mut summary = SearchSummary::default();
    while let Some(answer) = answers.message().await? {
        match answer.item {
            Some(Item::Found(it)) if args.output == Format::Table => show(&it)?,
            Some(Item::Found(it)) => found.push(found_document(&it)),
            Some(Item::Summary(it)) => summary = it,
            None => {}
        }
    }
    let document = json!({
        "found": found, "searched": summary.searched, "closed": summary.closed, "failed": summary.failed,
        "more": summary.more,
    });
    match args.output {
        Format::Table => {
            sum_up(&summary);
            Ok(())
        }
        Format::Json => out::json(&document),
        Format::Yaml => out::yaml(&document),
    }
}

fn show(found: &FoundRecording) -> Result<(), Failure> {
    let recording = found.recording.clone().unwrap_or_default();
    out::line(format_args!(
        "{} {} as {}@{} from {}",
        recording.session_id,
        plain(&recording.user),
        plain(&recording.login),
        plain(&recording.node),
        UnixTime::from_millis(recording.started_ms)
    ))?;
    for line in &found.lines {
        out::line(format_args!(
            "  {:>12} {:7} {}",
            clock(line.at_ms),
            plain(&line.kind),
            plain(&line.line)
        ))?;
    }
    if found.more {
        out::line("  … and more lines: --lines shows them")?;
    }
    if found.clipped {
        out::line("  … its output beyond 64 MiB was not looked through")?;
    }
    Ok(())
}

/// What `msh play --from` takes.
fn clock(millis: u64) -> String {
    Span::from_millis(millis - millis % 1000).to_string()
}

fn sum_up(summary: &SearchSummary) {
    let mut told = format!("{} recordings were looked through", summary.searched);
    if summary.closed > 0 {
        told.push_str(&format!(
            "; {} only their recipients can open",
            summary.closed
        ));
    }
    if summary.failed > 0 {
        told.push_str(&format!(
            "; {} could not be read, the hub's log says why",
            summary.failed
        ));
    }
    if summary.more {
        told.push_str("; more of them hold the text: -n shows them");
    }
    out::note(told);
}

fn found_document(found: &FoundRecording) -> Value {
    let lines = found.lines.iter().map(|line| {
        json!({ "at_ms": line.at_ms, "channel": line.channel, "kind": line.kind, "line": line.line })
    });
    json!({
        "recording": found.recording.as_ref().map(document), "lines": lines.collect::<Vec<_>>(),
        "more": found.more, "clipped": found.clipped,
    })
}
