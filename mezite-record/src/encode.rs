//! The pure writers: frames in, bytes of a file out. No I/O, no clock.

use aes_gcm::{AeadInOut, Aes256Gcm};
use mezite_core::Span;
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::format::{
    Cut, Footer, FooterTail, Head, Header, IndexEntry, MAX_ENTRIES, MAX_FACTS, META, Meta, TAG,
    associated, nonce, signed_message, to_usize,
};
use crate::frame::{Frame, Timed};
use crate::key::{DataKey, KeyError, Recipient};
use crate::pack::{Attempts, Packer};
use crate::wire::length;

/// Plaintext bytes at which a sealed chunk is closed. With one more frame it stays below the bound of a chunk.
const CHUNK_TARGET: usize = 1024 * 1024;
/// File bytes between two entries of the index.
const INDEX_STEP: u64 = 256 * 1024;
/// Plaintext bytes from which on a chunk of a journal is packed: a smaller one would hardly become shorter.
const PACKED_FROM: usize = 1024;
/// Plaintext bytes from which on a chunk of a journal is large enough for the sealed file, too.
pub(crate) const KEPT_FROM: usize = 16 * 1024;

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

    /// Encrypts a chunk where it stands: room for the meta, plaintext, room for the tag.
    fn close(&mut self, mut meta: Meta, chunk: &mut [u8]) -> Result<(), EncodeError> {
        let beyond = || EncodeError::Chunk("too long");
        let (room, body) = chunk.split_first_chunk_mut::<META>().ok_or_else(beyond)?;
        meta.sealed = u32::try_from(body.len()).map_err(|_| beyond())?;
        *room = meta.encode();
        let aad = associated(room, &self.previous);
        let (plain, tag) = body.split_last_chunk_mut::<TAG>().ok_or_else(beyond)?;
        let made = self
            .cipher
            .encrypt_inout_detached(&nonce(self.number).into(), &aad, plain.into())
            .map_err(|_| beyond())?;
        *tag = made.into();
        self.previous = *tag;
        self.number += 1;
        Ok(())
    }
}

