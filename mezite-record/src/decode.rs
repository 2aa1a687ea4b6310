//! The pure reader: bytes of a file in, in pieces of any size; frames out. Any prefix of a file reads up to its last
//! whole chunk; garbage is an error, never a panic, and no claimed length is trusted before it is checked.

use aes_gcm::{AeadInOut, Aes256Gcm};
use bytes::{Bytes, BytesMut};
use mezite_core::Span;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zstd::bulk::Decompressor;

use crate::format::{
    Cut, FOOTER, Footer, FooterTail, HEAD_FIXED, Head, Header, IndexEntry, MAX_FACTS, MAX_PLAIN,
    META, Meta, TAG, associated, nonce, to_usize,
};
use crate::frame::{Frame, Timed};
use crate::key::{DataKey, Identity, KeyError, MAX_WRAPPED};
use crate::wire::{Malformed, Reader, length};

/// Why bytes do not read as a recording.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The structure is wrong: not a recording, of an unknown version, or damaged.
    #[error("the recording is not readable at byte {offset}: {what}")]
    Malformed {
        /// Where the unreadable part begins.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A chunk is not the one that was written at this place of this recording.
    #[error("chunk {chunk} of the recording was changed, moved or belongs to another recording")]
    Tampered {
        /// The number of the chunk, from 0.
        chunk: u64,
    },
    /// The footer counts other chunks or frames than are there.
    #[error("the recording's end does not fit its content: parts were removed or added")]
    Inconsistent,
    /// There is no footer to seek by.
    #[error("the recording has no index yet: it is still being written, or was cut")]
    Unindexed,
    /// The identities cannot unwrap the data key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl DecodeError {
    /// Whether nothing is wrong but that the recording is for other readers.
    #[must_use]
    pub const fn is_not_for_us(&self) -> bool {
        matches!(self, Self::Key(KeyError::NotForUs))
    }
}

/// A part of a file, found by its lengths alone.
#[derive(Debug)]
pub(crate) enum Piece {
    Head {
        head: Head,
        raw: BytesMut,
    },
    Chunk {
        meta: Meta,
        raw: BytesMut,
    },
    Footer {
        footer: Footer,
        tail: FooterTail,
        raw: BytesMut,
    },
}

/// Cuts a file into its parts without any key.
#[derive(Debug)]
pub(crate) struct Scanner {
    buffer: BytesMut,
    /// Where `buffer` begins in the file.
    offset: u64,
    state: State,
    cut: Option<Cut>,
    chunks: u64,
    /// Of all chunks; unknown once something was skipped.
    frames: Option<u64>,
    until: u64,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            offset: 0,
            state: State::Head,
            cut: None,
            chunks: 0,
            frames: Some(0),
            until: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Chunks,
    LastChunk,
    Footer,
}

impl Scanner {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes fed that belong to no whole part yet.
    pub(crate) fn left(&self) -> u64 {
        length(&self.buffer)
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on at chunk `number`, which lies at `offset` and begins at `first` milliseconds.
    pub(crate) fn jump(&mut self, offset: u64, number: u64, first: u64) {
        self.buffer.clear();
        self.state = State::Chunks;
        (self.offset, self.chunks, self.until) = (offset, number, first);
        self.frames = None;
    }

    /// The next whole part, or `None` until more is fed.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, DecodeError> {
        let found = match (self.state, self.buffer.first()) {
            (_, None) => Ok(None),
            (State::Head, _) => self.head(),
            (State::Footer, _) => Err(Malformed("there are bytes after the end")),
            (State::Chunks | State::LastChunk, Some(&FOOTER)) => self.footer(),
            (State::Chunks, _) => self.chunk(),
            (State::LastChunk, _) => Err(Malformed("there is a chunk after the last")),
        };
        found.map_err(|Malformed(what)| DecodeError::Malformed {
            offset: self.offset,
            what,
        })
    }

    fn head(&mut self) -> Result<Option<Piece>, Malformed> {
        let Some((head, length)) = Head::decode(&self.buffer)? else {
            return Ok(None);
        };
        self.state = State::Chunks;
        self.cut = Some(head.cut);
        let raw = self.take(length);
        Ok(Some(Piece::Head { head, raw }))
    }

