//! The vocabulary of Mezite: names, ids, labels, time, secrets, events, and the [`store::Store`] seam.
//!
//! Everything here is pure: no I/O, no runtime, no clock. Time and randomness are arguments.
#![forbid(unsafe_code)]

pub mod address;
pub mod event;
pub mod id;
pub mod label;
pub mod name;
pub mod secret;
pub mod store;
pub mod time;

pub use event::Event;
pub use id::{EventId, NodeId, Serial, SessionId};
pub use label::{LabelSource, Labels};
pub use name::{ClusterName, Login, NodeName, RoleName, UserName};
pub use secret::Secret;
pub use time::{Clock, ManualClock, Span, UnixTime};
