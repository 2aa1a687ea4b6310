//! What a service manager is told (`sd_notify(3)`): that the program is ready, stops, lives.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::environment::take;

/// The way to the service manager, if there is one. Connected when it is made, so that it outlives every restriction.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the service manager has said in the environment, which is cleaned of it: children are not to speak for us.
    /// To be called while there is one thread.
    ///
    /// # Errors
    /// What is wrong with `NOTIFY_SOCKET`.
    pub fn from_environment() -> Result<Self, String> {
        let socket = take("NOTIFY_SOCKET").filter(|place| !place.is_empty());
        let (process, every) = (take("WATCHDOG_PID"), take("WATCHDOG_USEC"));
        let socket = socket.map(|place| {
            connect(&place).map_err(|error| {
                format!(
                    "NOTIFY_SOCKET `{}` cannot be used: {error}",
                    place.display()
                )
            })
        });
        Ok(Self {
            socket: socket.transpose()?,
            watchdog: watchdog(process.as_deref(), every.as_deref(), std::process::id()),
        })
    }

    /// The program serves; `status` says what, in one line.
    ///
    /// # Errors
    /// What the system said: the service manager would wait in vain.
    pub fn ready(&self, status: &str) -> io::Result<()> {
        self.send(&format!("READY=1\nSTATUS={status}"))
    }

    /// The program ends.
    pub fn stopping(&self) {
        // Nobody is waiting for it.
        drop(self.send("STOPPING=1"));
    }

    /// The program lives.
    ///
    /// # Errors
    /// What the system said.
    pub fn alive(&self) -> io::Result<()> {
        self.send("WATCHDOG=1")
    }

    /// How soon the program must say again that it lives, if anybody asks.
    #[must_use]
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    fn send(&self, message: &str) -> io::Result<()> {
        self.socket
            .as_ref()
            .map_or(Ok(()), |socket| socket.send(message.as_bytes()).map(drop))
    }
}

fn connect(place: &OsStr) -> io::Result<UnixDatagram> {
    let address = match place.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(place)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Without a process id it is meant for whoever reads it.
fn watchdog(process: Option<&OsStr>, every: Option<&OsStr>, own: u32) -> Option<Duration> {
    let number = |text: &OsStr| text.to_str().and_then(|text| text.parse::<u64>().ok());
    if process.is_some_and(|process| number(process) != Some(u64::from(own))) {
        return None;
    }
    every
        .and_then(number)
        .filter(|micros| *micros > 0)
        .map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("mezite-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        for (place, manager) in [
            (
                path.as_os_str().to_owned(),
                UnixDatagram::bind(&path).unwrap(),
            ),
            (
                format!("@{name}").into(),
                UnixDatagram::bind_addr(&address).unwrap(),
            ),
        ] {
            let notifier = Notifier {
                socket: Some(connect(&place).unwrap()),
                watchdog: None,
            };
            let mut buffer = [0; 64];
            let mut heard = || {
                let length = manager.recv(&mut buffer).unwrap();
                String::from_utf8(buffer[..length].to_vec()).unwrap()
            };
            notifier.ready("serving").unwrap();
            assert_eq!(heard(), "READY=1\nSTATUS=serving");
            notifier.alive().unwrap();
            assert_eq!(heard(), "WATCHDOG=1");
            notifier.stopping();
            assert_eq!(heard(), "STOPPING=1");
        }
        assert!(connect(OsStr::new("/no/such/socket")).is_err());
    }

    #[test]
    fn the_watchdog_is_for_the_process_it_names() {
        let asked = |process: Option<&str>, every: Option<&str>| {
            watchdog(process.map(OsStr::new), every.map(OsStr::new), 7)
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(asked(Some("7"), Some("1000000")), second);
        assert_eq!(asked(None, Some("1000000")), second);
        for (process, every) in [
            (Some("8"), Some("1000000")),
            (Some("x"), Some("1000000")),
            (Some("7"), None),
            (Some("7"), Some("0")),
            (Some("7"), Some("-1")),
        ] {
            assert_eq!(asked(process, every), None, "{process:?} {every:?}");
        }
    }
}
