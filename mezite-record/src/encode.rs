//! The pure writers: frames in, bytes of a file out. No I/O, no clock.

use aes_gcm::{AeadInOut, Aes256Gcm};
use mezite_core::Span;
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zstd::bulk::Compressor;
use zstd::zstd_safe;

use crate::format::{
    Cut, Footer, FooterTail, Head, Header, IndexEntry, MAX_ENTRIES, MAX_FACTS, META, Meta, TAG,
    associated, nonce, signed_message,
};
use crate::frame::{Frame, Timed};
use crate::key::{DataKey, KeyError, Recipient};
use crate::wire::length;

/// Plaintext bytes at which a sealed chunk is closed. With one more frame it stays below the bound of a chunk.
const CHUNK_TARGET: usize = 1024 * 1024;
/// File bytes between two entries of the index.
const INDEX_STEP: u64 = 256 * 1024;
/// zstd level of sealed chunks: the fastest that is not a negative one.
const LEVEL: i32 = 1;

/// Why something cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The data key cannot be wrapped.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The facts of the session exceed 64 KiB of JSON.
    #[error("the facts of the session are too long: {0} bytes of JSON, at most {MAX_FACTS}")]
    Facts(usize),
    /// The cipher or the compressor refused; it does so only beyond its bounds.
    #[error("a chunk cannot be sealed: {0}")]
    Chunk(&'static str),
}

/// Seals chunks one after the other: counter nonce, chained tags.
struct Sealing {
    cipher: Aes256Gcm,
    number: u64,
    previous: [u8; TAG],
}

impl Sealing {
    fn new(key: &DataKey, head: &[u8]) -> Self {
        Self {
            cipher: key.cipher(&Sha256::digest(head).into()),
            number: 0,
            previous: [0; TAG],
        }
    }

    /// Encrypts in place what stands in `out` behind the room for the meta at `at`; fills in the meta, adds the tag.
    fn close(&mut self, mut meta: Meta, at: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let beyond = || EncodeError::Chunk("too long");
        let body = out.len().checked_sub(at + META).ok_or_else(beyond)?;
        meta.sealed = u32::try_from(body + TAG).map_err(|_| beyond())?;
        let encoded = meta.encode();
        let aad = associated(&encoded, &self.previous);
        let (room, plain) = out
            .get_mut(at..)
            .and_then(|chunk| chunk.split_first_chunk_mut::<META>())
            .ok_or_else(beyond)?;
        *room = encoded;
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce(self.number).into(), &aad, plain.into())
            .map_err(|_| beyond())?;
        self.previous = tag.into();
        self.number += 1;
        out.extend_from_slice(&self.previous);
        Ok(())
    }
}

/// Writes the journal of a live session: every call of [`Journal::push`] gives one whole chunk, uncompressed.
pub struct Journal {
    sealing: Sealing,
    key: DataKey,
    head: Head,
    last: u64,
    frames: u64,
}

impl Journal {
    /// Begins a journal. The second value is the head: the first bytes of the file.
    ///
    /// # Errors
    /// [`EncodeError::Key`] without a recipient or with too many, [`EncodeError::Facts`].
    pub fn new(
        header: &Header,
        recipients: &[Recipient],
        rng: &mut dyn CryptoRng,
    ) -> Result<(Self, Vec<u8>), EncodeError> {
        let facts = serde_json::to_vec(header).map_err(|_| EncodeError::Facts(usize::MAX))?;
        if facts.len() > MAX_FACTS {
            return Err(EncodeError::Facts(facts.len()));
        }
        let key = DataKey::draw(rng);
        let wrapped = key.wrap(recipients)?;
        let head = Head {
            cut: Cut::Live,
            facts,
            wrapped,
        };
        let bytes = head.encode();
        let journal = Self {
            sealing: Sealing::new(&key, &bytes),
            key,
            head,
            last: 0,
            frames: 0,
        };
        Ok((journal, bytes))
    }

