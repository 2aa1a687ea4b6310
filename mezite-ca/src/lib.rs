#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod kind;
mod prepare;
mod signer;
mod ssh;
mod tls;
mod trust;
mod wire;

pub mod krl;
pub mod openssh;
pub mod principal;
pub mod rotation;
pub mod seal;
pub mod verify;

pub use kind::{KeyKind, KeyKindError};
pub use prepare::Prepared;
pub use signer::{RemoteKey, SignError, Signer, SoftwareKey};
pub use ssh::{
    BREAK_GLASS_CEILING, Binding, GATEWAY_LIFE, GatewayKey, IDENTITY_CEILING, IdentityKey,
    IdentityRequest, IssueError, MAX_CERTIFICATE_BYTES, MAX_PRINCIPALS, NODE_LIFE, NodeKey,
    Permissions, SKEW, SessionKey, SessionRequest,
};
pub use tls::{
    AUTHORITY_LIFE, Authority, HostTls, PEER_CEILING, PeerKind, PeerName, TlsRequest, UserTls, pin,
    tls_signer,
};
pub use trust::{GenerationNote, GenerationState, TrustBundle};
