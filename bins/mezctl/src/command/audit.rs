//! `audit ls`, `audit tail`, `audit verify`, `audit export`, `audit prune`, `audit rotate-key`, `audit proof`,
//! `audit verify-proof`, `audit tiles`.

mod csv;
mod export;
mod proof;
mod prune;
mod rotate;
mod texts;
mod tiles;
mod tree;
mod verify;

use clap::{Args, Subcommand, ValueEnum};
use mezite_api::request::MAX_LIMIT;
use mezite_api::v1::{EventText, ListEventsRequest, StoredEvent};
use mezite_core::{Clock, SessionId, Span, UnixTime};
use mezite_net::clock::SystemClock;
use serde_json::Value;

use crate::fail::Failure;
use crate::hub::{Hub, within};
use crate::out::{self, Format, Table};
use export::ExportArgs;
use proof::ProofCommand;
use prune::PruneArgs;
use rotate::RotateArgs;
use tiles::TilesArgs;
use verify::VerifyArgs;

/// How events are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// For people.
    #[default]
    Table,
    /// For programs; stable.
    Json,
    /// For files.
    Yaml,
    /// For spreadsheets.
    Csv,
}

/// What `audit` takes.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List events, the newest last.
    #[command(
        after_help = "Example:\n  mezctl audit ls --type session. --user alice --since 24h -n 50"
    )]
    Ls(LsArgs),
    /// Show events as they come, within a second. That somebody follows the log is one event.
    #[command(after_help = "Example:\n  mezctl audit tail --type authz.")]
    Tail(TailArgs),
    /// Check that no event was removed, changed or added since it was sealed.
    #[command(
        after_help = "Examples:\n  mezctl audit verify --checkpoint ~/mezite.checkpoint\n  mezctl audit verify --bundle log.bundle --key 'example/mezite-audit+1a2b3c4d+AT…'\n\nA checkpoint that is kept outside of the hub's reach shows a log that was cut, rewritten or rolled back since."
    )]
    Verify(VerifyArgs),
    /// Write the whole log into a file.
    #[command(
        after_help = "Examples:\n  mezctl audit export --out events.jsonl --checkpoint checkpoint.txt\n  mezctl audit export --format bundle --out log.bundle"
    )]
    Export(ExportArgs),
    /// Remove events that are older than the hub's configuration (`audit.retention`) keeps them, as it does by itself
    /// once a day. Their hashes stay, and an event names them.
    #[command(after_help = "Example:\n  mezctl audit prune --dry-run")]
    Prune(PruneArgs),
    /// Prove something of the log in a file that anybody checks with the audit key alone.
    #[command(
        subcommand,
        after_help = "Example:\n  mezctl audit proof inclusion 4711 --out 4711.tlog-proof"
    )]
    Proof(ProofCommand),
    /// Check such a file. It needs no hub and no account.
    #[command(
        name = "verify-proof",
        after_help = "Example:\n  mezctl audit verify-proof 4711.tlog-proof --key 'example/mezite-audit+1a2b3c4d+AT…'"
    )]
    VerifyProof(proof::VerifyArgs),
    /// Write the log's tree into a directory as C2SP tlog-tiles serves it, or take such a directory on. A hub that shows
    /// another log than before is found, and nothing in the directory is overwritten.
    #[command(after_help = "Example:\n  mezctl audit tiles --out /var/www/mezite-log")]
    Tiles(TilesArgs),
    /// Let another key sign the log's checkpoints. The log tells of it, so whoever trusts the old key trusts the new one; for
    /// what comes after it the old one counts no more, should it ever have been stolen.
    #[command(
        name = "rotate-key",
        after_help = "Example:\n  mezctl audit rotate-key"
    )]
    RotateKey(RotateArgs),
}

