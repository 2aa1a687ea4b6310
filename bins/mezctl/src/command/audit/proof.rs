//! `audit proof` and `audit verify-proof`: a few hundred bytes that show a stranger that an event is in the log, or that
//! one checkpoint's log begins with another's.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use mezite_api::v1::ListEventsRequest;
use mezite_audit::checkpoint::Signed;
use mezite_audit::proof::text::{Consistency, Inclusion, Proof};
use mezite_audit::proof::{consistency, inclusion};
use mezite_core::EventId;
use serde_json::Value;

use super::tree::{Tree, parse_keys};
use crate::fail::Failure;
use crate::files::{self, Output};
use crate::hub::{Hub, within};
use crate::out;

/// What `audit proof` takes.
#[derive(Debug, Subcommand)]
pub(crate) enum ProofCommand {
    /// That one event is in the log of a checkpoint (C2SP tlog-proof, with the event in it).
    #[command(after_help = "Example:\n  mezctl audit proof inclusion 4711 --out 4711.tlog-proof")]
    Inclusion(InclusionArgs),
    /// That the log of a newer checkpoint begins with the log of an older one.
    #[command(
        after_help = "Example:\n  mezctl audit proof consistency old.checkpoint --out old.proof"
    )]
    Consistency(ConsistencyArgs),
}

/// What `audit proof inclusion` takes.
#[derive(Debug, Args)]
pub(crate) struct InclusionArgs {
    /// The event's sequence, or its id.
    event: String,
    /// Prove it to whoever has this checkpoint; to everybody with the newest by default.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Where to; standard output by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What `audit proof consistency` takes.
#[derive(Debug, Args)]
pub(crate) struct ConsistencyArgs {
    /// The older checkpoint.
    old: PathBuf,
    /// The newer checkpoint; the hub's newest by default.
    new: Option<PathBuf>,
    /// Where to; standard output by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What `audit verify-proof` takes.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The proof; `-` for standard input.
    file: PathBuf,
    /// An audit key that you trust: a line like `example/mezite-audit+1a2b3c4d+AT…`. May be given several times; a proof between
    /// checkpoints of before and after a rotation needs the keys of both.
    #[arg(long, value_name = "KEY", required = true)]
    key: Vec<String>,
}

pub(super) async fn run(command: &ProofCommand, hub: &mut Hub) -> Result<(), Failure> {
    match command {
        ProofCommand::Inclusion(args) => prove_inclusion(args, hub).await,
        ProofCommand::Consistency(args) => prove_consistency(args, hub).await,
    }
}

async fn prove_inclusion(args: &InclusionArgs, hub: &mut Hub) -> Result<(), Failure> {
    let sequence = sequence(&args.event, hub).await?;
    let mut tree = Tree::open(hub, &[]).await?;
    let note = match &args.checkpoint {
        Some(path) => files::read(path)?,
        None => tree.note.clone(),
    };
    let size = tree.kept(&note).map_err(Failure::failed)?.checkpoint.size;
    if sequence == 0 || sequence > size {
        return Err(Failure::failed(format_args!(
            "event {sequence} is not among the {size} of the checkpoint"
        )));
    }
    let request = ListEventsRequest {
        after: sequence - 1,
        before: sequence + 1,
        ..ListEventsRequest::default()
    };
    let events = within(hub.client.list_events(request)).await?.events;
    let body = events.into_iter().next().map(|event| event.body);
    let body = body.ok_or_else(|| {
        Failure::failed(format_args!(
            "event {sequence} was removed by retention: only its hash is left"
        ))
    })?;
    let path = tree
        .prove(hub, |tiles| inclusion(&tiles, sequence, size))
        .await?;
    let proof = Inclusion {
        sequence,
        body: Some(body),
        path,
        note,
    };
    // What does not hold is never given out.
    let body = proof.body.clone().unwrap_or_default();
    let keys = tree.keys();
    proof.verify(&body, keys).map_err(|error| wrong(&error))?;
    write(args.out.as_ref(), &proof)
}

async fn prove_consistency(args: &ConsistencyArgs, hub: &mut Hub) -> Result<(), Failure> {
    let mut tree = Tree::open(hub, &[]).await?;
    let old = files::read(&args.old)?;
    let new = match &args.new {
        Some(path) => files::read(path)?,
        None => tree.note.clone(),
    };
    let size = |note: &str| -> Result<u64, Failure> {
        Ok(tree.kept(note).map_err(Failure::failed)?.checkpoint.size)
    };
    let (from, to) = (size(&old)?, size(&new)?);
    if from > to || to > tree.signed.checkpoint.size {
        return Err(Failure::failed(format_args!(
            "the log has {} events, and the checkpoints are over {from} and {to}: it was cut or rolled back, or they are in the \
             wrong order",
            tree.signed.checkpoint.size
        )));
    }
    let path = tree
        .prove(hub, |tiles| consistency(&tiles, from, to))
        .await?;
    let proof = Consistency { path, old, new };
    proof.verify(tree.keys()).map_err(|error| wrong(&error))?;
    write(args.out.as_ref(), &proof)
}

/// By its number, or by the id that events and refusals show.
async fn sequence(event: &str, hub: &mut Hub) -> Result<u64, Failure> {
    if let Ok(sequence) = event.parse() {
        return Ok(sequence);
    }
    let id: EventId = event.parse().map_err(|_| {
        let event = event.escape_default();
        Failure::usage(format_args!(
            "`{event}` is neither the sequence nor the id of an event"
        ))
    })?;
    let request = mezite_api::v1::ExplainRequest {
        event_id: id.to_string(),
    };
    let answer = within(hub.client.explain(request)).await?;
    let told: Value = serde_json::from_str(&answer.explanation).map_err(Failure::failed)?;
    let sequence = told.pointer("/event/sequence").and_then(Value::as_u64);
    sequence.ok_or_else(|| Failure::failed("the hub's answer has no sequence"))
}

fn wrong(why: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format_args!(
        "the hub's log does not hold what its checkpoint says: {why}; run `mezctl audit verify`"
    ))
}