    fn chunk(&mut self) -> Result<Option<Piece>, Malformed> {
        let Some(meta) = self.buffer.first_chunk::<META>() else {
            return Ok(None);
        };
        let meta = Meta::decode(meta)?;
        if meta.first < self.until {
            return Err(Malformed("time runs backwards"));
        }
        if meta.last && self.cut == Some(Cut::Live) {
            return Err(Malformed("a journal has no last chunk"));
        }
        let whole = META + to_usize(meta.sealed);
        if self.buffer.len() < whole {
            return Ok(None);
        }
        if meta.last {
            self.state = State::LastChunk;
        }
        self.until = meta.until;
        self.chunks += 1;
        self.frames = self.frames.map(|it| it + u64::from(meta.frames));
        let raw = self.take(whole);
        Ok(Some(Piece::Chunk { meta, raw }))
    }

    fn footer(&mut self) -> Result<Option<Piece>, Malformed> {
        let Some(whole) = Footer::length(&self.buffer)? else {
            return Ok(None);
        };
        let Some(bytes) = self.buffer.get(..whole) else {
            return Ok(None);
        };
        let (footer, tail) = Footer::decode(bytes)?;
        let sealed = self.cut == Some(Cut::Sealed);
        let fits = footer.chunks == self.chunks
            && self.frames.is_none_or(|frames| footer.frames == frames)
            && footer.millis >= self.until
            && footer.recovered != sealed
            && (self.state == State::LastChunk) == sealed;
        if !fits {
            return Err(Malformed("the footer does not fit the chunks"));
        }
        self.state = State::Footer;
        let raw = self.take(whole);
        Ok(Some(Piece::Footer { footer, tail, raw }))
    }

    /// What is taken is its taker's alone, who may decrypt it in place.
    fn take(&mut self, count: usize) -> BytesMut {
        self.offset += u64::try_from(count).unwrap_or(u64::MAX);
        self.buffer.split_to(count)
    }
}

/// What a [`Decoder`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decoded {
    /// The facts of the session; always the first. Authentic only once a chunk or the signature was checked.
    Header(Header),
    /// The next frame; authentic.
    Frame(Timed),
    /// The footer. Only [`verify`](crate::verify::verify) checks its signature.
    End(Ending),
}

/// How a recording ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// No footer: the session still runs, or its recorder died, or the file was cut.
    Open {
        /// Bytes behind the last whole chunk.
        left: u64,
    },
    /// A clean end.
    Sealed {
        /// The length of the session.
        duration: Span,
        /// For seeking.
        index: Vec<IndexEntry>,
    },
    /// Closed after the recorder died.
    Recovered {
        /// The time of the last frame.
        duration: Span,
        /// Bytes of an unfinished chunk that were left out.
        dropped: u64,
        /// For seeking.
        index: Vec<IndexEntry>,
    },
}

/// Reads a recording from pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    pub(crate) scanner: Scanner,
    unlock: Unlock,
    pub(crate) opening: Option<Opening>,
    pub(crate) chunk: Option<OpenChunk>,
    pub(crate) ending: Option<Ending>,
    pub(crate) failed: Option<DecodeError>,
}

#[derive(Debug)]
enum Unlock {
    Identities(Vec<Identity>),
    Key(DataKey),
}

impl Decoder {
    /// A decoder for whoever holds one of these identities.
    #[must_use]
    pub fn new(identities: Vec<Identity>) -> Self {
        Self::with(Unlock::Identities(identities))
    }

    /// A decoder for whoever has the recording's own key: its recorder, or a reader to whom it was lent.
    #[must_use]
    pub fn for_key(key: DataKey) -> Self {
        Self::with(Unlock::Key(key))
    }

    fn with(unlock: Unlock) -> Self {
        Self {
            scanner: Scanner::default(),
            unlock,
            opening: None,
            chunk: None,
            ending: None,
            failed: None,
        }
    }

