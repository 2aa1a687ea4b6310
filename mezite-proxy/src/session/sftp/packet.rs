//! SFTP packets out of a stream in any pieces. All packets are taken whole, but for the two that carry content: their
//! head is, and the content passes in the pieces it comes in.

use bytes::{Buf, Bytes};
use mezite_record::frame::MAX_TEXT;

use super::Unreadable;

/// Longest packet, as OpenSSH has it.
pub(super) const MAX_PACKET: u32 = 256 * 1024;
/// Longest handle (section 3 of the draft).
const MAX_HANDLE: usize = 256;
/// A buffer that grew beyond this is given back.
const KEPT_BUFFER: usize = 8 * 1024;

/// Who sends: each has one type of packet that carries content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Node,
}

/// The types of packets (section 3).
pub(super) mod kind {
    pub(crate) const INIT: u8 = 1;
    pub(crate) const VERSION: u8 = 2;
    pub(crate) const OPEN: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const READ: u8 = 5;
    pub(crate) const WRITE: u8 = 6;
    pub(crate) const LSTAT: u8 = 7;
    pub(crate) const FSTAT: u8 = 8;
    pub(crate) const SETSTAT: u8 = 9;
    pub(crate) const FSETSTAT: u8 = 10;
    pub(crate) const OPENDIR: u8 = 11;
    pub(crate) const READDIR: u8 = 12;
    pub(crate) const REMOVE: u8 = 13;
    pub(crate) const MKDIR: u8 = 14;
    pub(crate) const RMDIR: u8 = 15;
    pub(crate) const REALPATH: u8 = 16;
    pub(crate) const STAT: u8 = 17;
    pub(crate) const RENAME: u8 = 18;
    pub(crate) const READLINK: u8 = 19;
    pub(crate) const SYMLINK: u8 = 20;
    pub(crate) const STATUS: u8 = 101;
    pub(crate) const HANDLE: u8 = 102;
    pub(crate) const DATA: u8 = 103;
    pub(crate) const NAME: u8 = 104;
    pub(crate) const ATTRS: u8 = 105;
    pub(crate) const EXTENDED: u8 = 200;
    pub(crate) const EXTENDED_REPLY: u8 = 201;
}

/// What a stream gives.
#[derive(Debug)]
pub(super) enum Part {
    /// A whole packet without its length, or the head of one with content, without the content.
    Packet(Bytes),
    /// The next piece of the content whose head came before.
    Content(Bytes),
}

/// One direction of a stream.
#[derive(Debug)]
pub(super) struct Framing {
    side: Side,
    buffer: Vec<u8>,
    /// Content of the packet that is still to come.
    left: usize,
}

enum Stage {
    /// Not known before there are so many bytes.
    Need(usize),
    /// A packet of so many bytes is there, and so much content follows.
    Whole { content: usize },
}

impl Framing {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            buffer: Vec::new(),
            left: 0,
        }
    }

    /// Takes the next part off `input`; `None` once that is used up.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Option<Part>, Unreadable> {
        if self.left > 0 {
            let piece = input.split_to(self.left.min(input.len()));
            self.left -= piece.len();
            return Ok((!piece.is_empty()).then_some(Part::Content(piece)));
        }
        loop {
            match self.stage()? {
                Stage::Need(bytes) => {
                    let missing = bytes.saturating_sub(self.buffer.len());
                    let piece = input.split_to(missing.min(input.len()));
                    self.buffer.extend_from_slice(&piece);
                    if piece.len() < missing {
                        return Ok(None);
                    }
                }
                Stage::Whole { content } => {
                    self.left = content;
                    let mut packet = Bytes::copy_from_slice(&self.buffer);
                    packet.advance(4);
                    self.buffer.clear();
                    self.buffer.shrink_to(KEPT_BUFFER);
                    return Ok(Some(Part::Packet(packet)));
                }
            }
        }
    }

    /// Whether it stands between two packets.
    pub(super) fn is_between(&self) -> bool {
        self.buffer.is_empty() && self.left == 0
    }

    fn stage(&self) -> Result<Stage, Unreadable> {
        let Some(length) = self.u32_at(0) else {
            return Ok(Stage::Need(4));
        };
        if length == 0 || length > MAX_PACKET {
            return Err(Unreadable::Length(length));
        }
        let Some(kind) = self.buffer.get(4) else {
            return Ok(Stage::Need(5));
        };
        let whole = to_usize(length).saturating_add(4);
        let head = match (self.side, *kind) {
            (Side::Client, kind::WRITE) => match self.u32_at(9) {
                None => return Ok(Stage::Need(13)),
                // The handle, the offset, the length of the content.
                Some(handle) if to_usize(handle) <= MAX_HANDLE => 13 + to_usize(handle) + 12,
                Some(_) => return Err(Unreadable::Handle),
            },
            (Side::Node, kind::DATA) => 13,
            (Side::Client | Side::Node, _) => {
                return Ok(if self.buffer.len() < whole {
                    Stage::Need(whole)
                } else {
                    Stage::Whole { content: 0 }
                });
            }
        };
        if head > whole {
            return Err(Unreadable::Body { kind: *kind });
        }
        let content = match self.u32_at(head - 4) {
            Some(content) if self.buffer.len() >= head => to_usize(content),
            Some(_) | None => return Ok(Stage::Need(head)),
        };
        if head.saturating_add(content) != whole {
            return Err(Unreadable::Body { kind: *kind });
        }
        Ok(Stage::Whole { content })
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        let bytes = self.buffer.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*bytes))
    }
}

/// What memory can hold is never more than 32 bits can say here: lengths are checked against small bounds.
pub(super) fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The fields of one packet, one after the other.
#[derive(Debug)]
pub(super) struct Fields {
    kind: u8,
    rest: Bytes,
}

impl Fields {
    /// The type of the packet and what follows it.
    pub(super) fn of(mut packet: Bytes) -> Self {
        let kind = packet.try_get_u8().unwrap_or_default();
        Self { kind, rest: packet }
    }

    pub(super) fn kind(&self) -> u8 {
        self.kind
    }

    fn broken(&self) -> Unreadable {
        Unreadable::Body { kind: self.kind }
    }

    pub(super) fn u8(&mut self) -> Result<u8, Unreadable> {
        self.rest.try_get_u8().map_err(|_| self.broken())
    }

    pub(super) fn u32(&mut self) -> Result<u32, Unreadable> {
        self.rest.try_get_u32().map_err(|_| self.broken())
    }

    pub(super) fn u64(&mut self) -> Result<u64, Unreadable> {
        self.rest.try_get_u64().map_err(|_| self.broken())
    }

    pub(super) fn string(&mut self) -> Result<Bytes, Unreadable> {
        let length = to_usize(self.u32()?);
        if length > self.rest.len() {
            return Err(self.broken());
        }
        Ok(self.rest.split_to(length))
    }

    /// A string that outlives the packet, whose memory it does not keep.
    pub(super) fn name(&mut self) -> Result<Bytes, Unreadable> {
        let name = self.string()?;
        if name.len() > MAX_TEXT {
            return Err(Unreadable::Name(name.len()));
        }
        Ok(Bytes::copy_from_slice(&name))
    }

    pub(super) fn handle(&mut self) -> Result<Bytes, Unreadable> {
        let handle = self.string()?;
        if handle.len() > MAX_HANDLE {
            return Err(Unreadable::Handle);
        }
        Ok(handle)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Leaves the rest unread.
    pub(super) fn skip(&mut self) {
        self.rest.clear();
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Result<(), Unreadable> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.broken())
    }
}
