//! The SFTP server on standard input and output, as `sftp -D` and `sshd_config`'s `Subsystem sftp` start one.

use mezite_node::Account;
use mezite_node::sftp::{Options, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = match std::env::args_os().nth(1) {
        Some(start) => start.into(),
        None => Account::current()?.home().to_owned(),
    };
    let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    Ok(serve(stream, Options::new(start)).await?)
}
