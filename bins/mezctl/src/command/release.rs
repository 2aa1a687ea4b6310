//! `verify-release`.

use std::path::PathBuf;

use clap::Args;

use crate::fail::Failure;
use crate::release::{KEYS, verify as check};
use crate::{files, out};

/// What `verify-release` takes.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A directory with all files of a release, or one file with SHA256SUMS, SHA256SUMS.sig and BUILDINFO beside it.
    path: PathBuf,
    /// A file with the release keys that you trust (PEM), from another source than the release; without it, those that this
    /// program carries.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Accept a release that is older than this program.
    #[arg(long)]
    allow_older: bool,
}

pub(crate) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let named = args.key.as_deref().map(files::read).transpose()?;
    let own = (!args.allow_older).then_some(env!("CARGO_PKG_VERSION"));
    let verified = check(&args.path, named.as_deref().unwrap_or(KEYS), own)
        .map_err(|error| Failure::failed(&error))?;
    out::line(format_args!(
        "version {}, commit {}: signed by a release key",
        out::plain(&verified.version),
        out::plain(&verified.commit)
    ))?;
    for name in &verified.files {
        out::line(format_args!("good  {}", out::plain(name)))?;
    }
    Ok(())
}
