//! The services of the API on top of [`Auth`]. The composition root takes connections, verifies certificates and puts
//! who called into each request; here every call asks for it.

mod access;
mod hub;
mod recordings;

use std::net::IpAddr;
use std::sync::Arc;

use mezite_api::v1::access_server::AccessServer;
use mezite_api::v1::hub_server::HubServer;
use mezite_ca::PeerKind;
use mezite_ca::verify::VerifiedPeer;
use mezite_core::NodeId;
use tonic::{Extensions, Request};

use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;
use crate::recording::RecordingSource;

pub use access::AccessService;
pub use hub::HubService;

/// Largest message that is taken from a caller.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// Who called. The composition root puts one into the extensions of every request; a request without one is
/// anonymous.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the composition root names one of these"
)]
pub enum Caller {
    /// Nobody known: no client certificate.
    Anonymous,
    /// The hub's own Unix socket, by a process of this user id, whose right to administer was checked.
    Local {
        /// The user id of the process.
        uid: u32,
    },
    /// A client certificate, verified.
    Peer(VerifiedPeer),
}

/// Where the call came from. A second extension beside [`Caller`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the composition root builds it")]
pub struct Source(pub IpAddr);

/// The calls for everybody.
#[must_use]
pub fn access(auth: Auth) -> AccessServer<AccessService> {
    AccessServer::new(AccessService::new(auth)).max_decoding_message_size(MAX_MESSAGE)
}

/// The calls for those who are known.
#[must_use]
pub fn hub(auth: Auth, recordings: Arc<dyn RecordingSource>) -> HubServer<HubService> {
    HubServer::new(HubService::new(auth, recordings)).max_decoding_message_size(MAX_MESSAGE)
}

/// Who a request is from, as of now.
#[derive(Clone, Debug)]
enum Known {
    /// A user or the local administrator.
    Actor(Actor),
    /// A node's agent.
    Node(NodeId),
    /// A hub.
    Hub,
}

impl Known {
    fn actor(self) -> Result<Actor, Error> {
        match self {
            Self::Actor(actor) => Ok(actor),
            Self::Node(_) => Err(Error::NotForPeer("node")),
            Self::Hub => Err(Error::NotForPeer("hub")),
        }
    }
}

fn source<T>(request: &Request<T>) -> Option<IpAddr> {
    source_of(request.extensions())
}

fn source_of(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<Source>().map(|source| source.0)
}

/// The caller, found anew for every call: the certificate still good, its
/// authority's key still trusted, the user or node still there, nothing locked.
async fn known<T>(auth: &Auth, request: &Request<T>) -> Result<Known, Error> {
    known_of(auth, request.extensions()).await
}

async fn known_of(auth: &Auth, extensions: &Extensions) -> Result<Known, Error> {
    let caller = extensions.get::<Caller>().cloned();
    let source = source_of(extensions);
    let peer = match caller {
        None | Some(Caller::Anonymous) => return Err(Error::Anonymous),
        Some(Caller::Local { uid }) => return Ok(Known::Actor(Actor::local(uid)?)),
        Some(Caller::Peer(peer)) => peer,
    };
    if auth.now() >= peer.not_after() {
        return Err(Error::Expired(peer.not_after()));
    }
    if peer.cluster() != auth.cluster() {
        return Err(Error::Anonymous);
    }
    if auth.is_peer_revoked(&peer) {
        return Err(Error::Revoked(peer.serial()));
    }
    // The connection may be older than the end of a rotation.
    let signed = peer.revocable();
    if !auth.keys().trusts(signed.authority, signed.authority_key) {
        return Err(Error::Replaced);
    }
    match peer.kind() {
        PeerKind::User => {
            let name = peer.user().ok_or(Error::Anonymous)?;
            Ok(Known::Actor(Actor::user(auth.user(&name)?, source)))
        }
        PeerKind::Node => {
            let id = peer.node().ok_or(Error::Anonymous)?;
            let (_, node) = auth.stored_node(&id).await.map_err(gone)?;
            auth.check_node_lock(&node)?;
            Ok(Known::Node(id))
        }
        PeerKind::Hub => Ok(Known::Hub),
        PeerKind::Bot => Err(Error::NotForPeer("bot")),
    }
}

async fn actor<T>(auth: &Auth, request: &Request<T>) -> Result<Actor, Error> {
    known(auth, request).await?.actor()
}

/// A node that was removed keeps its certificate until it ends, but is nobody any more.
fn gone(error: Error) -> Error {
    if matches!(error, Error::NotFound { .. }) {
        Error::Gone
    } else {
        error
    }
}
