//! The service as its callers see it, on the memory store and a clock that stands still.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod admin;
mod audit_key;
mod break_glass;
mod endpoints;
mod faults;
mod hubs;
mod join;
mod log;
mod login;
mod question;
mod random;
mod recorded;
mod reseal;
mod retention;
mod revoked;
mod rig;
mod rotation;
mod session;
mod sinks;
mod texts;
