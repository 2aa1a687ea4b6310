//! What an SFTP stream does to files: an observer of both directions, pure, that changes nothing.
//!
//! SFTP version 3 (draft-ietf-secsh-filexfer-02) with the extensions of OpenSSH (its `PROTOCOL` file, section 4) and a few
//! others that change nothing unseen. It is fed with what passes, in any pieces, and yields what has to be recorded before the
//! last piece may pass. A stream that it cannot read with certainty is [`Unreadable`]: no packet is whole at the
//! other side that was not read here.

mod packet;
mod request;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use mezite_record::{FileAction, FileOperation, FileProtocol, Outcome};
use thiserror::Error;

use super::content::Passage;
use super::files::{Seen, operation};
use packet::{Fields, Framing, Part, Side, kind};
use request::{Expected, Request};

/// Most requests in flight. OpenSSH's clients have 64.
pub const MAX_IN_FLIGHT: usize = 16 * 1024;
/// Most files and directories open at a time.
pub const MAX_OPEN: usize = 4 * 1024;
/// Most bytes of names that are held for requests in flight and open files together.
pub const MAX_NAMES: usize = 4 * 1024 * 1024;

/// The version that is understood.
const VERSION: u32 = 3;
/// `SSH_FX_EOF`.
const END_OF_FILE: u32 = 1;
/// `SSH_FXF_WRITE` and `SSH_FXF_TRUNC`: what is opened so is empty.
const EMPTIED: u32 = 0x02 | 0x10;

/// Why a stream cannot be read. Nothing more of it may pass.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// Packets are not that long.
    #[error("a packet of {0} bytes: expected 1 to {max}", max = packet::MAX_PACKET)]
    Length(u32),
    /// What stands in the packet is not what its type says.
    #[error("a packet of type {kind} does not hold what its type says")]
    Body {
        /// Its type.
        kind: u8,
    },
    /// A type that version 3 does not have, or not in this place.
    #[error("a packet of type {0} where none is expected")]
    Kind(u8),
    /// Another version of the protocol.
    #[error("version {0} of SFTP: only version 3 can be read")]
    Version(u32),
    /// An extension whose effects are not known.
    #[error("the extension `{0}` is not known")]
    Extension(String),
    /// Longer than a handle may be.
    #[error("a handle is longer than 256 bytes")]
    Handle,
    /// No file has so long a name, and no recording holds it.
    #[error("a name of {0} bytes: at most {max} can be recorded", max = mezite_record::frame::MAX_TEXT)]
    Name(usize),
    /// A handle that is not open, or that may be another file's by the time the request is read.
    #[error("a request for a handle that is not open")]
    NotOpen,
    /// The node gave a handle that is open.
    #[error("the node gave a handle twice")]
    HandleTwice,
    /// Two requests in flight have one number: the answer cannot be told apart.
    #[error("request {0} was asked again before its answer")]
    RequestTwice(u32),
    /// An answer that nobody waits for, or that does not fit the request.
    #[error("an answer of type {kind} that does not fit request {id}")]
    Answer {
        /// Its type.
        kind: u8,
        /// The request that it names.
        id: u32,
    },
    /// More at a time than is held.
    #[error("more than {0} requests, open files or bytes of names at a time")]
    TooMany(usize),
}

/// Follows one SFTP channel.
#[derive(Debug)]
pub struct Observer {
    client: Framing,
    node: Framing,
    /// The client has said its version, the node has.
    versions: (bool, bool),
    /// Whether content is yielded, too.
    content: bool,
    in_flight: BTreeMap<u32, InFlight>,
    opens_in_flight: usize,
    /// By their handles.
    handles: BTreeMap<Bytes, u64>,
    open: BTreeMap<u64, Open>,
    /// The number of the last file, of the last request.
    last_file: u64,
    last_request: u64,
    names: usize,
    /// Where content that is passing belongs: a file and the place in it.
    writing: Option<(u64, u64)>,
    reading: Option<(u64, u64)>,
}

#[derive(Debug)]
struct InFlight {
    /// In the order they were asked.
    order: u64,
    names: usize,
    request: Request,
}

#[derive(Debug)]
struct Open {
    handle: Bytes,
    path: Bytes,
    entries: u64,
    read: Passage,
    written: Passage,
    closing: bool,
}

