#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod directory;
mod layout;
mod s3;

#[cfg(feature = "testing")]
pub mod testing;

pub use directory::DirectorySink;
pub use s3::{AccessKey, S3Error, S3Settings, S3Sink};
