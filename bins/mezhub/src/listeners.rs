//! The hub's four sockets, bound or taken over before anything else happens: a port in use is told at once, and the right
//! to bind a low one is given up with the rest.

use std::net::{SocketAddr, TcpListener};

use mezite_hardening::Inherited;

use crate::config;

/// Sockets that are bound already.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) https: TcpListener,
    pub(crate) ssh: TcpListener,
    pub(crate) tunnel: TcpListener,
    pub(crate) auth: TcpListener,
}

impl Listeners {
    /// Binds all that are not `inherited`. Those are told apart by the name of their unit's descriptor, if it is one of
    /// `listen`, and by their port otherwise.
    ///
    /// # Errors
    /// Which one could not be bound, and why; which one was handed over and is none of ours.
    pub(crate) fn open(listen: &config::Listen, inherited: Vec<Inherited>) -> Result<Self, String> {
        let mut handed = inherited;
        let mut open = |name, address| open(name, address, &mut handed);
        let listeners = Self {
            https: open("https", listen.https)?,
            ssh: open("ssh", listen.ssh)?,
            tunnel: open("tunnel", listen.tunnel)?,
            auth: open("auth", listen.auth)?,
        };
        if let Some(stray) = handed.first() {
            return Err(format!(
                "the service manager hands over a socket on {} (`{}`), which is none of `listen`: let the ports of the socket \
                 unit and of the configuration be the same",
                stray.address,
                stray.name.escape_default()
            ));
        }
        Ok(listeners)
    }
}

fn open(
    name: &str,
    address: SocketAddr,
    handed: &mut Vec<Inherited>,
) -> Result<TcpListener, String> {
    let is_it = |socket: &Inherited| match socket.name.as_str() {
        "https" | "ssh" | "tunnel" | "auth" => socket.name == name,
        _ => socket.address.port() == address.port(),
    };
    let failed = |error: std::io::Error| {
        format!(
            "cannot listen on {address} (listen.{name}): {error}; stop what uses it, or choose another address"
        )
    };
    let listener = match handed.iter().position(is_it) {
        Some(index) => handed.swap_remove(index).listener,
        None => mezite_hardening::bind(address).map_err(failed)?,
    };
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}