impl Observer {
    /// At the start of a channel. With `content`, what files hold is yielded, too.
    #[must_use]
    pub fn new(content: bool) -> Self {
        Self {
            client: Framing::new(Side::Client),
            node: Framing::new(Side::Node),
            versions: (false, false),
            content,
            in_flight: BTreeMap::new(),
            opens_in_flight: 0,
            handles: BTreeMap::new(),
            open: BTreeMap::new(),
            last_file: 0,
            last_request: 0,
            names: 0,
            writing: None,
            reading: None,
        }
    }

    /// The client sent `data`. What it means is added to `seen`, up to an error.
    ///
    /// # Errors
    /// [`Unreadable`]: `data` must not pass, and nothing after it.
    pub fn from_client(&mut self, mut data: Bytes, seen: &mut Vec<Seen>) -> Result<(), Unreadable> {
        while let Some(part) = self.client.next(&mut data)? {
            match part {
                Part::Packet(packet) => self.request(Fields::of(packet))?,
                Part::Content(piece) => {
                    let content = self.content;
                    let place = self.writing.as_mut();
                    let (file, offset) = place.ok_or(Unreadable::NotOpen)?;
                    let open = self.open.get_mut(file).ok_or(Unreadable::NotOpen)?;
                    open.written.take(*offset, &piece);
                    advance(*file, true, offset, piece, content, seen);
                }
            }
        }
        Ok(())
    }

    /// The node sent `data`. What it means is added to `seen`, up to an error.
    ///
    /// # Errors
    /// [`Unreadable`]: `data` must not pass, and nothing after it.
    pub fn from_node(&mut self, mut data: Bytes, seen: &mut Vec<Seen>) -> Result<(), Unreadable> {
        while let Some(part) = self.node.next(&mut data)? {
            match part {
                Part::Packet(packet) => self.answer(Fields::of(packet), seen)?,
                Part::Content(piece) => {
                    let content = self.content;
                    let place = self.reading.as_mut();
                    let (file, offset) = place.ok_or(Unreadable::NotOpen)?;
                    let open = self.open.get_mut(file).ok_or(Unreadable::NotOpen)?;
                    open.read.take(*offset, &piece);
                    advance(*file, false, offset, piece, content, seen);
                }
            }
        }
        Ok(())
    }

    /// The channel is over: what was asked and not answered, and what was left open.
    #[must_use]
    pub fn finish(mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut asked: Vec<InFlight> = std::mem::take(&mut self.in_flight).into_values().collect();
        asked.sort_by_key(|it| it.order);
        for InFlight { request, .. } in asked {
            // Closing is told with the file.
            if request.expected != Expected::Close
                && let Some(operation) = request.operation
            {
                seen.push(Seen::Operation(operation));
            }
        }
        for (file, open) in &self.open {
            let closed = open.closed(*file, Outcome::Unanswered);
            seen.push(Seen::Operation(Box::new(closed)));
        }
        for (who, framing) in [("client", &self.client), ("node", &self.node)] {
            if !framing.is_between() {
                seen.push(Seen::Remark(format!(
                    "the SFTP stream of the {who} ended within a packet"
                )));
            }
        }
        seen
    }