    /// Appends to `out` the chunk that holds `frame`, or several where its data exceeds
    /// [`MAX_DATA`](crate::frame::MAX_DATA). A time before that of the last frame counts as that of the last frame.
    ///
    /// # Errors
    /// [`EncodeError::Chunk`]; the journal can then not be continued.
    pub fn push(&mut self, at: Span, frame: Frame, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.last = self.last.max(at.as_millis());
        let mut next = Some(frame);
        while let Some(mut frame) = next {
            next = frame.split();
            let start = out.len();
            out.reserve(META + frame.size_hint() + TAG);
            out.resize(start + META, 0);
            frame.encode(0, out);
            let plain = out.len() - start - META;
            let meta = Meta {
                zstd: false,
                last: false,
                frames: 1,
                plain: u32::try_from(plain).map_err(|_| EncodeError::Chunk("too long"))?,
                sealed: 0,
                first: self.last,
                until: self.last,
            };
            self.sealing.close(meta, start, out)?;
            self.frames += 1;
        }
        Ok(())
    }

    /// Frames written so far.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The decoder of this journal and the writer of its sealed form. The journal is over.
    pub(crate) fn into_recut(self) -> (DataKey, Recut) {
        let recut = Recut::new(&self.key, self.head);
        (self.key, recut)
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

/// Re-cuts frames into large compressed chunks.
pub(crate) struct Recut {
    sealing: Sealing,
    closing: Closing,
    head: Option<Vec<u8>>,
    plain: Vec<u8>,
    meta: Meta,
    compressor: Option<Compressor<'static>>,
}

const EMPTY: Meta = Meta {
    zstd: false,
    last: false,
    frames: 0,
    plain: 0,
    sealed: 0,
    first: 0,
    until: 0,
};

impl Recut {
    fn new(key: &DataKey, head: Head) -> Self {
        let bytes = Head {
            cut: Cut::Sealed,
            ..head
        }
        .encode();
        Self {
            sealing: Sealing::new(key, &bytes),
            closing: Closing::new(false),
            head: Some(bytes),
            plain: Vec::new(),
            meta: EMPTY,
            compressor: None,
        }
    }

    /// Takes a frame in; appends to `out` what became final.
    pub(crate) fn push(&mut self, timed: &Timed, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let at = timed.at.as_millis();
        if self.meta.frames == 0 {
            (self.meta.first, self.meta.until) = (at, at);
        }
        let delta = at.saturating_sub(self.meta.until);
        timed.frame.encode(delta, &mut self.plain);
        self.meta.until = at.max(self.meta.until);
        self.meta.frames += 1;
        if self.plain.len() >= CHUNK_TARGET {
            self.cut(false, out)?;
        }
        Ok(())
    }

    /// Closes the last chunk and hands over what the signature needs.
    pub(crate) fn finish(
        mut self,
        duration: Span,
        out: &mut Vec<u8>,
    ) -> Result<Unsigned, EncodeError> {
        let end = duration.as_millis().max(self.meta.until);
        if self.meta.frames == 0 {
            (self.meta.first, self.meta.until) = (end, end);
        }
        self.cut(true, out)?;
        self.closing.millis = end;
        Ok(self.closing.finish(0, out))
    }

    fn cut(&mut self, last: bool, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if let Some(head) = self.head.take() {
            self.closing.pass(&head, out);
        }
        let refused = |_| EncodeError::Chunk("the compressor refused");
        let beyond = |_| EncodeError::Chunk("too long");
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new(LEVEL).map_err(refused)?),
        };
        // Packed, encrypted and digested where it will stand.
        let at = out.len();
        let body = at + META;
        out.resize(body + zstd_safe::compress_bound(self.plain.len()), 0);
        let room = out.get_mut(body..).unwrap_or_default();
        let packed = compressor
            .compress_to_buffer(&self.plain, room)
            .map_err(refused)?;
        let zstd = packed < self.plain.len();
        if zstd {
            out.truncate(body + packed);
        } else {
            out.truncate(body);
            out.extend_from_slice(&self.plain);
        }
        let meta = Meta {
            zstd,
            last,
            plain: u32::try_from(self.plain.len()).map_err(beyond)?,
            ..self.meta
        };
        self.sealing.close(meta, at, out)?;
        self.closing.count(&meta, out.get(at..).unwrap_or_default());
        self.plain.clear();
        self.meta = Meta {
            first: meta.until,
            until: meta.until,
            ..EMPTY
        };
        Ok(())
    }
}

