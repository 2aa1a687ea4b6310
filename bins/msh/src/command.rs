//! The commands, one file for each group.

pub(crate) mod config;
pub(crate) mod join;
pub(crate) mod login;
pub(crate) mod ls;
pub(crate) mod play;
pub(crate) mod proxy;
pub(crate) mod session;
pub(crate) mod ssh;
