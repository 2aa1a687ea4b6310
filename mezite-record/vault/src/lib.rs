#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod directory;
mod layout;

pub use directory::DirectorySink;