/// Writes the journal of a live session: every call of [`Journal::push`] gives one whole chunk, packed where it is large.
pub struct Journal {
    sealing: Sealing,
    attempts: Attempts,
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
            attempts: Attempts::default(),
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
            let zstd = plain >= PACKED_FROM && self.attempts.pack(out, start + META)?;
            let meta = Meta {
                zstd,
                last: false,
                frames: 1,
                plain: u32::try_from(plain).map_err(|_| EncodeError::Chunk("too long"))?,
                sealed: 0,
                first: self.last,
                until: self.last,
            };
            out.extend_from_slice(&[0; TAG]);
            self.sealing
                .close(meta, out.get_mut(start..).unwrap_or_default())?;
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

/// Re-cuts a journal into large packed chunks.
pub(crate) struct Recut {
    sealing: Sealing,
    closing: Closing,
    head: Option<Vec<u8>>,
    /// Room for a meta, and the frames of the chunk that is being filled.
    filling: Vec<u8>,
    meta: Meta,
    packer: Packer,
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
            filling: vec![0; META],
            meta: EMPTY,
            packer: Packer::default(),
        }
    }

    fn filled(&self) -> usize {
        self.filling.len() - META
    }

    /// Whether a chunk of a journal can stand in the sealed file as it is, without one that is too small before it.
    pub(crate) fn keeps(&self, meta: &Meta) -> bool {
        let filled = self.filled();
        to_usize(meta.plain) >= KEPT_FROM && (filled == 0 || filled >= KEPT_FROM)
    }

    /// Takes in a decrypted chunk of the journal, with the room of its meta and its tag; appends to `out` what became final.
    pub(crate) fn keep(
        &mut self,
        meta: Meta,
        chunk: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if self.meta.frames > 0 {
            self.cut(false, out)?;
        }
        self.close(meta, chunk, out)?;
        (self.meta.first, self.meta.until) = (meta.until, meta.until);
        Ok(())
    }

    /// Takes a frame in; appends to `out` what became final.
    pub(crate) fn push(&mut self, timed: &Timed, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let at = timed.at.as_millis();
        if self.meta.frames == 0 {
            (self.meta.first, self.meta.until) = (at, at);
        }
        let delta = at.saturating_sub(self.meta.until);
        timed.frame.encode(delta, &mut self.filling);
        self.meta.until = at.max(self.meta.until);
        self.meta.frames += 1;
        if self.filled() >= CHUNK_TARGET {
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
        let mut chunk = std::mem::take(&mut self.filling);
        let meta = Meta {
            last,
            plain: u32::try_from(chunk.len() - META).map_err(|_| EncodeError::Chunk("too long"))?,
            zstd: self.packer.pack(&mut chunk, META)?,
            ..self.meta
        };
        chunk.extend_from_slice(&[0; TAG]);
        self.close(meta, &mut chunk, out)?;
        chunk.truncate(META);
        self.filling = chunk;
        self.meta = Meta {
            first: meta.until,
            until: meta.until,
            ..EMPTY
        };
        Ok(())
    }

    /// Encrypts a chunk where it stands and passes it on.
    fn close(
        &mut self,
        meta: Meta,
        chunk: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if let Some(head) = self.head.take() {
            self.closing.pass(&head, out);
        }
        self.sealing.close(meta, chunk)?;
        self.closing.chunk(&meta, chunk, out);
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
        self.pass(bytes, out);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{DecodeError, Decoder};
    use crate::key::Identity;
    use mezite_core::{NodeId, SessionId, UnixTime};
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    /// What a reader has against a journal of one packed chunk that claims to hold `plain` bytes.
    fn refusal(packed: &[u8], plain: usize) -> Option<DecodeError> {
        let started = UnixTime::from_secs(1_700_000_000);
        let header = Header {
            session_id: SessionId::new(started, [1; 16]),
            cluster: "example".parse().unwrap(),
            user: "alice".parse().unwrap(),
            node_id: NodeId::new([2; 16]),
            node: "db-1".parse().unwrap(),
            login: "root".parse().unwrap(),
            started,
            source: None,
        };
        let reader = [Identity::generate().recipient()];
        let mut rng = StdRng::seed_from_u64(1);
        let (mut journal, head) = Journal::new(&header, &reader, &mut rng).unwrap();
        let mut chunk = [&[0; META], packed, &[0; TAG]].concat();
        let meta = Meta {
            zstd: true,
            frames: 1,
            plain: plain.try_into().unwrap(),
            ..EMPTY
        };
        journal.sealing.close(meta, &mut chunk).unwrap();
        let mut decoder = Decoder::for_key(journal.key);
        decoder.feed(&head);
        decoder.feed(&chunk);
        loop {
            match decoder.next() {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
    }

    #[test]
    fn attack_47_a_packed_chunk_that_unpacks_to_more_or_less_than_it_says_is_refused() {
        let mut plain = Vec::new();
        Frame::note("x".repeat(5000)).encode(0, &mut plain);
        let pack = |plain: &[u8]| zstd::bulk::compress(plain, 1).unwrap();
        let good = pack(&plain);
        assert_eq!(refusal(&good, plain.len()), None);
        let tampered = Some(DecodeError::Tampered { chunk: 0 });
        let bomb = pack(&vec![0; 64 * 1024 * 1024]);
        let longer = [&good[..], b"\0"].concat();
        let twice = [&good[..], &good].concat();
        for (packed, claimed) in [
            (&bomb[..], 10),
            (&bomb, crate::format::MAX_PLAIN),
            (&good, plain.len() - 1),
            (&good, plain.len() + 1),
            (&good[..good.len() - 1], plain.len()),
            (&longer, plain.len()),
            (&twice, plain.len()),
            (&twice, plain.len() * 2),
            (&plain, plain.len()),
            (&[], 0),
        ] {
            assert_eq!(
                refusal(packed, claimed),
                tampered,
                "{} {claimed}",
                packed.len()
            );
        }
        let beyond = refusal(&bomb, crate::format::MAX_PLAIN + 1);
        assert!(matches!(beyond, Some(DecodeError::Malformed { .. })));
    }
}