    /// Takes in the next bytes of the file. Call [`Decoder::next`] until it gives `None` before feeding more: what is
    /// fed is held until then.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.scanner.feed(bytes);
    }

    /// The next thing, or `None` until more is fed. After an error it gives the same error again.
    ///
    /// # Errors
    /// Every [`DecodeError`].
    #[expect(
        clippy::should_implement_trait,
        reason = "`None` means feed more, not the end"
    )]
    pub fn next(&mut self) -> Result<Option<Decoded>, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let found = self.step();
        if let Err(error) = &found {
            self.failed = Some(error.clone());
        }
        found
    }

    /// How the file ends, as far as it was fed.
    #[must_use]
    pub fn ending(&self) -> Ending {
        let left = self.scanner.left();
        self.ending.clone().unwrap_or(Ending::Open { left })
    }

    fn step(&mut self) -> Result<Option<Decoded>, DecodeError> {
        loop {
            if let Some(chunk) = &mut self.chunk {
                if let Some(timed) = chunk.next()? {
                    return Ok(Some(Decoded::Frame(timed)));
                }
                self.chunk = None;
            }
            match self.scanner.next()? {
                None => return Ok(None),
                Some(Piece::Head { head, raw }) => return self.unlock(&head, &raw).map(Some),
                Some(Piece::Chunk { meta, raw }) => {
                    let opening = self.opening.as_mut().ok_or(DecodeError::Inconsistent)?;
                    self.chunk = Some(opening.open(meta, raw)?);
                }
                Some(Piece::Footer { footer, .. }) => {
                    let ending = Ending::from(footer);
                    self.ending = Some(ending.clone());
                    return Ok(Some(Decoded::End(ending)));
                }
            }
        }
    }

    /// The next chunk of a journal, decrypted where it stands, between its meta and its tag. For whoever takes no frames.
    pub(crate) fn next_chunk(&mut self) -> Result<Option<(Meta, BytesMut)>, DecodeError> {
        loop {
            match (self.scanner.next()?, &mut self.opening) {
                (None, _) => return Ok(None),
                (Some(Piece::Head { head, raw }), _) => drop(self.unlock(&head, &raw)?),
                (Some(Piece::Chunk { meta, mut raw }), Some(opening)) => {
                    opening.decrypt(&mut raw)?;
                    return Ok(Some((meta, raw)));
                }
                (Some(_), _) => return Err(DecodeError::Inconsistent),
            }
        }
    }

    /// The frames of the chunk that [`Decoder::next_chunk`] gave last.
    pub(crate) fn frames(&mut self, meta: Meta, chunk: BytesMut) -> Result<OpenChunk, DecodeError> {
        let opening = self.opening.as_mut().ok_or(DecodeError::Inconsistent)?;
        opening.unpack(meta, chunk)
    }

    fn unlock(&mut self, head: &Head, raw: &[u8]) -> Result<Decoded, DecodeError> {
        let unwrapped;
        let key = match &self.unlock {
            Unlock::Key(key) => key,
            Unlock::Identities(identities) => {
                unwrapped = DataKey::unwrap(&head.wrapped, identities)?;
                &unwrapped
            }
        };
        self.opening = Some(Opening::new(key, raw));
        Ok(Decoded::Header(header(head)?))
    }
}

/// Longest beginning of a recording that [`unlock`] asks for: the head and the first chunk.
pub const MAX_START: usize = HEAD_FIXED + MAX_FACTS + 4 + MAX_WRAPPED + META + MAX_PLAIN + TAG;

/// The facts and the key of a recording, from its first bytes ([`MAX_START`] are enough): what a hub needs to decide
/// about a reader and to lend the key. The first chunk has to open: only whoever had the key can have written these
/// facts.
///
/// # Errors
/// [`DecodeError`]; with [`KeyError::NotForUs`] inside if none of the identities is a recipient. Also if there is no whole
/// chunk yet.
pub fn unlock(start: &[u8], identities: &[Identity]) -> Result<(Header, DataKey), DecodeError> {
    let mut scanner = Scanner::default();
    scanner.feed(start);
    let (Some(Piece::Head { head, raw }), Some(Piece::Chunk { meta, raw: chunk })) =
        (scanner.next()?, scanner.next()?)
    else {
        return Err(DecodeError::Malformed {
            offset: scanner.offset(),
            what: "there is no whole chunk yet",
        });
    };
    let key = DataKey::unwrap(&head.wrapped, identities)?;
    let _opens = Opening::new(&key, &raw).open(meta, chunk)?;
    Ok((header(&head)?, key))
}

/// The facts of a recording, from its first bytes. They are authentic only once a chunk or the signature was checked.
///
/// # Errors
/// [`DecodeError::Malformed`] if the header is not whole.
pub fn facts(start: &[u8]) -> Result<Header, DecodeError> {
    header(&head(start)?)
}

fn head(start: &[u8]) -> Result<Head, DecodeError> {
    let mut scanner = Scanner::default();
    scanner.feed(start);
    match scanner.next()? {
        Some(Piece::Head { head, .. }) => Ok(head),
        _ => Err(DecodeError::Malformed {
            offset: 0,
            what: "the header is not whole",
        }),
    }
}

