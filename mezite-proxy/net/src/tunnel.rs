//! Reverse tunnels: a node's agent keeps one small control connection to a hub and dials back once per session.
//!
//! The hub says `dial` with a single-use 128-bit id over the control connection; the agent opens a fresh connection
//! and sends the id as its first 16 bytes. So each session has flow control and keys of its own, and no multiplexer
//! stands between a keystroke and a bulk transfer.

mod control;
mod hub;

pub use control::{
    BreakGlassUse, ControlError, ControlReader, ControlWriter, Renewed, ToAgent, ToHub, split,
};
pub use hub::{DialError, Hooks, Registry};

/// Length in bytes of the id that binds a session connection to its request.
pub const DIAL_ID: usize = 16;