fn write(path: Option<&PathBuf>, proof: &impl std::fmt::Display) -> Result<(), Failure> {
    let mut output = Output::open(path.map(PathBuf::as_path))?;
    write!(output, "{proof}").map_err(|error| Failure::output(&error))?;
    output.finish()
}

/// Needs no hub.
pub(super) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let keys = parse_keys(&args.key)?;
    let text = files::read(&args.file)?;
    let path = args.file.display();
    let bad = |error: &dyn std::fmt::Display| {
        Failure::failed(format_args!("`{path}` proves nothing: {error}"))
    };
    let at = |signed: &Signed| {
        let checkpoint = &signed.checkpoint;
        out::plain(&format!(
            "{} of the log {}",
            checkpoint.size, checkpoint.origin
        ))
    };
    match Proof::parse(&text).map_err(|error| bad(&error))? {
        Proof::Inclusion(proof) => {
            let body = proof.body.as_deref();
            let body = body.ok_or_else(|| bad(&"it has no `extra` with the event"))?;
            let signed = proof.verify(body, &keys).map_err(|error| bad(&error))?;
            let event: Value = serde_json::from_slice(body).map_err(|error| bad(&error))?;
            if event.get("sequence").and_then(Value::as_u64) != Some(proof.sequence) {
                return Err(bad(&"the event says another sequence of itself"));
            }
            out::note(format_args!(
                "verified: event {} is among the {}",
                proof.sequence,
                at(&signed)
            ));
            // Whatever is in an event is escaped in it.
            out::line(&event)
        }
        Proof::Consistency(proof) => {
            let (old, new) = proof.verify(&keys).map_err(|error| bad(&error))?;
            out::line(format_args!(
                "verified: the {} begin with the {} of the older checkpoint",
                at(&new),
                old.checkpoint.size
            ))
        }
    }
}
