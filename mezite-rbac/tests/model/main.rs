//! The engine compared with a naive model of SPEC.md.
//!
//! The model shares nothing with the engine but the names: it works on its own role values, knows neither regex nor
//! parser nor budget, and is slow.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test"
)]

mod checks;
mod choices;
mod corpus;
mod forwards;
mod pairs;
mod properties;
mod questions;
mod spec;
