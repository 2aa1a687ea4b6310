#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod decode;
pub mod encode;
pub mod export;
pub mod file;
mod format;
pub mod frame;
pub mod key;
mod pack;
pub mod play;
mod prompt;
pub mod read;
mod reading;
pub mod recorder;
mod screen;
pub mod search;
mod seek;
pub mod sink;
mod terminal;
mod utf8;
pub mod verify;
mod wire;

pub use decode::{DecodeError, Decoded, Decoder, Ending};
pub use encode::{EncodeError, Journal, Summary};
pub use file::{FileAction, FileAttributes, FileOperation, FileProtocol, Outcome, Transfer};
pub use format::{Header, IndexEntry};
pub use frame::{ChannelEvent, Frame, Stream, Timed};
pub use key::{DataKey, Identity, KeyError, Recipient};
pub use read::{ReadError, Recording};
pub use recorder::{RecordError, Recorder, SignError, Signer, recover};
pub use sink::{MemorySink, Part, Sink, SinkError, Stored};
pub use verify::{Verified, VerifyError, verify};
