//! The audit trail of Mezite: which events there are, and how a log of them proves that nothing is missing.
#![forbid(unsafe_code)]

pub mod catalogue;

pub use catalogue::Stamp;
