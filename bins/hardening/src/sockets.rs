//! Listening sockets: those that a service manager hands over (`sd_listen_fds(3)`), and those that are bound here.

use std::io;
use std::net::{SocketAddr, TcpListener};

use nix::sys::socket::{AddressFamily, Backlog, SockaddrLike, getsockopt, listen, sockopt};

use crate::environment::take;
use crate::sys;

/// Connections that may wait to be accepted, as the runtime asks for too.
const BACKLOG: i32 = 1024;

/// A socket that was handed over.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inherited {
    /// `FileDescriptorName=` of its unit.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The socket.
    pub listener: TcpListener,
}

/// What the service manager has bound for this process. The environment is cleaned of it, so a second call gives nothing.
/// To be called while there is one thread.
///
/// # Errors
/// What is wrong with what was handed over, and with which unit.
pub fn inherited() -> Result<Vec<Inherited>, String> {
    let (process, count, names) = (
        take("LISTEN_PID"),
        take("LISTEN_FDS"),
        take("LISTEN_FDNAMES"),
    );
    let number =
        |value: Option<std::ffi::OsString>| -> Option<u32> { value?.to_str()?.parse().ok() };
    let Some(count) = count else {
        return Ok(Vec::new());
    };
    if number(process) != Some(std::process::id()) {
        // Meant for a parent that did not clean up.
        return Ok(Vec::new());
    }
    let count = number(Some(count)).filter(|count| *count <= 64);
    let count = count.ok_or("LISTEN_FDS is no number of sockets from 0 to 64")?;
    let names = names.unwrap_or_default().to_string_lossy().into_owned();
    let mut names = names.split(':').map(str::to_owned);
    (0..count)
        .map(|index| take_over(index, names.next().unwrap_or_default()))
        .collect()
}

fn take_over(index: u32, name: String) -> Result<Inherited, String> {
    let wrong = |why: &str| {
        format!(
            "socket {} that the service manager hands over (`{}`) {why}: see ListenStream= of its socket unit",
            index + 1,
            name.escape_default()
        )
    };
    let socket =
        sys::handed_over(index).map_err(|error| wrong(&format!("cannot be used: {error}")))?;
    if getsockopt(&socket, sockopt::AcceptConn) != Ok(true) {
        return Err(wrong("does not listen"));
    }
    let address: Result<nix::sys::socket::SockaddrStorage, _> = sys::local_address(&socket);
    let inet = address.is_ok_and(|address| {
        matches!(
            address.family(),
            Some(AddressFamily::Inet | AddressFamily::Inet6)
        )
    });
    if !inet {
        return Err(wrong("is none of TCP"));
    }
    let listener = TcpListener::from(socket);
    let address = listener
        .local_addr()
        .map_err(|error| wrong(&error.to_string()))?;
    Ok(Inherited {
        name,
        address,
        listener,
    })
}

/// Binds a socket and listens.
///
/// # Errors
/// What the system said.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // The standard library lets fewer wait.
    listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}
