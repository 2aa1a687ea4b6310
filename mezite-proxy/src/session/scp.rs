//! What an scp stream (`scp -O`, the protocol of rcp) does to files: an observer of both directions, pure, that changes
//! nothing. The sender says a line, waits for the receiver's answer, and sends content only after a yes: a stream that
//! does not keep to that is [`Unreadable`].

mod command;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use mezite_record::{FileAction, FileAttributes, FileOperation, FileProtocol, Outcome};
use thiserror::Error;

pub use command::Command;

use super::content::Passage;
use super::files::{Seen, operation};

/// Longest line. OpenSSH takes 2,048 bytes.
const MAX_LINE: usize = 16 * 1024;
/// Directories inside of each other.
const MAX_DEPTH: usize = 1024;
/// Bytes of their names together.
const MAX_PATH: usize = 32 * 1024;
/// Answers that came before their question.
const MAX_EARLY: usize = 64;

/// Why a stream cannot be read. Nothing more of it may pass.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// A line does not end.
    #[error("a line of more than {MAX_LINE} bytes")]
    Line,
    /// A line that the protocol does not have.
    #[error("a line that scp does not have: `{0}`")]
    Message(String),
    /// The sender did not wait.
    #[error("the sender went on before the receiver had answered")]
    Early,
    /// The receiver answered what was not asked.
    #[error("the receiver said something that is no answer")]
    Answer,
    /// More directories than are held, or one too many was left.
    #[error("directories that do not match, or more than {MAX_DEPTH} of them")]
    Depth,
}

/// Follows one scp channel.
#[derive(Debug)]
pub struct Observer {
    command: Command,
    content: bool,
    /// What the sender has begun to say.
    line: Vec<u8>,
    /// What the receiver has begun to say.
    reply: Vec<u8>,
    waiting: Waiting,
    /// What the receiver said in the sender's turn: the sender takes it for the answer to what it says next.
    early: VecDeque<Outcome>,
    sending: Option<Sending>,
    /// Where in the tree that is copied.
    directories: Vec<Bytes>,
    times: Option<(u32, u32)>,
    /// The number of the last file.
    files: u64,
}

/// What the receiver's next answer is to. The sender may say nothing before it.
#[derive(Debug)]
enum Waiting {
    /// It is the sender's turn.
    Sender,
    /// The receiver says when it is ready.
    Ready,
    /// To a line of times or the end of a directory.
    Line,
    /// To a directory of this name.
    Directory(Box<FileOperation>, Bytes),
    /// To the line before the content of a file.
    File(Sending),
    /// To a whole file.
    Received(Sending),
}

/// A file whose content passes.
#[derive(Debug)]
struct Sending {
    operation: Box<FileOperation>,
    passage: Passage,
    left: u64,
    at: u64,
}

impl Observer {
    /// At the start of `command`. With `content`, what files hold is yielded, too.
    #[must_use]
    pub fn new(command: Command, content: bool) -> Self {
        Self {
            command,
            content,
            line: Vec::new(),
            reply: Vec::new(),
            waiting: Waiting::Ready,
            early: VecDeque::new(),
            sending: None,
            directories: Vec::new(),
            times: None,
            files: 0,
        }
    }

    /// The client sent `data`. What it means is added to `seen`, up to an error.
    ///
    /// # Errors
    /// [`Unreadable`]: `data` must not pass, and nothing after it.
    pub fn from_client(&mut self, data: Bytes, seen: &mut Vec<Seen>) -> Result<(), Unreadable> {
        if self.command.from_node {
            self.received(&data, seen)
        } else {
            self.sent(data, seen)
        }
    }

    /// The node sent `data`. What it means is added to `seen`, up to an error.
    ///
    /// # Errors
    /// [`Unreadable`]: `data` must not pass, and nothing after it.
    pub fn from_node(&mut self, data: Bytes, seen: &mut Vec<Seen>) -> Result<(), Unreadable> {
        if self.command.from_node {
            self.sent(data, seen)
        } else {
            self.received(&data, seen)
        }
    }

    /// The channel is over: what was begun and not ended.
    #[must_use]
    pub fn finish(self) -> Vec<Seen> {
        let begun = match self.waiting {
            Waiting::Directory(operation, _) => Some(operation),
            Waiting::File(sending) | Waiting::Received(sending) => {
                Some(sending.told(self.command.from_node, Outcome::Unanswered))
            }
            Waiting::Sender | Waiting::Ready | Waiting::Line => self
                .sending
                .map(|sending| sending.told(self.command.from_node, Outcome::Unanswered)),
        };
        begun.into_iter().map(Seen::Operation).collect()
    }