/// The facts of a head.
pub(crate) fn header(head: &Head) -> Result<Header, DecodeError> {
    serde_json::from_slice(&head.facts).map_err(|_| DecodeError::Malformed {
        offset: 15,
        what: "the facts of the session are not the JSON this version writes",
    })
}

impl From<Footer> for Ending {
    fn from(footer: Footer) -> Self {
        let duration = Span::from_millis(footer.millis);
        let index = footer.index;
        if footer.recovered {
            Self::Recovered {
                duration,
                dropped: footer.dropped,
                index,
            }
        } else {
            Self::Sealed { duration, index }
        }
    }
}

/// Opens chunks in order: counter nonce, chained tags.
pub(crate) struct Opening {
    cipher: Aes256Gcm,
    pub(crate) number: u64,
    pub(crate) previous: [u8; TAG],
    unpacker: Option<Decompressor<'static>>,
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Opening {
    fn new(key: &DataKey, head: &[u8]) -> Self {
        Self {
            cipher: key.cipher(&Sha256::digest(head).into()),
            number: 0,
            previous: [0; TAG],
            unpacker: None,
        }
    }

    fn open(&mut self, meta: Meta, mut chunk: BytesMut) -> Result<OpenChunk, DecodeError> {
        self.decrypt(&mut chunk)?;
        self.unpack(meta, chunk)
    }

    /// Decrypts a chunk where it stands, between its meta and its tag.
    fn decrypt(&mut self, chunk: &mut [u8]) -> Result<(), DecodeError> {
        let number = self.number;
        let tampered = || DecodeError::Tampered { chunk: number };
        let (clear, body) = chunk.split_first_chunk_mut::<META>().ok_or_else(tampered)?;
        let (sealed, tag) = body.split_last_chunk_mut::<TAG>().ok_or_else(tampered)?;
        let aad = associated(clear, &self.previous);
        self.cipher
            .decrypt_inout_detached(&nonce(number).into(), &aad, sealed.into(), &(*tag).into())
            .map_err(|_| tampered())?;
        self.previous = *tag;
        self.number += 1;
        Ok(())
    }

    /// The frames of the chunk that was just decrypted.
    fn unpack(&mut self, meta: Meta, mut chunk: BytesMut) -> Result<OpenChunk, DecodeError> {
        let number = self.number.saturating_sub(1);
        let tampered = || DecodeError::Tampered { chunk: number };
        chunk.truncate(chunk.len().saturating_sub(TAG));
        let packed = chunk.freeze().slice(META..);
        let plain = if meta.zstd {
            let unpacker = match &mut self.unpacker {
                Some(unpacker) => unpacker,
                none => none.insert(Decompressor::new().map_err(|_| tampered())?),
            };
            let unpacked = unpacker.decompress(&packed, to_usize(meta.plain));
            Bytes::from(unpacked.map_err(|_| tampered())?)
        } else {
            packed
        };
        if plain.len() != to_usize(meta.plain) {
            return Err(tampered());
        }
        Ok(OpenChunk {
            number,
            plain,
            at: 0,
            left: meta.frames,
            time: meta.first,
            until: meta.until,
        })
    }
}

/// A decrypted chunk whose frames are being handed out.
#[derive(Debug)]
pub(crate) struct OpenChunk {
    number: u64,
    plain: Bytes,
    at: usize,
    left: u32,
    time: u64,
    until: u64,
}

impl OpenChunk {
    pub(crate) fn next(&mut self) -> Result<Option<Timed>, DecodeError> {
        // Authenticated, so only its own writer can have made it malformed; still nothing is trusted.
        let tampered = DecodeError::Tampered { chunk: self.number };
        if self.left == 0 {
            let ended = self.at == self.plain.len() && self.time == self.until;
            return if ended { Ok(None) } else { Err(tampered) };
        }
        let rest = self.plain.slice(self.at..);
        let mut reader = Reader::new(&rest);
        let (delta, frame) = Frame::decode(&mut reader).map_err(|_| tampered.clone())?;
        self.at += reader.taken();
        self.left -= 1;
        self.time = self.time.checked_add(delta).ok_or(tampered)?;
        Ok(Some(Timed {
            at: Span::from_millis(self.time),
            frame,
        }))
    }
}