    fn request(&mut self, mut fields: Fields) -> Result<(), Unreadable> {
        if !self.versions.0 {
            if fields.kind() != kind::INIT {
                return Err(Unreadable::Kind(fields.kind()));
            }
            let version = fields.u32()?;
            // Extensions of the client: version 3 defines none.
            fields.skip();
            if version < VERSION {
                return Err(Unreadable::Version(version));
            }
            self.versions.0 = true;
            return Ok(());
        }
        let id = fields.u32()?;
        if self.in_flight.contains_key(&id) {
            return Err(Unreadable::RequestTwice(id));
        }
        let request = Request::read(fields, |handle| self.find(handle))?;
        match request.expected {
            Expected::Handle => self.opens_in_flight += 1,
            Expected::Close => {
                if let Some(open) = self.open.get_mut(&request.file) {
                    open.closing = true;
                }
            }
            Expected::Written => self.writing = Some((request.file, request.offset)),
            Expected::Attributes
            | Expected::Data
            | Expected::Name
            | Expected::Names
            | Expected::Reply
            | Expected::Status => {}
        }
        let names = request
            .operation
            .as_ref()
            .map_or(0, |it| it.path.len() + it.target.len());
        self.hold(names)?;
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return Err(Unreadable::TooMany(MAX_IN_FLIGHT));
        }
        self.last_request += 1;
        let asked = InFlight {
            order: self.last_request,
            names,
            request,
        };
        self.in_flight.insert(id, asked);
        Ok(())
    }

    /// The file that a handle stands for when the node reads the request. After a close was asked for, the handle may be
    /// given to the next file that is opened.
    fn find(&self, handle: &Bytes) -> Result<(u64, Bytes), Unreadable> {
        let file = self.handles.get(handle).ok_or(Unreadable::NotOpen)?;
        let open = self.open.get(file).ok_or(Unreadable::NotOpen)?;
        if open.closing && self.opens_in_flight > 0 {
            return Err(Unreadable::NotOpen);
        }
        Ok((*file, open.path.clone()))
    }

    fn hold(&mut self, names: usize) -> Result<(), Unreadable> {
        self.names = self.names.saturating_add(names);
        if self.names > MAX_NAMES {
            return Err(Unreadable::TooMany(MAX_NAMES));
        }
        Ok(())
    }

    fn answer(&mut self, mut fields: Fields, seen: &mut Vec<Seen>) -> Result<(), Unreadable> {
        if !self.versions.1 {
            if fields.kind() != kind::VERSION || !self.versions.0 {
                return Err(Unreadable::Kind(fields.kind()));
            }
            let version = fields.u32()?;
            while !fields.is_empty() {
                fields.string()?;
                fields.string()?;
            }
            if version != VERSION {
                return Err(Unreadable::Version(version));
            }
            self.versions.1 = true;
            return Ok(());
        }
        let id = fields.u32()?;
        let misfit = Unreadable::Answer {
            kind: fields.kind(),
            id,
        };
        let asked = self.in_flight.remove(&id).ok_or_else(|| misfit.clone())?;
        self.names = self.names.saturating_sub(asked.names);
        let request = asked.request;
        if request.expected == Expected::Handle {
            self.opens_in_flight = self.opens_in_flight.saturating_sub(1);
        }
        match (fields.kind(), request.expected) {
            (kind::STATUS, _) => {
                let outcome = status(&mut fields)?;
                fields.end()?;
                return self.ended(request, outcome, misfit, seen);
            }
            (kind::HANDLE, Expected::Handle) => {
                let handle = Bytes::copy_from_slice(&fields.handle()?);
                fields.end()?;
                self.opened(request, handle, seen)?;
            }
            (kind::DATA, Expected::Data) => {
                // Its content passes behind it, without an end to look for.
                if !self.open.contains_key(&request.file) {
                    return Err(misfit);
                }
                self.reading = Some((request.file, request.offset));
            }
            (kind::NAME, Expected::Names) => {
                let (count, _) = names(&mut fields)?;
                if let Some(open) = self.open.get_mut(&request.file) {
                    open.entries = open.entries.saturating_add(count);
                }
            }
            (kind::NAME, Expected::Name) => {
                let (_, first) = names(&mut fields)?;
                answered(request, seen, |operation| {
                    operation.target = Bytes::copy_from_slice(&first)
                });
            }
            (kind::ATTRS, Expected::Attributes) => {
                let attributes = request::attributes(&mut fields)?;
                fields.end()?;
                if let (Some(size), Some(open)) =
                    (attributes.size, self.open.get_mut(&request.file))
                {
                    open.read.sized(size);
                }
                answered(request, seen, |_| {});
            }
            (kind::EXTENDED_REPLY, Expected::Reply) => answered(request, seen, |_| {}),
            _ => return Err(misfit),
        }
        Ok(())
    }

    /// A request was answered with a status.
    fn ended(
        &mut self,
        request: Request,
        outcome: Outcome,
        misfit: Unreadable,
        seen: &mut Vec<Seen>,
    ) -> Result<(), Unreadable> {
        let (file, offset) = (request.file, request.offset);
        let is_end = matches!(
            outcome,
            Outcome::Status {
                code: END_OF_FILE,
                ..
            }
        );
        match request.expected {
            Expected::Close => {
                if let Some(open) = self.open.remove(&file) {
                    self.handles.remove(&open.handle);
                    self.names = self.names.saturating_sub(open.path.len());
                    seen.push(Seen::Operation(Box::new(open.closed(file, outcome))));
                }
                return Ok(());
            }
            Expected::Data if is_end => {
                if let Some(open) = self.open.get_mut(&file) {
                    open.read.ended(offset);
                }
                return Ok(());
            }
            Expected::Names if is_end => return Ok(()),
            Expected::Written if outcome.is_ok() => return Ok(()),
            Expected::Written => {
                if let Some(open) = self.open.get_mut(&file) {
                    open.written.spoil();
                }
                self.complain(file, outcome, seen);
                return Ok(());
            }
            Expected::Data | Expected::Names if !outcome.is_ok() => {
                self.complain(file, outcome, seen);
                return Ok(());
            }
            // A yes without what was asked for.
            Expected::Attributes
            | Expected::Data
            | Expected::Handle
            | Expected::Name
            | Expected::Names
                if outcome.is_ok() =>
            {
                return Err(misfit);
            }
            Expected::Status if outcome.is_ok() => self.took_effect(&request),
            Expected::Attributes
            | Expected::Data
            | Expected::Handle
            | Expected::Name
            | Expected::Names
            | Expected::Reply
            | Expected::Status => {}
        }
        answered(request, seen, |operation| operation.outcome = outcome);
        Ok(())
    }

    /// Content that could not be read or written, or a directory.
    fn complain(&self, file: u64, outcome: Outcome, seen: &mut Vec<Seen>) {
        let path = self.open.get(&file).map(|open| open.path.clone());
        let complaint = operation(
            FileProtocol::Sftp,
            FileAction::Complain,
            path.unwrap_or_default(),
        );
        seen.push(Seen::Operation(Box::new(FileOperation {
            file,
            outcome,
            ..complaint
        })));
    }

    /// What the success of `request` means for the content of open files.
    fn took_effect(&mut self, request: &Request) {
        let Some(operation) = &request.operation else {
            return;
        };
        let Some(open) = self.open.get_mut(&request.file) else {
            return;
        };
        match (operation.action, operation.attributes.size) {
            (FileAction::SetAttributes, Some(size)) => open.written.truncated(size),
            (FileAction::CopyData, _) => open.written.spoil(),
            _ => {}
        }
    }

    fn opened(
        &mut self,
        request: Request,
        handle: Bytes,
        seen: &mut Vec<Seen>,
    ) -> Result<(), Unreadable> {
        if self.open.len() >= MAX_OPEN {
            return Err(Unreadable::TooMany(MAX_OPEN));
        }
        if self.handles.contains_key(&handle) {
            return Err(Unreadable::HandleTwice);
        }
        let Some(mut operation) = request.operation else {
            return Ok(());
        };
        self.hold(operation.path.len())?;
        self.last_file += 1;
        let file = self.last_file;
        let flags = operation.flags;
        self.handles.insert(handle.clone(), file);
        let open = Open {
            handle,
            path: operation.path.clone(),
            entries: 0,
            read: Passage::new(None),
            written: Passage::new((flags & EMPTIED == EMPTIED).then_some(0)),
            closing: false,
        };
        self.open.insert(file, open);
        operation.file = file;
        operation.outcome = Outcome::OK;
        seen.push(Seen::Operation(operation));
        Ok(())
    }
}

