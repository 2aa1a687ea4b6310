//! `login`: `msh` makes and keeps logins; this starts it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::fail::Failure;

/// What `login` takes.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// What `msh login` takes.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "ARG"
    )]
    arguments: Vec<OsString>,
}

/// Returns only when it failed.
pub(crate) fn run(args: &LoginArgs) -> Failure {
    let mut command = Command::new(program());
    let error = command.arg("login").args(&args.arguments).exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        return Failure::failed("there is no `msh` beside this program or in PATH: install it");
    }
    Failure::failed(format_args!("cannot start `msh`: {error}"))
}

/// The one that was installed with us, or the first in PATH.
fn program() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name("msh"));
    beside
        .filter(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from("msh"))
}
