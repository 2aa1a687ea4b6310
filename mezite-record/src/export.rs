//! Recordings in formats that other tools read. Each function reads frames once and writes as it goes.

mod asciicast;
mod json;
mod text;

use std::io;

use thiserror::Error;

pub use asciicast::{asciicast_v2, asciicast_v3};
pub use json::json;
pub use text::text;

use crate::read::ReadError;

/// Why an export stopped. What was written up to there is true.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The output cannot be written.
    #[error("the export cannot be written: {0}")]
    Write(#[from] io::Error),
    /// The recording cannot be read any further.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What to export, and how.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct Options {
    /// The channel; without it the first one that runs or shows something. [`json()`] and [`text()`] give all channels
    /// when it is absent.
    pub channel: Option<u32>,
    /// Keep escape sequences that do more than paint. A terminal that plays such an export obeys them.
    pub verbatim: bool,
}

#[cfg(test)]
mod tests;
