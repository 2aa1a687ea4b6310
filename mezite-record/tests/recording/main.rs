//! The crate from outside: recording, sealing, recovery, and what tampering shows.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_lossless,
    reason = "tests"
)]

mod common;
mod corpus;
mod record;
mod search;
mod seek;
mod tamper;
mod vectors;
