#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod bundle;
pub mod catalogue;
pub mod checkpoint;
pub mod handover;
pub mod keeper;
pub mod merkle;
pub mod overflow;
pub mod proof;
pub mod reference;
pub mod sequences;
pub mod sink;
pub mod tile;
pub mod verify;

pub use catalogue::Stamp;
pub use checkpoint::{Checkpoint, CheckpointError, NoteKey};
pub use handover::Handover;
pub use sink::{Batch, Sink, SinkError};
pub use verify::{Fault, Report, Verifier};