    /// The sender's direction: lines, and content where a yes was said to it.
    fn sent(&mut self, mut data: Bytes, seen: &mut Vec<Seen>) -> Result<(), Unreadable> {
        while !data.is_empty() {
            if !matches!(self.waiting, Waiting::Sender) {
                return Err(Unreadable::Early);
            }
            if let Some(mut sending) = self.sending.take_if(|sending| sending.left > 0) {
                let left = usize::try_from(sending.left).unwrap_or(usize::MAX);
                let piece = data.split_to(left.min(data.len()));
                sending.take(piece, !self.command.from_node, self.content, seen);
                self.sending = Some(sending);
                continue;
            }
            if self.sending.is_some() && self.line.is_empty() && data.first() == Some(&0) {
                data.advance(1);
                self.ended(None);
                self.settle(seen)?;
                continue;
            }
            if let Some(line) = take_line(&mut self.line, &mut data)? {
                self.said(&line, seen)?;
            }
        }
        Ok(())
    }

    /// The sender is done with the content of a file; `error` is what it said of it.
    fn ended(&mut self, error: Option<(u8, String)>) {
        if let Some(mut sending) = self.sending.take() {
            if let Some((code, message)) = error {
                sending.passage.spoil();
                let code = code.into();
                sending.operation.outcome = Outcome::Status { code, message };
            }
            self.waiting = Waiting::Received(sending);
        }
    }

    fn said(&mut self, line: &[u8], seen: &mut Vec<Seen>) -> Result<(), Unreadable> {
        let odd = || Unreadable::Message(shown(line));
        let (kind, rest) = line.split_first().ok_or_else(odd)?;
        match kind {
            1 | 2 => {
                let message = String::from_utf8_lossy(rest).into_owned();
                if self.sending.is_some() {
                    self.ended(Some((*kind, message)));
                } else {
                    let path = self.command.path.clone().into();
                    let mut complaint = operation(FileProtocol::Scp, FileAction::Complain, path);
                    let code = (*kind).into();
                    complaint.outcome = Outcome::Status { code, message };
                    seen.push(Seen::Operation(Box::new(complaint)));
                }
            }
            // The content is over: only the end of it may be said.
            _ if self.sending.is_some() => return Err(odd()),
            b'T' => {
                self.times = Some(times(rest).ok_or_else(odd)?);
                self.waiting = Waiting::Line;
            }
            b'E' if rest.is_empty() => {
                self.directories.pop().ok_or(Unreadable::Depth)?;
                self.waiting = Waiting::Line;
            }
            b'C' => {
                let (permissions, size, name) = entry(rest).ok_or_else(odd)?;
                self.files += 1;
                let mut operation = self.begun(FileAction::Copy, name);
                operation.file = self.files;
                operation.attributes.permissions = Some(permissions);
                operation.attributes.size = Some(size);
                self.waiting = Waiting::File(Sending {
                    operation,
                    passage: Passage::new(Some(size)),
                    left: size,
                    at: 0,
                });
            }
            b'D' => {
                let (permissions, _, name) = entry(rest).ok_or_else(odd)?;
                let mut operation = self.begun(FileAction::MakeDirectory, name);
                operation.attributes.permissions = Some(permissions);
                self.waiting = Waiting::Directory(operation, Bytes::copy_from_slice(name));
            }
            _ => return Err(odd()),
        }
        self.settle(seen)
    }

    /// What was just said may have its answer already.
    fn settle(&mut self, seen: &mut Vec<Seen>) -> Result<(), Unreadable> {
        if matches!(self.waiting, Waiting::Sender) {
            return Ok(());
        }
        match self.early.pop_front() {
            Some(outcome) => self.answered(outcome, seen),
            None => Ok(()),
        }
    }

