#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod catalogue;
pub mod checkpoint;
pub mod inclusion;
pub mod keeper;
pub mod merkle;
pub mod reference;
pub mod verify;

pub use catalogue::Stamp;
pub use checkpoint::{Checkpoint, CheckpointError, NoteKey};
pub use verify::{Fault, Report, Verifier};
