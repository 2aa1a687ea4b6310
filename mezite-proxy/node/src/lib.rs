//! The node agent: what runs on a machine that people log in to.
//!
//! `agent` keeps the tunnel to the hub, `serve` is the SSH server inside it, `break_glass` the way in
//! while no hub is there, `state` what the node keeps on disk. The
//! other modules start programs for a login and serve its files; they know no SSH library and no network.
//!
//! Unsafe code lives in the private module `sys` alone, so the crate denies rather than forbids it.

pub mod account;
pub mod agent;
pub mod break_glass;
pub mod environment;
mod forward;
pub mod process;
pub mod serve;
pub mod sftp;
pub mod state;
mod sys;
pub mod terminal;

pub use account::Account;
pub use environment::Environment;
pub use process::Process;
