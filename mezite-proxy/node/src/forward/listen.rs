//! Where the node listens for a client: ports and sockets that the hub has permitted, and the socket that leads to the
//! client's agent. Each lives as long as its guard.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mezite_net::ssh::{ChannelKind, Endpoint, Listener, Opener, PendingListener};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{ReadEnd, WriteEnd, carry};

/// Most connections at a time that one listener carries.
const MAX_CONNECTIONS: usize = 128;

/// Most listeners of one connection; a hub asks for fewer.
const MAX_LISTENERS: usize = 64;

/// What one session listens at.
#[derive(Debug)]
pub(crate) struct Listeners {
    opener: Opener,
    open: BTreeMap<Listener, Serving>,
}

/// The tasks that accept for one listener, which end with it, and what lies on the disk for it. What was accepted goes on to its own
/// end, or to that of the client's connection.
#[derive(Debug)]
struct Serving {
    _tasks: JoinSet<()>,
    _socket: Option<SocketFile>,
}

impl Listeners {
    pub(crate) const fn new(opener: Opener) -> Self {
        Self {
            opener,
            open: BTreeMap::new(),
        }
    }

    /// Does what was asked, and says whether it could.
    pub(crate) async fn answer(&mut self, pending: PendingListener) {
        let at = pending.at().clone();
        if pending.is_stop() {
            if self.open.remove(&at).is_some() {
                pending.grant(0);
            }
            return;
        }
        match self.listen(&at).await {
            Ok(port) => pending.grant(port),
            // Dropped, it is refused.
            Err(error) => tracing::info!(%at, %error, "cannot listen there"),
        }
    }

    async fn listen(&mut self, at: &Listener) -> io::Result<u32> {
        if self.open.len() >= MAX_LISTENERS {
            return Err(io::Error::other("too many listeners"));
        }
        match at {
            Listener::Tcp(Endpoint { host, port }) => {
                let wanted = u16::try_from(*port)
                    .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
                let listeners = bind(host, wanted).await?;
                let first = listeners.first().map(TcpListener::local_addr);
                let port = first.transpose()?.map_or(0, |address| address.port());
                let host = host.clone();
                let shown = Endpoint {
                    host,
                    port: port.into(),
                };
                let mut tasks = JoinSet::new();
                for listener in listeners {
                    tasks.spawn(accept_tcp(listener, shown.clone(), self.opener.clone()));
                }
                let serving = Serving {
                    _tasks: tasks,
                    _socket: None,
                };
                self.open.insert(Listener::Tcp(shown), serving);
                Ok(port.into())
            }
            Listener::Socket(path) => {
                let (listener, file) = bind_socket(Path::new(path))?;
                let kind = ChannelKind::ForwardedStreamlocal { path: path.clone() };
                let mut tasks = JoinSet::new();
                tasks.spawn(accept_socket(listener, kind, self.opener.clone()));
                let serving = Serving {
                    _tasks: tasks,
                    _socket: Some(file),
                };
                self.open.insert(at.clone(), serving);
                Ok(0)
            }
        }
    }
}

/// A socket at which programs reach the client's agent, in a directory of its own that nobody else may enter.
#[derive(Debug)]
pub(crate) struct AgentSocket {
    path: PathBuf,
    _tasks: JoinSet<()>,
    _directory: Directory,
}

impl AgentSocket {
    /// Makes it in the system's directory for what lives shortly.
    pub(crate) fn open(opener: Opener) -> io::Result<Self> {
        let directory = Directory::make(&std::env::temp_dir())?;
        let path = directory.0.join("agent");
        let listener = UnixListener::bind(&path)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(accept_socket(listener, ChannelKind::Agent, opener));
        Ok(Self {
            path,
            _tasks: tasks,
            _directory: directory,
        })
    }

    /// For `SSH_AUTH_SOCK`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A fresh directory with mode 0700 under a name that nobody could foresee (`mkdtemp(3)`); goes with what is in it.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn make(parent: &Path) -> io::Result<Self> {
        Ok(Self(nix::unistd::mkdtemp(&parent.join("mezd-XXXXXXXXXX"))?))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "a directory stays");
        }
    }
}

/// A socket that we made, by the number of its inode: what somebody put there instead is not removed.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours {
            // It may have gone meanwhile.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Listens at `path`, for this user alone from the first moment: the socket is made in a closed directory beside it and