    /// An operation on `name` in the directory that is being copied.
    fn begun(&mut self, action: FileAction, name: &[u8]) -> Box<FileOperation> {
        let mut path = Vec::new();
        for part in self.directories.iter().map(AsRef::as_ref) {
            path.extend_from_slice(part);
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let mut operation = operation(FileProtocol::Scp, action, path.into());
        operation.target = Bytes::copy_from_slice(&self.command.path);
        operation.attributes = FileAttributes {
            times: self.times.take(),
            ..FileAttributes::default()
        };
        Box::new(operation)
    }

    /// The receiver's direction: a zero for yes, or a line that says what is wrong.
    fn received(&mut self, data: &Bytes, seen: &mut Vec<Seen>) -> Result<(), Unreadable> {
        let mut data = data.clone();
        while let Some(first) = data.first() {
            if self.reply.is_empty() {
                match first {
                    0 => {
                        data.advance(1);
                        self.answered(Outcome::OK, seen)?;
                        continue;
                    }
                    1 | 2 => {}
                    _ => return Err(Unreadable::Answer),
                }
            }
            if let Some(line) = take_line(&mut self.reply, &mut data)? {
                let (kind, message) = line.split_first().ok_or(Unreadable::Answer)?;
                let outcome = Outcome::Status {
                    code: (*kind).into(),
                    message: String::from_utf8_lossy(message).into_owned(),
                };
                self.answered(outcome, seen)?;
            }
        }
        Ok(())
    }

    fn answered(&mut self, outcome: Outcome, seen: &mut Vec<Seen>) -> Result<(), Unreadable> {
        let is_ok = outcome.is_ok();
        match std::mem::replace(&mut self.waiting, Waiting::Sender) {
            Waiting::Ready if !is_ok => {
                let path = self.command.path.clone().into();
                let mut complaint = operation(FileProtocol::Scp, FileAction::Complain, path);
                complaint.outcome = outcome;
                seen.push(Seen::Operation(Box::new(complaint)));
            }
            Waiting::Ready | Waiting::Line => {}
            Waiting::Directory(mut operation, name) => {
                if is_ok {
                    self.entered(name)?;
                }
                operation.outcome = outcome;
                seen.push(Seen::Operation(operation));
            }
            Waiting::File(sending) if is_ok => self.sending = Some(sending),
            Waiting::File(sending) | Waiting::Received(sending) => {
                seen.push(Seen::Operation(
                    sending.told(self.command.from_node, outcome),
                ));
            }
            Waiting::Sender if self.early.len() >= MAX_EARLY => return Err(Unreadable::Answer),
            Waiting::Sender => self.early.push_back(outcome),
        }
        Ok(())
    }

    fn entered(&mut self, name: Bytes) -> Result<(), Unreadable> {
        self.directories.push(name);
        let bytes: usize = self.directories.iter().map(Bytes::len).sum();
        if self.directories.len() > MAX_DEPTH || bytes > MAX_PATH {
            return Err(Unreadable::Depth);
        }
        Ok(())
    }
}

impl Sending {
    fn take(&mut self, piece: Bytes, to_node: bool, content: bool, seen: &mut Vec<Seen>) {
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        self.passage.take(self.at, &piece);
        self.left = self.left.saturating_sub(length);
        if content {
            seen.push(Seen::Content {
                file: self.operation.file,
                to_node,
                offset: self.at,
                data: piece,
            });
        }
        self.at = self.at.saturating_add(length);
    }

    /// What became of it. That the sender could not read it stays, whatever the receiver says to it.
    fn told(mut self, from_node: bool, outcome: Outcome) -> Box<FileOperation> {
        let passed = self.passage.summary();
        if from_node {
            self.operation.read = passed;
        } else {
            self.operation.written = passed;
        }
        if matches!(self.operation.outcome, Outcome::Unanswered) {
            self.operation.outcome = outcome;
        }
        self.operation
    }
}

/// Takes a line off `data`, without its line feed, together with what came before.
fn take_line(begun: &mut Vec<u8>, data: &mut Bytes) -> Result<Option<Vec<u8>>, Unreadable> {
    let end = data.iter().position(|byte| *byte == b'\n');
    let piece = data.split_to(end.unwrap_or(data.len()));
    if begun.len().saturating_add(piece.len()) > MAX_LINE {
        return Err(Unreadable::Line);
    }
    begun.extend_from_slice(&piece);
    if end.is_none() {
        return Ok(None);
    }
    data.advance(1);
    Ok(Some(std::mem::take(begun)))
}

/// `MODE SIZE NAME`.
fn entry(rest: &[u8]) -> Option<(u32, u64, &[u8])> {
    let mut parts = rest.splitn(3, |byte| *byte == b' ');
    let (mode, size, name) = (parts.next()?, parts.next()?, parts.next()?);
    let mode = std::str::from_utf8(mode)
        .ok()
        .filter(|it| digits(it) && it.len() <= 6)?;
    let size = std::str::from_utf8(size).ok().filter(|it| digits(it))?;
    let permissions = u32::from_str_radix(mode, 8).ok()?;
    Some((permissions, size.parse().ok()?, name))
}

/// `MODIFIED MICROSECONDS ACCESSED MICROSECONDS`, as access and change.
fn times(rest: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(rest).ok()?;
    let numbers: Option<Vec<u64>> = text
        .split(' ')
        .map(|it| it.parse().ok().filter(|_| digits(it)))
        .collect();
    let [modified, _, accessed, _] = *numbers?.first_chunk::<4>()?;
    let short = |time| u32::try_from(time).unwrap_or(u32::MAX);
    (text.split(' ').count() == 4).then(|| (short(accessed), short(modified)))
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn shown(line: &[u8]) -> String {
    line.get(..64).unwrap_or(line).escape_ascii().to_string()
}
