//! File transfers of one channel: what observers yield becomes frames for the recording and facts for the log. A stream
//! that cannot be read ends its channel.

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use mezite_net::ssh::Message;
use mezite_record::{FileAction, FileAttributes, FileOperation, FileProtocol, Frame, Outcome};

use super::channel::cut_off;
use super::{Effect, Fact, scp, sftp};

/// Operations of a channel that are an event each.
const EACH: u64 = 100;
/// Of those behind them, how many of a kind make one event.
const BURST: u64 = 1000;

/// Something that has to be recorded before what told it may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each has to be recorded")]
pub enum Seen {
    /// Something was done with a file, or tried.
    Operation(Box<FileOperation>),
    /// Content of a file.
    Content {
        /// The file, as operations number it.
        file: u64,
        /// Whether it goes to the node.
        to_node: bool,
        /// Place of its first byte in the file.
        offset: u64,
        /// The exact bytes.
        data: Bytes,
    },
    /// Something odd that stops nothing.
    Remark(String),
}

/// An operation on `path` that has not been answered yet.
pub(super) fn operation(protocol: FileProtocol, action: FileAction, path: Bytes) -> FileOperation {
    FileOperation {
        protocol,
        action,
        file: 0,
        path,
        target: Bytes::new(),
        flags: 0,
        attributes: FileAttributes::default(),
        entries: 0,
        read: None,
        written: None,
        outcome: Outcome::Unanswered,
    }
}

/// File operations, for the log. Each stands in the recording by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the relay reports every field")]
pub struct FileFact {
    /// The operation, the last of several.
    pub operation: Box<FileOperation>,
    /// How many of its kind it stands for.
    pub attempts: u64,
    /// Whether all of them worked.
    pub success: bool,
    /// What they brought from the node.
    pub read: u64,
    /// What they brought to the node.
    pub written: u64,
}

impl FileFact {
    fn of(operation: Box<FileOperation>) -> Self {
        let bytes = |transfer: &Option<_>| {
            transfer
                .as_ref()
                .map_or(0, |it: &mezite_record::Transfer| it.bytes)
        };
        Self {
            attempts: 1,
            success: operation.outcome.is_ok(),
            read: bytes(&operation.read),
            written: bytes(&operation.written),
            operation,
        }
    }

    fn join(self, other: Option<Self>) -> Self {
        let Some(other) = other else {
            return self;
        };
        Self {
            attempts: self.attempts.saturating_add(other.attempts),
            success: self.success && other.success,
            read: self.read.saturating_add(other.read),
            written: self.written.saturating_add(other.written),
            operation: self.operation,
        }
    }
}

/// The file transfers of one channel.
#[derive(Debug)]
pub(super) struct Files {
    observer: Observer,
    told: u64,
    /// Operations that are not an event yet, by their kind.
    rest: BTreeMap<FileAction, FileFact>,
    /// The stream could not be read: nothing passes any more.
    over: bool,
}

#[derive(Debug)]
enum Observer {
    Scp(Box<scp::Observer>),
    Sftp(Box<sftp::Observer>),
}

impl Files {
    /// Observes the subsystem `sftp`. With `content`, what files hold is recorded.
    pub(super) fn sftp(content: bool) -> Self {
        Self::new(Observer::Sftp(Box::new(sftp::Observer::new(content))))
    }

    /// Observes an scp server.
    pub(super) fn scp(command: scp::Command, content: bool) -> Self {
        Self::new(Observer::Scp(Box::new(scp::Observer::new(
            command, content,
        ))))
    }

    fn new(observer: Observer) -> Self {
        Self {
            observer,
            told: 0,
            rest: BTreeMap::new(),
            over: false,
        }
    }

    /// Whether it is SFTP.
    pub(super) fn is_sftp(&self) -> bool {
        matches!(self.observer, Observer::Sftp(_))
    }

