//! `audit ls`, `audit tail`, `audit verify`, `audit export`.

mod verify;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use mezite_api::request::MAX_LIMIT;
use mezite_api::v1::export_log_response::Item;
use mezite_api::v1::{ExportLogRequest, ListEventsRequest, StoredEvent, WhoAmIRequest};
use mezite_core::{Clock, SessionId, Span, UnixTime};
use mezite_net::clock::SystemClock;
use serde_json::Value;

use crate::fail::Failure;
use crate::files::{self, Output};
use crate::hub::{Hub, within};
use crate::out::{self, Format, Table};
use verify::Check;

/// How often `tail` looks.
const ROUND: Duration = Duration::from_secs(2);

/// What `audit` takes.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List events, the newest last.
    #[command(
        after_help = "Example:\n  mezctl audit ls --type session. --user alice --since 24h -n 50"
    )]
    Ls(LsArgs),
    /// Show events as they come. That this command reads is an event too, each time; those it does not show.
    #[command(after_help = "Example:\n  mezctl audit tail --type authz.")]
    Tail(TailArgs),
    /// Check that no event was removed, changed or added since it was sealed.
    #[command(
        after_help = "Example:\n  mezctl audit verify --keep checkpoint.txt --save checkpoint.txt"
    )]
    Verify(VerifyArgs),
    /// Write all events, one line of JSON each, exactly as they are sealed.
    #[command(
        after_help = "Example:\n  mezctl audit export --out events.jsonl --checkpoint checkpoint.txt"
    )]
    Export(ExportArgs),
}

/// Which events.
#[derive(Debug, Args)]
struct Filter {
    /// A type, or a prefix of types that ends with a dot.
    #[arg(long = "type", value_name = "TYPE", default_value = "")]
    event_type: String,
    /// By or about this user.
    #[arg(long, value_name = "NAME", default_value = "")]
    user: String,
    /// On this node.
    #[arg(long, value_name = "NAME", default_value = "")]
    node: String,
    /// Of this session.
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Only what failed.
    #[arg(long)]
    failed: bool,
}

impl Filter {
    fn request(&self) -> ListEventsRequest {
        ListEventsRequest {
            event_type: self.event_type.clone(),
            user: self.user.clone(),
            node: self.node.clone(),
            session_id: self.session.map(|id| id.to_string()).unwrap_or_default(),
            success: self.failed.then_some(false),
            ..ListEventsRequest::default()
        }
    }
}

/// What `audit ls` takes.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    filter: Filter,
    /// Not before this time, or this long ago: 2026-01-31, 2026-01-31T12:00:00Z, 24h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before this time, or this long ago.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// How many at most, the newest.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// How to show them.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What `audit tail` takes.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    filter: Filter,
    /// How many of the past first.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    limit: u32,
    /// One line of JSON for each event instead of a line for people.
    #[arg(long)]
    json: bool,
}

/// What `audit verify` takes.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A checkpoint that was kept from before: the log must still lead to it. May be given several times.
    #[arg(long, value_name = "FILE")]
    keep: Vec<PathBuf>,
    /// Write the newest checkpoint here once everything is verified.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// What `audit export` takes.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Where to; standard output by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where the newest checkpoint goes.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
}

pub(crate) async fn run(command: &Audit, hub: &mut Hub) -> Result<(), Failure> {
    match command {
        Audit::Ls(args) => ls(args, hub).await,
        Audit::Tail(args) => tail(args, hub).await,
        Audit::Verify(args) => verify_log(args, hub).await,
        Audit::Export(args) => export(args, hub).await,
    }
}

async fn ls(args: &LsArgs, hub: &mut Hub) -> Result<(), Failure> {
    let now = SystemClock.now();
    let time = |text: &Option<String>| text.as_deref().map(|text| moment(text, now)).transpose();
    let request = ListEventsRequest {
        since_ms: time(&args.since)?.map_or(0, UnixTime::as_millis),
        until_ms: time(&args.until)?.map_or(0, UnixTime::as_millis),
        ..args.filter.request()
    };
    let events = newest(hub, request, args.limit).await?;
    let bodies = events.iter().map(body).collect::<Result<Vec<_>, _>>()?;
    out::show(args.output, &bodies.iter().cloned().collect(), || {
        table(&bodies)
    })
}

/// The newest events that fit, oldest first; as many questions as it takes.
async fn newest(
    hub: &mut Hub,
    request: ListEventsRequest,
    limit: u32,
) -> Result<Vec<StoredEvent>, Failure> {
    let mut found: Vec<StoredEvent> = Vec::new();
    let mut left = limit;
    while left > 0 {
        let asked = left.min(MAX_LIMIT);
        let request = ListEventsRequest {
            before: found.last().map_or(0, |event| event.sequence),
            limit: asked,
            newest_first: true,
            ..request.clone()
        };
        let events = within(hub.client.list_events(request)).await?.events;
        let count = u32::try_from(events.len()).unwrap_or(asked);
        found.extend(events);
        left = if count < asked {
            0
        } else {
            left - asked.min(left)
        };
    }
    found.reverse();
    Ok(found)
}

fn body(event: &StoredEvent) -> Result<Value, Failure> {
    serde_json::from_slice(&event.body).map_err(|error| {
        let sequence = event.sequence;
        Failure::failed(format_args!(
            "event {sequence} is unreadable: {error}; run `mezctl audit verify`"
        ))
    })
}

const HEAD: [&str; 7] = ["SEQ", "TIME", "TYPE", "USER", "NODE", "OK", "ID"];

