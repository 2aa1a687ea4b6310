//! Where users' SSH connections arrive: finds out who, where to and as whom, and starts the session.
//!
//! Three ways in, one way on: (a) `ssh -J user@hub login@node`, (b) `msh proxy`, a stream over TLS, (c)
//! `ssh login+node@hub` for clients without jump hosts. (a) and (b) end in an inner SSH server that speaks as the node.

mod admission;
mod identities;
mod way;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mezite_core::{Login, NodeName, SessionId, UserName};
use mezite_net::ByteStream;
use mezite_net::ssh::{ChannelKind, Incoming, OpenFailure, Server, ServerIdentity, accept};
use mezite_record::{Recipient, Signer, Sink};
use tokio::sync::watch;

use crate::authority::{Authority, Node};
use crate::dial::Dialer;
use crate::relay;
use crate::session::EndReason;
pub(crate) use admission::Admission;
use admission::Check;
use identities::Identities;
use way::Way;

/// Where recordings go, who may read them, and who signs them.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "the composition root builds it")]
pub struct Recordings {
    /// Keeps them.
    pub sink: Arc<dyn Sink>,
    /// Whose keys open them.
    pub recipients: Vec<Recipient>,
    /// Signs finished ones.
    pub signer: Arc<dyn Signer>,
}

/// Most inner connections that one jump connection carries at a time.
const MAX_INNER: usize = 64;

/// The gateway. Clones share everything.
#[derive(Clone, Debug)]
pub struct Gateway(Arc<Shared>);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) recordings: Recordings,
    identities: Identities,
    live: Mutex<Live>,
}

/// The sessions that run or are about to.
#[derive(Debug, Default)]
struct Live {
    sessions: BTreeMap<SessionId, watch::Sender<Option<EndReason>>>,
    closed: bool,
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a session on the list until the guard is dropped; `None` once the gateway shuts down.
    pub(crate) fn enlist(self: &Arc<Self>, id: SessionId) -> Option<Enlisted> {
        let (end, ended) = watch::channel(None);
        let mut live = self.live();
        if live.closed {
            return None;
        }
        live.sessions.insert(id, end);
        Some(Enlisted {
            shared: Arc::clone(self),
            id,
            ended,
        })
    }
}

/// A place on the list of live sessions.
#[derive(Debug)]
pub(crate) struct Enlisted {
    pub(crate) shared: Arc<Shared>,
    id: SessionId,
    /// Says when somebody outside ends the session.
    pub(crate) ended: watch::Receiver<Option<EndReason>>,
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        self.shared.live().sessions.remove(&self.id);
    }
}

impl Gateway {
    /// A gateway that asks `authority`, reaches nodes through `dialer` and records into `recordings`.
    #[must_use]
    pub fn new(
        authority: Arc<dyn Authority>,
        dialer: Arc<dyn Dialer>,
        recordings: Recordings,
    ) -> Self {
        let (identities, live) = (Identities::default(), Mutex::default());
        Self(Arc::new(Shared {
            authority,
            dialer,
            recordings,
            identities,
            live,
        }))
    }

    /// Lets no new session begin, ends all that run, and waits until they are closed and recorded, at most so long.
    pub async fn shutdown(&self, patience: std::time::Duration) {
        {
            let mut live = self.0.live();
            live.closed = true;
            for end in live.sessions.values() {
                end.send_replace(Some(EndReason::Shutdown));
            }
        }
        let empty = async {
            while !self.0.live().sessions.is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(patience, empty).await.is_err() {
            tracing::warn!("some sessions did not end in time; their recordings will be recovered");
        }
    }

    /// Serves one connection to the SSH port.
    pub async fn serve<S: ByteStream + 'static>(&self, stream: S, source: SocketAddr) {
        let shared = &self.0;
        let source = source.ip();
        let identity = match shared
            .identities
            .of(shared.authority.as_ref(), shared.authority.hub_names())
            .await
        {
            Ok(identity) => identity,
            Err(error) => return tracing::error!(%error, "no host certificate for the gateway"),
        };
        let check = Check::outer(Arc::clone(&shared.authority), source);
        let mut server = match accept(stream, identity, check).await {
            Ok(server) => server,
            Err(error) => {
                return tracing::debug!(%source, %error, "a connection ended before authentication");
            }
        };
        if let Ok(Way::Direct { login, node }) = server.user().parse::<Way>() {
            let target = self.find(server.proof(), &node, source).await;
            return match target {
                Ok(node) => relay::run(shared, server, node, login, source).await,
                Err(words) => relay::tell(server, &words).await,
            };
        }
        let mut inner = tokio::task::JoinSet::new();
        while let Some(incoming) = server.next().await {
            // Nothing listens here; a listener that is dropped is refused.
            let Incoming::Open(pending) = incoming else {
                continue;
            };
            while inner.try_join_next().is_some() {}
            if inner.len() >= MAX_INNER {
                let words = "too many connections through this one";
                pending.refuse(OpenFailure::Shortage, words).await;
                continue;
            }
            let ChannelKind::DirectTcpip { to, .. } = pending.kind().clone() else {
                let words = "this is the Mezite gateway: use `ssh -J` with a node's name, or login+node@hub";
                pending.refuse(OpenFailure::Prohibited, words).await;
                continue;
            };
            match self.jump(server.proof(), &to.host, to.port, source).await {
                Ok((node, identity)) => {
                    let bound = server.proof().clone();
                    let stream = pending.accept_stream().await;
                    let gateway = self.clone();
                    inner.spawn(async move {
                        gateway
                            .serve_inner(stream, node, identity, bound, source)
                            .await
                    });
                }
                Err(words) => pending.refuse(OpenFailure::ConnectFailed, &words).await,
            }
        }
        // The client leaves its jump connection when the inner one is over, or both are lost together.
        while inner.join_next().await.is_some() {}
    }

