//! `proxy`: what `ssh` runs as its ProxyCommand. Standard input and output carry SSH, through TLS, to the gateway.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;

use clap::Args;
use mezite_core::{ClusterName, NodeName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::fail::Failure;
use crate::home::{Home, Login};
use crate::{hub, preamble};

/// Bytes that are carried at once.
const BUFFER: usize = 256 * 1024;

/// What `proxy` takes.
#[derive(Debug, Args)]
pub(crate) struct ProxyArgs {
    /// The node and a port, which does not matter; `%h:%p` in ssh_config.
    #[arg(value_name = "HOST:PORT")]
    target: String,
}

/// Whose node `target` is: of the cluster that is its domain, or that was named.
pub(crate) fn find(
    args: &ProxyArgs,
    home: &Home,
    cluster: Option<&ClusterName>,
) -> Result<(Login, NodeName), Failure> {
    let (host, _) = args.target.rsplit_once(':').unwrap_or((&args.target, ""));
    let login = match (cluster, host.split_once('.')) {
        (None, Some((_, domain))) => home.login(domain.parse().ok().as_ref())?,
        _ => home.login(cluster)?,
    };
    let node = node_of(host, &login.profile.cluster)?;
    Ok((login, node))
}

fn node_of(host: &str, cluster: &ClusterName) -> Result<NodeName, Failure> {
    let suffix = format!(".{cluster}");
    host.strip_suffix(&suffix)
        .unwrap_or(host)
        .parse()
        .map_err(Failure::usage)
}

pub(crate) async fn proxy(login: &Login, node: &NodeName) -> Result<(), Failure> {
    let mut stream = hub::ssh_stream(login).await?;
    let address = &login.profile.proxy;
    let lost = |error: io::Error| {
        if let Some(refused) = Failure::login_refused(&error.to_string()) {
            return refused;
        }
        Failure::unavailable(format_args!(
            "the hub at {address} closed the connection: {error}"
        ))
    };
    preamble::ask(&mut stream, node).await.map_err(lost)?;
    preamble::answer(&mut stream)
        .await
        .map_err(lost)?
        .map_err(Failure::denied)?;
    let (from_hub, to_hub) = tokio::io::split(stream);
    let up = carry(input().map_err(unusable)?, to_hub);
    let down = carry(from_hub, output().map_err(unusable)?);
    tokio::pin!(up, down);
    // Our side may end first, then the rest of the answer still comes. When the hub's side ends, all is over, whether or
    // not somebody still holds our input open.
    tokio::select! {
        result = &mut down => result,
        result = &mut up => match result {
            Ok(()) => down.await,
            Err(error) => Err(error),
        },
    }
    .or_else(|error| {
        if is_end(&error) {
            Ok(())
        } else {
            Err(lost(error))
        }
    })
}

/// TLS without its last message, or an `ssh` that left: both ends know by themselves what they miss.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as the argument of `map_err`"
)]
fn unusable(error: io::Error) -> Failure {
    Failure::failed(format_args!(
        "cannot use standard input and output: {error}"
    ))
}

/// Copies until the end, and passes the end on.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..count).unwrap_or_default())
            .await?;
        to.flush().await?;
    }
}

/// `ssh` gives pipes or sockets. They are used without a thread between: each keystroke would pay for it.
fn input() -> io::Result<Box<dyn AsyncRead + Unpin>> {
    let file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let kind = file.metadata()?.file_type();
    Ok(if kind.is_fifo() {
        Box::new(pipe::Receiver::from_file(file)?)
    } else if kind.is_socket() {
        Box::new(socket(file)?)
    } else {
        Box::new(tokio::io::stdin())
    })
}

fn output() -> io::Result<Box<dyn AsyncWrite + Unpin>> {
    let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let kind = file.metadata()?.file_type();
    Ok(if kind.is_fifo() {
        Box::new(pipe::Sender::from_file(file)?)
    } else if kind.is_socket() {
        Box::new(socket(file)?)
    } else {
        Box::new(tokio::io::stdout())
    })
}

fn socket(file: File) -> io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(OwnedFd::from(file));
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_node_is_what_stands_before_the_cluster() {
        let cluster = "prod.example".parse().unwrap();
        assert_eq!(
            node_of("web.prod.example", &cluster).unwrap().as_str(),
            "web"
        );
        assert_eq!(node_of("web", &cluster).unwrap().as_str(), "web");
        for bad in ["web.other", "a.b.prod.example", "", "$(id)", "-x"] {
            assert_eq!(
                node_of(bad, &cluster).unwrap_err().code.number(),
                2,
                "{bad}"
            );
        }
    }

    #[tokio::test]
    async fn more_is_carried_than_a_socket_holds_and_then_the_end() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let data: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let sent = data.clone();
        let writer = std::thread::spawn(move || (&far).write_all(&sent));
        let mut received = Vec::new();
        let near = socket(File::from(OwnedFd::from(near))).unwrap();
        carry(near, &mut received).await.unwrap();
        writer.join().unwrap().unwrap();
        assert!(received == data);
    }
}
