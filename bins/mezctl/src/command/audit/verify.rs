//! `audit verify`: the log as it arrives, or a bundle, against the checkpoints: what the hub sealed and what an auditor
//! kept.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use mezite_api::v1::ExportLogRequest;
use mezite_api::v1::export_log_response::Item;
use mezite_audit::bundle::{Check, MAX_LINE_BYTES, Part, Verified};
use mezite_core::store::StoredEvent;

use super::tree::{keys_of, parse_keys};
use crate::fail::Failure;
use crate::files::{self, Output};
use crate::hub::{Hub, within};
use crate::out;

/// What `audit verify` takes.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Hold the log to the checkpoint in this file, if it is there, and put the newest into it once all is verified.
    #[arg(long, value_name = "FILE", conflicts_with = "save")]
    checkpoint: Option<PathBuf>,
    /// A checkpoint that was kept from before: the log must still lead to it. May be given several times.
    #[arg(long, value_name = "FILE")]
    keep: Vec<PathBuf>,
    /// Write the newest checkpoint here once everything is verified.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Verify this export (`mezctl audit export --format bundle`) instead of asking a hub.
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,
    /// Trust this audit key and those that followed it, whatever else comes with the log: a line like
    /// `example/mezite-audit+1a2b3c4d+AT…`, as it is printed when a log was verified. May be given several times; the log
    /// must know each of them.
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
}

impl VerifyArgs {
    fn check(&self) -> Result<Check, Failure> {
        let own = self.checkpoint.iter().filter(|path| path.exists());
        let kept = self.keep.iter().chain(own).map(|path| files::read(path));
        let keys = parse_keys(&self.key)?;
        Ok(Check::new(kept.collect::<Result<_, _>>()?).with_keys(keys))
    }

    fn tell(&self, verified: &Verified) -> Result<(), Failure> {
        for path in self.save.iter().chain(&self.checkpoint) {
            let mut output = Output::open(Some(path))?;
            let written = output.write_all(verified.newest.as_bytes());
            written.map_err(|error| {
                Failure::failed(format_args!("cannot write `{}`: {error}", path.display()))
            })?;
            output.finish()?;
        }
        let report = &verified.report;
        out::line(format_args!(
            "audit: verified, {} events, checkpoint size {}",
            report.size, report.vouched
        ))?;
        if report.pruned > 0 {
            out::note(format_args!(
                "{} of them were removed by rule",
                report.pruned
            ));
        }
        for event in &report.restored {
            out::note(format_args!(
                "event {event} tells of a restore from a backup: what happened between the two is gone"
            ));
        }
        for (size, key) in report.keys.retired() {
            out::note(format_args!(
                "signed by {} up to event {size}, and retired then",
                key.to_line()
            ));
        }
        if let Some(key) = verified.keys.last() {
            let key = key.to_line();
            out::note(format_args!("signed by {key}"));
            if !self.key.is_empty() && !self.key.iter().any(|trusted| trusted.trim() == key) {
                out::note("it followed a key that you trust: give this one with --key from now on");
            }
        }
        Ok(())
    }
}

fn broken(why: impl std::fmt::Display) -> Failure {
    Failure::failed(format_args!("the audit log does not verify: {why}"))
}

/// Asks the hub for all of it.
pub(crate) async fn online(args: &VerifyArgs, hub: &mut Hub) -> Result<(), Failure> {
    let mut check = args.check()?;
    let mut items = within(hub.client.export_log(ExportLogRequest::default())).await?;
    while let Some(answer) = items.message().await? {
        if let Some(item) = answer.item {
            check.take(part(item)?).map_err(broken)?;
        }
    }
    args.tell(&check.finish().map_err(broken)?)
}

/// Reads a file.
pub(crate) fn offline(args: &VerifyArgs, path: &Path) -> Result<(), Failure> {
    let mut check = args.check()?;
    let unreadable = |error: std::io::Error| {
        Failure::usage(format_args!("cannot read `{}`: {error}", path.display()))
    };
    let mut input = BufReader::new(File::open(path).map_err(unreadable)?);
    let limit = u64::try_from(MAX_LINE_BYTES + 2).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut input).take(limit);
        if bounded.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            return args.tell(&check.finish().map_err(broken)?);
        }
        check.take_line(&line).map_err(broken)?;
    }
}

/// What the hub sends, as the bundle that it is.
pub(super) fn part(item: Item) -> Result<Part, Failure> {
    Ok(match item {
        Item::Keys(keys) => Part::Keys(keys_of(&keys)?),
        Item::Checkpoint(note) => Part::Checkpoint(note),
        Item::Text(text) => Part::Text {
            sequence: text.sequence,
            field: text.field,
            text: text.text,
        },
        Item::Event(event) => Part::Event(StoredEvent {
            sequence: event.sequence,
            body: event.body,
        }),
        Item::Pruned(pruned) => Part::Pruned {
            first: pruned.first,
            leaf_hashes: pruned.leaf_hashes,
        },
    })
}