fn table(bodies: &[Value]) -> Table {
    let mut table = Table::new(&HEAD);
    for body in bodies {
        table.row(&row(body));
    }
    table
}

fn row(body: &Value) -> [String; 7] {
    let text = |name: &str| {
        body.get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let ok = match body.get("success").and_then(Value::as_bool) {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    };
    let sequence = body
        .get("sequence")
        .and_then(Value::as_u64)
        .unwrap_or_default();
    [
        sequence.to_string(),
        text("timestamp"),
        text("event_type"),
        text("user_name"),
        text("server_hostname"),
        ok.to_owned(),
        text("id"),
    ]
}

/// A day, a time, or how long ago.
fn moment(text: &str, now: UnixTime) -> Result<UnixTime, Failure> {
    if let Ok(span) = text.parse::<Span>() {
        return Ok(now.minus(span));
    }
    let forms = [
        text.to_owned(),
        format!("{text}T00:00:00.000Z"),
        format!("{}.000Z", text.strip_suffix('Z').unwrap_or(text)),
    ];
    forms.iter().find_map(|form| UnixTime::parse_rfc3339(form)).ok_or_else(|| {
        let text = text.escape_default();
        Failure::usage(format_args!("`{text}` is not a time: write 2026-01-31, 2026-01-31T12:00:00Z, or 24h for a day ago"))
    })
}

async fn tail(args: &TailArgs, hub: &mut Hub) -> Result<(), Failure> {
    let own = within(hub.client.who_am_i(WhoAmIRequest {})).await?.name;
    let mut last = 0;
    let mut events = newest(hub, args.filter.request(), args.limit.max(1)).await?;
    loop {
        for event in &events {
            last = last.max(event.sequence);
            let body = body(event)?;
            if is_own_reading(&body, &own) {
                continue;
            }
            if args.json {
                out::line(&body)?;
            } else {
                out::line(out::plain(&row(&body).join("  ")))?;
            }
        }
        tokio::time::sleep(ROUND).await;
        let request = ListEventsRequest {
            after: last,
            limit: MAX_LIMIT,
            ..args.filter.request()
        };
        events = within(hub.client.list_events(request)).await?.events;
    }
}

/// Whether the event tells that we listed events.
fn is_own_reading(body: &Value, own: &str) -> bool {
    let is = |name: &str, value: &str| body.get(name).and_then(Value::as_str) == Some(value);
    is("event_type", "audit.read") && is("action", "list") && is("user_name", own)
}

async fn verify_log(args: &VerifyArgs, hub: &mut Hub) -> Result<(), Failure> {
    let kept = args
        .keep
        .iter()
        .map(|path| files::read(path))
        .collect::<Result<_, _>>()?;
    let mut check = Check::new(kept);
    let broken =
        |why: String| Failure::failed(format_args!("the audit log does not verify: {why}"));
    let mut items = within(hub.client.export_log(ExportLogRequest {})).await?;
    while let Some(answer) = items.message().await? {
        if let Some(item) = answer.item {
            check.take(item).map_err(broken)?;
        }
    }
    let verified = check.finish().map_err(broken)?;
    if let Some(path) = &args.save {
        let mut output = Output::open(Some(path))?;
        let written = output.write_all(verified.newest.as_bytes());
        written.map_err(|error| {
            Failure::failed(format_args!("cannot write `{}`: {error}", path.display()))
        })?;
        output.finish()?;
    }
    let (size, vouched) = (verified.report.size, verified.report.vouched);
    out::line(format_args!(
        "audit: verified, {size} events, checkpoint size {vouched}"
    ))
}

async fn export(args: &ExportArgs, hub: &mut Hub) -> Result<(), Failure> {
    let failed = |error: std::io::Error| match &args.out {
        Some(path) => Failure::failed(format_args!("cannot write `{}`: {error}", path.display())),
        None => Failure::output(&error),
    };
    let mut output = Output::open(args.out.as_deref())?;
    let mut checkpoint = None;
    let mut items = within(hub.client.export_log(ExportLogRequest {})).await?;
    while let Some(answer) = items.message().await? {
        match answer.item {
            Some(Item::Event(event)) => {
                output.write_all(&event.body).map_err(failed)?;
                output.write_all(b"\n").map_err(failed)?;
            }
            Some(Item::Checkpoint(note)) => checkpoint = Some(note),
            Some(Item::Keys(_)) | None => {}
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_days_moments_or_ago() {
        let now = UnixTime::from_secs(86_400);
        let at = |text: &str| moment(text, now).map(UnixTime::as_secs).ok();
        assert_eq!(at("1h"), Some(82_800));
        assert_eq!(at("1970-01-02"), Some(86_400));
        assert_eq!(at("1970-01-02T00:00:01Z"), Some(86_401));
        assert_eq!(at("1970-01-02T00:00:01.000Z"), Some(86_401));
        for bad in ["", "yesterday", "1970-13-01", "12:00"] {
            assert_eq!(moment(bad, now).unwrap_err().code.number(), 2, "{bad}");
        }
    }

    #[test]
    fn an_event_is_one_row_and_our_own_reading_is_known() {
        let body = json!({
            "id": "i", "sequence": 7, "event_type": "audit.read", "timestamp": "t", "user_name": "carol",
            "success": true, "action": "list",
        });
        assert_eq!(
            table(std::slice::from_ref(&body)).to_string(),
            "SEQ  TIME  TYPE        USER   NODE  OK   ID\n7    t     audit.read  carol        yes  i"
        );
        assert!(is_own_reading(&body, "carol"));
        assert!(!is_own_reading(&body, "alice"));
    }
}
