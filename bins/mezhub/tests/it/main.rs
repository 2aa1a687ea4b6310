//! The programs together, as people use them: hub, agents and stock OpenSSH, each a process of its own.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod agentless;
mod audit;
mod backup;
mod bad_input;
mod break_glass;
mod bucket;
mod constraints;
mod crash;
mod crashes;
mod denial;
mod forward;
mod full_disk;
mod guide;
mod guide_audit;
mod hardening;
mod hostile;
mod house;
mod hubs;
mod join;
mod kills;
mod known_hosts;
mod limit;
mod lock;
mod matrix;
mod odd_client;
mod playback;
mod quickstart;
mod recordings;
mod revocation;
mod rotation;
mod sealing;
mod secrets;
mod service;
mod ways;
