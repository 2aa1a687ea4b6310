//! The SFTP server on standard input and output, as `sftp -D` and `sshd_config`'s `Subsystem sftp` start one.

use std::io::{stdin, stdout};
use std::os::fd::AsFd;

use mezite_node::Account;
use mezite_node::sftp::{Options, serve_blocking};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = match std::env::args_os().nth(1) {
        Some(start) => start.into(),
        None => Account::current()?.home().to_owned(),
    };
    // Not through the standard library's own buffers: the server has better ones.
    let input = std::fs::File::from(stdin().as_fd().try_clone_to_owned()?);
    let output = std::fs::File::from(stdout().as_fd().try_clone_to_owned()?);
    Ok(serve_blocking(input, output, Options::new(start))?)
}