    /// Prepares for a stream that `msh proxy` will send from `source` towards `node`, for a `user` that TLS has
    /// authenticated.
    ///
    /// # Errors
    /// Words for the user when the node is not there for them.
    pub async fn proxied(
        &self,
        user: UserName,
        node: &str,
        source: IpAddr,
    ) -> Result<Proxied, String> {
        let name = self.node_name(node)?;
        self.find_for(&user, &name, source).await?;
        let identity = self.node_identity(&name).await?;
        Ok(Proxied {
            gateway: self.clone(),
            user,
            name,
            identity,
        })
    }

    async fn serve_inner<S: ByteStream + 'static>(
        &self,
        stream: S,
        name: NodeName,
        identity: ServerIdentity,
        outer: Admission,
        source: IpAddr,
    ) {
        let check = Check::same_as(Arc::clone(&self.0.authority), source, outer);
        match accept(stream, identity, check).await {
            Ok(server) => self.start(server, &name, source).await,
            Err(error) => {
                tracing::debug!(%source, %error, "an inner connection ended before authentication")
            }
        }
    }

    /// The user name of an inner connection is the login.
    async fn start(&self, server: Server<Admission>, name: &NodeName, source: IpAddr) {
        let login = match server.user().parse::<Login>() {
            Ok(login) => login,
            Err(error) => return relay::tell(server, &error.to_string()).await,
        };
        match self.find(server.proof(), name, source).await {
            Ok(node) => relay::run(&self.0, server, node, login, source).await,
            Err(words) => relay::tell(server, &words).await,
        }
    }

    /// A jump to `host:port`: the node's name and the identity to show as that node.
    async fn jump(
        &self,
        admission: &Admission,
        host: &str,
        port: u32,
        source: IpAddr,
    ) -> Result<(NodeName, ServerIdentity), String> {
        if port != 22 {
            return Err(format!("nodes are reached at port 22, not {port}"));
        }
        let name = self.node_name(host)?;
        self.find(admission, &name, source).await?;
        let identity = self.node_identity(&name).await?;
        Ok((name, identity))
    }

    /// `node` or `node.<cluster>`.
    fn node_name(&self, host: &str) -> Result<NodeName, String> {
        let suffix = format!(".{}", self.0.authority.cluster());
        host.strip_suffix(&suffix)
            .unwrap_or(host)
            .parse::<NodeName>()
            .map_err(|error| error.to_string())
    }

    async fn node_identity(&self, name: &NodeName) -> Result<ServerIdentity, String> {
        let names = vec![
            name.to_string(),
            format!("{name}.{}", self.0.authority.cluster()),
        ];
        self.0
            .identities
            .of(self.0.authority.as_ref(), names)
            .await
            .map_err(|error| error.to_string())
    }

    async fn find(
        &self,
        admission: &Admission,
        name: &NodeName,
        source: IpAddr,
    ) -> Result<Node, String> {
        self.find_for(admission.identity()?.user(), name, source)
            .await
    }

    async fn find_for(
        &self,
        user: &UserName,
        name: &NodeName,
        source: IpAddr,
    ) -> Result<Node, String> {
        let found = self.0.authority.find_node(user, name, source).await;
        found.map_err(|refusal| refusal.message)
    }
}

/// A node that a proxied stream may go to.
#[derive(Debug)]
pub struct Proxied {
    gateway: Gateway,
    user: UserName,
    name: NodeName,
    identity: ServerIdentity,
}

impl Proxied {
    /// Serves the stream, which comes from `source`, until it is over.
    pub async fn serve<S: ByteStream + 'static>(self, stream: S, source: SocketAddr) {
        let authority = Arc::clone(&self.gateway.0.authority);
        let check = Check::of_user(authority, source.ip(), self.user);
        match accept(stream, self.identity, check).await {
            Ok(server) => self.gateway.start(server, &self.name, source.ip()).await,
            Err(error) => tracing::debug!(%source, %error, "a proxied connection ended early"),
        }
    }
}