impl Audit {
    /// Does what needs no hub; `None` if it needs one.
    pub(crate) fn offline(&self) -> Option<Result<(), Failure>> {
        match self {
            Self::Verify(args) => {
                let path = args.bundle.as_deref()?;
                Some(verify::offline(args, path))
            }
            Self::VerifyProof(args) => Some(proof::verify(args)),
            Self::Ls(_)
            | Self::Tail(_)
            | Self::Export(_)
            | Self::Prune(_)
            | Self::Proof(_)
            | Self::RotateKey(_)
            | Self::Tiles(_) => None,
        }
    }
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
    output: Shape,
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

pub(crate) async fn run(command: &Audit, hub: &mut Hub) -> Result<(), Failure> {
    match command {
        Audit::Ls(args) => ls(args, hub).await,
        Audit::Tail(args) => tail(args, hub).await,
        Audit::Verify(args) => verify::online(args, hub).await,
        Audit::Export(args) => export::run(args, hub).await,
        Audit::Prune(args) => prune::run(args, hub).await,
        Audit::RotateKey(args) => rotate::run(args, hub).await,
        Audit::Proof(command) => proof::run(command, hub).await,
        Audit::VerifyProof(args) => proof::verify(args),
        Audit::Tiles(args) => tiles::run(args, hub).await,
    }
}

async fn ls(args: &LsArgs, hub: &mut Hub) -> Result<(), Failure> {
    let now = SystemClock.now();
    let time = |text: &Option<String>| text.as_deref().map(|text| moment(text, now)).transpose();
    let request = ListEventsRequest {
        since_ms: time(&args.since)?.map_or(0, UnixTime::as_millis),
        until_ms: time(&args.until)?.map_or(0, UnixTime::as_millis),
        // A table has no room for them.
        texts: args.output != Shape::Table,
        ..args.filter.request()
    };
    let (events, texts) = newest(hub, request, args.limit).await?;
    let mut bodies = Vec::new();
    for event in &events {
        bodies.push(match args.output {
            Shape::Table => body(event)?,
            Shape::Json | Shape::Yaml | Shape::Csv => {
                texts::resolved(event, body(event)?, &texts, hub).await?
            }
        });
    }
    let format = match args.output {
        Shape::Csv => {
            let rows: Vec<String> = bodies.iter().map(csv::row).collect();
            return out::line(
                format_args!("{}{}", csv::HEAD, rows.join("\n"))
                    .to_string()
                    .trim_end(),
            );
        }
        Shape::Table => Format::Table,
        Shape::Json => Format::Json,
        Shape::Yaml => Format::Yaml,
    };
    out::show(format, &bodies.iter().cloned().collect(), || table(&bodies))
}

/// The newest events that fit, oldest first; as many questions as it takes.
async fn newest(
    hub: &mut Hub,
    request: ListEventsRequest,
    limit: u32,
) -> Result<(Vec<StoredEvent>, Vec<EventText>), Failure> {
    let mut found: Vec<StoredEvent> = Vec::new();
    let mut texts = Vec::new();
    let mut left = limit;
    while left > 0 {
        let asked = left.min(MAX_LIMIT);
        let request = ListEventsRequest {
            before: found.last().map_or(0, |event| event.sequence),
            limit: asked,
            newest_first: true,
            ..request.clone()
        };
        let answer = within(hub.client.list_events(request)).await?;
        let events = answer.events;
        texts.extend(answer.texts);
        let count = u32::try_from(events.len()).unwrap_or(asked);
        found.extend(events);
        left = if count < asked {
            0
        } else {
            left - asked.min(left)
        };
    }
    found.reverse();
    Ok((found, texts))
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
    let request = ListEventsRequest {
        limit: args.limit.clamp(1, MAX_LIMIT),
        ..args.filter.request()
    };
    let mut events = within(hub.client.follow_events(request)).await?;
    while let Some(event) = events.message().await? {
        let body = body(&event)?;
        if args.json {
            out::line(&body)?;
        } else {
            out::line(out::plain(&row(&body).join("  ")))?;
        }
    }
    Err(Failure::unavailable("the hub ended the stream of events"))
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
    fn an_event_is_one_row() {
        let body = json!({
            "id": "i", "sequence": 7, "event_type": "audit.read", "timestamp": "t", "user_name": "carol",
            "success": true, "action": "list",
        });
        assert_eq!(
            table(std::slice::from_ref(&body)).to_string(),
            "SEQ  TIME  TYPE        USER   NODE  OK   ID\n7    t     audit.read  carol        yes  i"
        );
    }
}
