//! The [`Dialer`] seam: a stream to the node that a permit names.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mezite_core::NodeId;
use mezite_net::ByteStream;
use mezite_net::tunnel::{DialError, Registry};
use thiserror::Error;
use tokio::net::TcpStream;

use crate::authority::{Node, Reach};

/// How long a direct TCP connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Why there is no stream.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// Through the tunnel.
    #[error(transparent)]
    Tunnel(#[from] DialError),
    /// Directly.
    #[error("cannot connect to {address}: {error}")]
    Tcp {
        /// `host:port` of the node.
        address: String,
        /// What the system says.
        error: std::io::Error,
    },
}

/// Reaches nodes. The way may be prepared before there is a permit: authenticating to the node is what needs one.
#[async_trait]
pub trait Dialer: Send + Sync + fmt::Debug {
    /// A fresh stream to `node`.
    async fn dial(&self, node: &Node) -> Result<Box<dyn ByteStream>, Unreachable>;

    /// Whether a dial could succeed now, without trying.
    fn is_online(&self, node: &NodeId) -> bool;
}

/// Agents through their tunnels, agentless nodes by TCP.
#[derive(Clone, Debug)]
pub struct NodeDialer(Arc<Registry>);

impl NodeDialer {
    /// Uses the agents connected to `registry`.
    #[must_use]
    pub const fn new(registry: Arc<Registry>) -> Self {
        Self(registry)
    }
}

#[async_trait]
impl Dialer for NodeDialer {
    async fn dial(&self, node: &Node) -> Result<Box<dyn ByteStream>, Unreachable> {
        match &node.reach {
            Reach::Tunnel => Ok(self.0.dial(&node.facts.id).await?),
            Reach::Direct(address) => {
                let connected =
                    tokio::time::timeout(CONNECT, TcpStream::connect(address.as_str())).await;
                let connected =
                    connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
                let stream = connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
                let stream = stream.map_err(|error| Unreachable::Tcp {
                    address: address.clone(),
                    error,
                })?;
                Ok(Box::new(stream))
            }
        }
    }

    fn is_online(&self, node: &NodeId) -> bool {
        self.0.is_connected(node)
    }
}
