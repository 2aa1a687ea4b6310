//! The node agent: what runs on a machine that people log in to.
//!
//! The modules here start programs for a login and serve its files. They know no SSH library and no network:
//! bytes come and go as tokio streams, decisions were made before.
//!
//! Unsafe code lives in the private module `sys` alone, so the crate denies rather than forbids it.

pub mod account;
pub mod environment;
pub mod process;
pub mod sftp;
mod sys;
pub mod terminal;

pub use account::Account;
pub use environment::Environment;
pub use process::Process;