/// linked to its place, where nothing may be yet.
fn bind_socket(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let parent = path
        .parent()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let directory = Directory::make(parent)?;
    let made = directory.0.join("s");
    let listener = UnixListener::bind(&made)?;
    fs::set_permissions(&made, fs::Permissions::from_mode(0o600))?;
    fs::hard_link(&made, path)?;
    let found = fs::symlink_metadata(path)?;
    let file = SocketFile {
        path: path.to_path_buf(),
        device: found.dev(),
        inode: found.ino(),
    };
    Ok((listener, file))
}

/// At `localhost` on both loopback addresses where there are both, at the empty host everywhere, otherwise at one address.
async fn bind(host: &str, port: u16) -> io::Result<Vec<TcpListener>> {
    match host {
        "" | "*" => {
            let everywhere = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await;
            let listener = match everywhere {
                Ok(listener) => listener,
                Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?,
            };
            Ok(vec![listener])
        }
        "localhost" => {
            let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
            let port = first.local_addr()?.port();
            let second = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await;
            Ok([Some(first), second.ok()].into_iter().flatten().collect())
        }
        host => {
            let address: IpAddr = host.parse().map_err(|_| {
                let words = "only addresses and localhost can be listened at";
                io::Error::new(io::ErrorKind::InvalidInput, words)
            })?;
            Ok(vec![TcpListener::bind((address, port)).await?])
        }
    }
}

async fn accept_tcp(listener: TcpListener, at: Endpoint, opener: Opener) {
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(place) = Arc::clone(&limit).acquire_owned().await {
        let Ok((stream, peer)) = listener.accept().await else {
            return;
        };
        let kind = ChannelKind::ForwardedTcpip {
            at: at.clone(),
            from: Endpoint {
                host: peer.ip().to_canonical().to_string(),
                port: peer.port().into(),
            },
        };
        let opener = opener.clone();
        // It outlives the listener, as with OpenSSH: cut off, its channel would stay open at the client for ever.
        tokio::spawn(async move {
            let (from, into) = stream.into_split();
            connect(&opener, &kind, Box::new(from), Box::new(into)).await;
            drop(place);
        });
    }
}

async fn accept_socket(listener: UnixListener, kind: ChannelKind, opener: Opener) {
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(place) = Arc::clone(&limit).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let (opener, kind) = (opener.clone(), kind.clone());
        // It outlives the listener, as with OpenSSH: cut off, its channel would stay open at the client for ever.
        tokio::spawn(async move {
            let (from, into) = stream.into_split();
            connect(&opener, &kind, Box::new(from), Box::new(into)).await;
            drop(place);
        });
    }
}

async fn connect(opener: &Opener, kind: &ChannelKind, from: ReadEnd, into: WriteEnd) {
    match opener.open(kind).await {
        Ok(channel) => carry(channel, from, into).await,
        Err(error) => tracing::debug!(%kind, %error, "a connection is not carried"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn attack_71_a_socket_is_its_owners_alone_and_takes_nobodys_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (listener, file) = bind_socket(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        let (near, far) = tokio::join!(tokio::net::UnixStream::connect(&path), listener.accept());
        assert!(near.is_ok() && far.is_ok());
        // Whatever is there already stays: a socket, a file, a link that leads nowhere.
        assert!(bind_socket(&path).is_err());
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), &link).unwrap();
        assert!(bind_socket(&link).is_err());
        assert!(!directory.path().join("elsewhere").exists());
        // Nothing is left beside it, and it goes with its guard, unless somebody put something else there.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        drop(file);
        assert!(!path.exists());
        let (_listener, file) = bind_socket(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn attack_71_an_agents_directory_is_fresh_and_closed() {
        let parent = tempfile::tempdir().unwrap();
        let one = Directory::make(parent.path()).unwrap();
        let two = Directory::make(parent.path()).unwrap();
        assert_ne!(one.0, two.0);
        assert_eq!(mode(&one.0), 0o700);
        fs::write(one.0.join("agent"), "").unwrap();
        drop(one);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_picked_port_is_the_same_on_both_loopback_addresses() {
        let listeners = bind("localhost", 0).await.unwrap();
        let ports: Vec<u16> = listeners
            .iter()
            .map(|it| it.local_addr().unwrap().port())
            .collect();
        assert!(ports.iter().all(|port| *port == ports[0] && *port > 0));
        assert!(bind("db.internal", 0).await.is_err());
        assert!(bind("127.0.0.1", ports[0]).await.is_err(), "taken");
    }
}