/// Counts, indexes and digests the whole chunks of a file, then writes its footer. Needs no data key.
pub(crate) struct Closing {
    hash: Sha256,
    offset: u64,
    indexed: Option<u64>,
    footer: Footer,
    millis: u64,
}

impl Closing {
    pub(crate) fn new(recovered: bool) -> Self {
        Self {
            hash: Sha256::new(),
            offset: 0,
            indexed: None,
            footer: Footer {
                recovered,
                chunks: 0,
                frames: 0,
                millis: 0,
                dropped: 0,
                index: Vec::new(),
            },
            millis: 0,
        }
    }

    /// Bytes that are no chunk: the head.
    pub(crate) fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.digest(bytes);
        out.extend_from_slice(bytes);
    }

    fn digest(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.offset += length(bytes);
    }

    /// One whole chunk with its meta.
    pub(crate) fn chunk(&mut self, meta: &Meta, bytes: &[u8], out: &mut Vec<u8>) {
        self.count(meta, bytes);
        out.extend_from_slice(bytes);
    }

    /// One that stands in the file already.
    fn count(&mut self, meta: &Meta, bytes: &[u8]) {
        let due = self
            .indexed
            .is_none_or(|before| self.offset - before >= INDEX_STEP);
        if due && self.footer.index.len() < MAX_ENTRIES {
            self.footer.index.push(IndexEntry {
                offset: self.offset,
                number: self.footer.chunks,
                at: Span::from_millis(meta.first),
            });
            self.indexed = Some(self.offset);
        }
        self.footer.chunks += 1;
        self.footer.frames += u64::from(meta.frames);
        self.millis = self.millis.max(meta.until);
        self.digest(bytes);
    }

    pub(crate) fn finish(mut self, dropped: u64, out: &mut Vec<u8>) -> Unsigned {
        self.footer.dropped = dropped;
        self.footer.millis = self.millis;
        let footer = self.footer.encode();
        self.pass(&footer, out);
        Unsigned {
            digest: self.hash.clone().finalize().into(),
            hash: self.hash,
            offset: self.offset,
            footer_length: footer.len(),
            frames: self.footer.frames,
            duration: Span::from_millis(self.millis),
            recovered: self.footer.recovered,
            dropped,
        }
    }
}

/// A file that lacks only its signature. [`Unsigned::message`] is to be signed wherever the key is.
pub(crate) struct Unsigned {
    hash: Sha256,
    digest: [u8; 32],
    offset: u64,
    footer_length: usize,
    frames: u64,
    duration: Span,
    recovered: bool,
    dropped: u64,
}

impl Unsigned {
    pub(crate) fn message(&self) -> Vec<u8> {
        signed_message(&self.digest)
    }

    /// Appends the end of the file to `out`.
    pub(crate) fn sign(
        mut self,
        public_key: [u8; 32],
        signature: [u8; 64],
        out: &mut Vec<u8>,
    ) -> Summary {
        let tail = FooterTail {
            digest: self.digest,
            public_key,
            signature,
        }
        .encode(self.footer_length);
        self.hash.update(&tail);
        out.extend_from_slice(&tail);
        Summary {
            digest: data_encoding::HEXLOWER.encode(&self.hash.finalize()),
            bytes: self.offset + length(&tail),
            frames: self.frames,
            duration: self.duration,
            recovered: self.recovered,
            dropped: self.dropped,
        }
    }
}

/// What the end of a recording leaves for the event that reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// SHA-256 of the sealed file, lowercase hexadecimal: what `sha256sum` prints.
    pub digest: String,
    /// Bytes of the sealed file.
    pub bytes: u64,
    /// Frames in it.
    pub frames: u64,
    /// From the start of the session to its end, or to the last frame of a recovered recording.
    pub duration: Span,
    /// Closed after the recorder died.
    pub recovered: bool,
    /// Bytes of an unfinished chunk that recovery left out; zero at a clean end.
    pub dropped: u64,
}