    /// Whether the channel was cut off.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// The client sent `data`.
    pub(super) fn client_said(&mut self, channel: u32, data: Bytes) -> Vec<Effect> {
        let mut seen = Vec::new();
        let read = match &mut self.observer {
            Observer::Scp(it) => text(it.from_client(data.clone(), &mut seen)),
            Observer::Sftp(it) => text(it.from_client(data.clone(), &mut seen)),
        };
        self.passed(channel, seen, read, Effect::ToNode(Message::Data(data)))
    }

    /// The node sent `data`.
    pub(super) fn node_said(&mut self, channel: u32, data: Bytes) -> Vec<Effect> {
        let mut seen = Vec::new();
        let read = match &mut self.observer {
            Observer::Scp(it) => text(it.from_node(data.clone(), &mut seen)),
            Observer::Sftp(it) => text(it.from_node(data.clone(), &mut seen)),
        };
        self.passed(channel, seen, read, Effect::ToClient(Message::Data(data)))
    }

    /// Closes the books of the channel.
    pub(super) fn finish(mut self, channel: u32) -> Vec<Effect> {
        let observer = std::mem::replace(
            &mut self.observer,
            Observer::Sftp(Box::new(sftp::Observer::new(false))),
        );
        let seen = match observer {
            Observer::Scp(it) => it.finish(),
            Observer::Sftp(it) => it.finish(),
        };
        let mut effects = self.recorded(channel, seen);
        let rest = std::mem::take(&mut self.rest).into_values();
        effects.extend(rest.map(|fact| Effect::Report(Fact::Files(fact))));
        effects
    }

    fn passed(
        &mut self,
        channel: u32,
        seen: Vec<Seen>,
        read: Result<(), String>,
        on: Effect,
    ) -> Vec<Effect> {
        let mut effects = self.recorded(channel, seen);
        match read {
            Ok(()) => effects.push(on),
            Err(why) => effects.extend(self.cut_off(channel, &why)),
        }
        effects
    }

    /// Ends the channel: what cannot be read does not pass.
    fn cut_off(&mut self, channel: u32, why: &str) -> Vec<Effect> {
        self.over = true;
        let protocol = if self.is_sftp() { "SFTP" } else { "scp" };
        let why = format!("the {protocol} stream cannot be recorded and was ended: {why}");
        let words = why.clone();
        cut_off(channel, Fact::FilesUnreadable(why), &words)
    }

    fn recorded(&mut self, channel: u32, seen: Vec<Seen>) -> Vec<Effect> {
        let mut effects = Vec::with_capacity(seen.len() + 1);
        for one in seen {
            match one {
                Seen::Operation(operation) => {
                    let fact = is_told(&operation).then(|| FileFact::of(operation.clone()));
                    effects.push(Effect::Record(Frame::File { channel, operation }));
                    let fact = fact.and_then(|fact| self.tell(fact));
                    effects.extend(fact.map(|fact| Effect::Report(Fact::Files(fact))));
                }
                Seen::Content {
                    file,
                    to_node,
                    offset,
                    data,
                } => effects.push(Effect::Record(Frame::Content {
                    channel,
                    file,
                    to_node,
                    offset,
                    data,
                })),
                Seen::Remark(text) => {
                    let text = format!("channel {channel}: {text}");
                    effects.push(Effect::Record(Frame::Note { text }));
                }
            }
        }
        effects
    }

    /// The event to make now, if any: a client cannot fill the log with operations.
    fn tell(&mut self, fact: FileFact) -> Option<FileFact> {
        if self.told < EACH {
            self.told += 1;
            return Some(fact);
        }
        let action = fact.operation.action;
        let fact = fact.join(self.rest.remove(&action));
        if fact.attempts >= BURST {
            return Some(fact);
        }
        self.rest.insert(action, fact);
        None
    }
}

/// Whether the log tells of it: what changes or copies something, and what could not be opened.
fn is_told(operation: &FileOperation) -> bool {
    let copied = operation.read.is_some() || operation.written.is_some();
    let refused = !operation.outcome.is_ok()
        && matches!(
            operation.action,
            FileAction::Open | FileAction::Copy | FileAction::Complain
        );
    operation.action.changes() || copied || refused
}

fn text<E: std::fmt::Display>(read: Result<(), E>) -> Result<(), String> {
    read.map_err(|error| error.to_string())
}
