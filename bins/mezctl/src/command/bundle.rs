//! `recordings export --format bundle` and `verify-bundle`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::Args;
use data_encoding::HEXLOWER;
use mezite_api::v1::ExportLogRequest;
use mezite_api::v1::export_log_response::Item;
use mezite_audit::NoteKey;
use mezite_core::SessionId;

use crate::bundle::{Collected, check, key_of};
use crate::fail::Failure;
use crate::files::{self, Output};
use crate::hub::{Hub, within};
use crate::out;
use crate::recording;

/// What `verify-bundle` takes.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The bundle.
    file: PathBuf,
    /// A file with the audit keys that you trust, from another source than the bundle: a line each, as `mezctl audit verify`
    /// prints them, or 64 hexadecimal digits. Keys that followed one of them are trusted, too; leave retired ones out.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

pub(crate) async fn export(
    id: SessionId,
    out: Option<&Path>,
    hub: &mut Hub,
) -> Result<(), Failure> {
    // The recording first: whether there is one is quickly known.
    let opened = recording::open(&mut hub.client, id).await?;
    if !opened.is_sealed() {
        return Err(Failure::failed(
            "the session still runs, or its recording was not finished yet: a bundle needs a finished one",
        ));
    }
    let (mut keys, mut note, mut collected) = (Vec::new(), None, Collected::new(id));
    let mut items = within(hub.client.export_log(ExportLogRequest::default())).await?;
    while let Some(answer) = items.message().await? {
        match answer.item {
            Some(Item::Keys(sent)) => {
                for key in sent.keys {
                    let key = <[u8; 32]>::try_from(key);
                    let none = |_| Failure::failed("the hub sent an audit key that is none");
                    keys.push(key.map_err(none)?);
                }
            }
            Some(Item::Checkpoint(sent)) => note = Some(sent),
            Some(Item::Event(event)) => collected.push(event.sequence, event.body),
            Some(Item::Pruned(pruned)) => collected.push_pruned(&pruned.leaf_hashes),
            // Of a long command the event has the beginning and the digest.
            Some(Item::Text(_)) | None => {}
        }
    }
    let note = note.ok_or_else(|| Failure::failed("the hub has no signed checkpoint yet"))?;
    let mut output = Output::open(out)?;
    let bytes = opened.bytes();
    let progress = recording::progress(bytes, out.is_none());
    let trusted = keys.clone();
    let output = opened
        .read_bytes(progress, move |pulled| {
            collected
                .write(&trusted, &note, pulled, bytes, &mut output)
                .map_err(Failure::failed)?;
            Ok(output)
        })
        .await?;
    output.finish()?;
    for key in keys {
        let key = HEXLOWER.encode(&key);
        out::note(format_args!(
            "audit key {key}: whoever verifies the bundle should have it from elsewhere too"
        ));
    }
    Ok(())
}

pub(crate) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let trusted = args.key.as_deref().map(keys).transpose()?;
    let path = args.file.display();
    let file = File::open(&args.file)
        .map_err(|error| Failure::usage(format_args!("cannot read `{path}`: {error}")))?;
    let checked = check(BufReader::new(file), trusted.as_deref().unwrap_or_default())
        .map_err(|error| Failure::failed(format_args!("`{path}` does not hold: {error}")))?;
    let header = &checked.recording.header;
    out::line(format_args!(
        "session {} of {} as {}@{} from {}",
        header.session_id, header.user, header.login, header.node, header.started
    ))?;
    let recovered = if checked.recording.recovered {
        ", closed after its recorder died"
    } else {
        ""
    };
    out::line(format_args!(
        "recording: verified, {} frames, {}{recovered}, sha256 {}",
        checked.recording.frames, checked.recording.duration, checked.recording.digest
    ))?;
    out::line(format_args!(
        "events: {} proven to be among the {} of the log {}",
        checked.events, checked.checkpoint.size, checked.checkpoint.origin
    ))?;
    if trusted.is_none() {
        out::note(format_args!(
            "nothing says whose keys these are: compare {} with the cluster's audit key, or give --key",
            checked.keys.join(", ")
        ));
    }
    Ok(())
}

fn keys(path: &Path) -> Result<Vec<[u8; 32]>, Failure> {
    let text = files::read(path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = |line: &str| key_of(line).or_else(|| Some(NoteKey::parse(line).ok()?.public_key()));
    let keys: Option<Vec<_>> = lines.map(line).collect();
    keys.filter(|keys| !keys.is_empty()).ok_or_else(|| {
        let path = path.display();
        Failure::usage(format_args!(
            "`{path}` holds no audit key: expected lines like `example/mezite-audit+1a2b3c4d+AT…`, or 64 hexadecimal digits"
        ))
    })
}
