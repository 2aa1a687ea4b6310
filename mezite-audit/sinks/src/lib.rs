#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod file;
mod syslog;
mod webhook;

pub use file::{JsonLines, checkpoint_path};
pub use syslog::Syslog;
pub use webhook::{Url, UrlError, Webhook};

use mezite_audit::SinkError;

fn failed(what: impl std::fmt::Display) -> SinkError {
    SinkError(what.to_string())
}
