//! `audit tiles`: the log's tree as a directory that any server of files can give out, taken on with each call.

use std::path::PathBuf;

use clap::Args;
use mezite_api::v1::ExportLogRequest;
use mezite_api::v1::export_log_response::Item;
use mezite_audit::tile::{Place, WIDTH};

use super::tree::{self, Tree, parse_keys};
use crate::fail::Failure;
use crate::hub::{Hub, within};
use crate::out;
use crate::tiles::{Directory, Target};

/// What `audit tiles` takes.
#[derive(Debug, Args)]
pub(crate) struct TilesArgs {
    /// The directory; it is made, or taken on from where it ends.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Write the events too (`tile/entries`). Without them the directory tells nothing but how many there are: each is salted.
    #[arg(long)]
    entries: bool,
    /// Trust this audit key and those that followed it. May be given several times.
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
}

pub(super) async fn run(args: &TilesArgs, hub: &mut Hub) -> Result<(), Failure> {
    let directory = Directory::new(&args.out);
    let newest = Tree::open(hub, &parse_keys(&args.key)?).await?;
    let kept = directory.note()?;
    let kept = kept.map(|note| newest.kept(&note)).transpose();
    let kept = kept.map_err(|error| {
        Failure::failed(format_args!("`{}/checkpoint`: {error}", args.out.display()))
    })?;
    let from = kept.as_ref().map(|kept| &kept.checkpoint);
    let target = Target {
        checkpoint: newest.signed.checkpoint.clone(),
        note: newest.note.clone(),
    };
    let size = target.checkpoint.size;
    let fetch = async |places: &[Place]| tree::read(hub, places).await;
    let written = directory.update(from, &target, fetch).await?;
    if args.entries {
        // A file of entries that was incomplete is written anew.
        let first = from.map_or(0, |from| from.size) / WIDTH * WIDTH;
        let bodies = bodies(hub, first, size).await?;
        let skipped = directory.entries(size, bodies.into_iter().map(Ok), first)?;
        if skipped > 0 {
            out::note(format_args!(
                "{skipped} files of entries are left out: retention has removed events of theirs"
            ));
        }
    }
    directory.finish(&target)?;
    out::line(format_args!(
        "tiles: {written} written, checkpoint size {size}"
    ))
}

/// The events from `first` on, and what is left of those that were removed.
async fn bodies(
    hub: &mut Hub,
    first: u64,
    size: u64,
) -> Result<Vec<(u64, Option<Vec<u8>>)>, Failure> {
    let request = ExportLogRequest { after: first };
    let mut items = within(hub.client.export_log(request)).await?;
    let mut found = Vec::new();
    while let Some(answer) = items.message().await? {
        match answer.item {
            Some(Item::Event(event)) if event.sequence <= size => {
                found.push((event.sequence, Some(event.body)));
            }
            Some(Item::Pruned(pruned)) => {
                let count = u64::try_from(pruned.leaf_hashes.len() / 32).unwrap_or(u64::MAX);
                let sequences = pruned.first..pruned.first.saturating_add(count);
                found.extend(sequences.take_while(|at| *at <= size).map(|at| (at, None)));
            }
            Some(_) | None => {}
        }
    }
    Ok(found)
}