impl Open {
    fn closed(&self, file: u64, outcome: Outcome) -> FileOperation {
        let mut closed = operation(FileProtocol::Sftp, FileAction::Close, self.path.clone());
        closed.file = file;
        closed.entries = self.entries;
        closed.read = self.read.summary();
        closed.written = self.written.summary();
        closed.outcome = outcome;
        closed
    }
}

/// Yields a piece of content and moves on behind it.
fn advance(
    file: u64,
    to_node: bool,
    offset: &mut u64,
    data: Bytes,
    content: bool,
    seen: &mut Vec<Seen>,
) {
    let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
    if content {
        let offset = *offset;
        seen.push(Seen::Content {
            file,
            to_node,
            offset,
            data,
        });
    }
    *offset = offset.saturating_add(length);
}

/// Yields the operation of a request, if it has one, changed by what was answered.
fn answered(request: Request, seen: &mut Vec<Seen>, change: impl FnOnce(&mut FileOperation)) {
    if let Some(mut operation) = request.operation {
        operation.outcome = Outcome::OK;
        change(&mut operation);
        seen.push(Seen::Operation(operation));
    }
}

fn status(fields: &mut Fields) -> Result<Outcome, Unreadable> {
    let code = fields.u32()?;
    // Servers of before version 3 leave the words out.
    let message = if fields.is_empty() {
        Bytes::new()
    } else {
        let message = fields.string()?;
        fields.string()?;
        message
    };
    let message = String::from_utf8_lossy(&message).into_owned();
    Ok(Outcome::Status { code, message })
}

/// How many names there are, and the first.
fn names(fields: &mut Fields) -> Result<(u64, Bytes), Unreadable> {
    let count = fields.u32()?;
    let mut first = None;
    for _ in 0..count {
        let name = fields.string()?;
        fields.string()?;
        request::attributes(fields)?;
        first.get_or_insert(name);
    }
    fields.end()?;
    Ok((count.into(), first.unwrap_or_default()))
}
