//! The parts of a file, byte for byte as FORMAT.md has them: head, chunk metas, footer. Nothing here encrypts.

use mezite_core::{ClusterName, Login, NodeId, NodeName, SessionId, Span, UnixTime, UserName};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

use crate::key::MAX_WRAPPED;
use crate::wire::Malformed;

/// The first bytes of every recording. The high byte and the line ends show files mangled as text.
pub(crate) const MAGIC: [u8; 8] = *b"\x89MZR\r\n\x1a\n";
/// The last bytes of every finished recording.
pub(crate) const END: [u8; 8] = *b"MZREND\r\n";
/// The version of the format that is written.
pub(crate) const VERSION: u16 = 1;
/// Most bytes of the header's JSON.
pub(crate) const MAX_FACTS: usize = 64 * 1024;
/// Bytes from the magic to the length of the facts, inclusive.
pub(crate) const HEAD_FIXED: usize = 15;
/// Bytes of a chunk before its ciphertext.
pub(crate) const META: usize = 34;
/// Bytes of an AES-GCM tag.
pub(crate) const TAG: usize = 16;
/// Most plaintext bytes of a chunk.
pub(crate) const MAX_PLAIN: usize = 4 * 1024 * 1024;
/// Most frames of a chunk: the shortest frame has two bytes.
pub(crate) const MAX_FRAMES: u32 = 2 * 1024 * 1024;
/// Bytes of a footer before its index.
pub(crate) const FOOTER_FIXED: usize = 38;
/// Bytes of an index entry.
pub(crate) const ENTRY: usize = 24;
/// Most index entries.
pub(crate) const MAX_ENTRIES: usize = 1024 * 1024;
/// Bytes of a footer after its index: digest, public key, signature, length, end mark.
pub(crate) const FOOTER_TAIL: usize = 32 + 32 + 64 + 4 + 8;

/// The facts of a session. They lie readable in the file, so that a store can be listed without any key; what was
/// typed or run is in the sealed chunks alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "the recording proxy builds it")]
pub struct Header {
    /// The session; also the only thing a sink derives a place from.
    pub session_id: SessionId,
    /// The cluster.
    pub cluster: ClusterName,
    /// Whose session.
    pub user: UserName,
    /// The node's identity.
    pub node_id: NodeId,
    /// The node's name at that time.
    pub node: NodeName,
    /// The Unix account on the node.
    pub login: Login,
    /// When the session started; times of frames count from here.
    pub started: UnixTime,
    /// Where the user came from, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
}

/// How the chunks of a file were cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A chunk for each frame while the session ran.
    Live,
    /// Large chunks at the session's clean end.
    Sealed,
}

impl Cut {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Live => 1,
            Self::Sealed => 2,
        }
    }
}

/// What stands before the first chunk.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) cut: Cut,
    pub(crate) facts: Vec<u8>,
    pub(crate) wrapped: Vec<u8>,
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_FIXED + self.facts.len() + 4 + self.wrapped.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.push(self.cut.code());
        out.extend_from_slice(&length32(&self.facts).to_be_bytes());
        out.extend_from_slice(&self.facts);
        out.extend_from_slice(&length32(&self.wrapped).to_be_bytes());
        out.extend_from_slice(&self.wrapped);
        out
    }

    /// The head at the front of `bytes` and its length, or `None` while it is incomplete.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let known = bytes.len().min(MAGIC.len());
        if bytes.get(..known) != MAGIC.get(..known) {
            return Err(Malformed("this is not a recording"));
        }
        let mut fields = Fields(bytes);
        let (Some(_magic), Some(version), Some(cut)) =
            (fields.take::<8>(), fields.take::<2>(), fields.take::<1>())
        else {
            return Ok(None);
        };
        if u16::from_be_bytes(version) != VERSION {
            return Err(Malformed(
                "a version of the format that this program does not know",
            ));
        }
        let cut = match cut {
            [1] => Cut::Live,
            [2] => Cut::Sealed,
            _ => return Err(Malformed("neither a live nor a sealed recording")),
        };
        let Some(facts) = fields.counted(MAX_FACTS)? else {
            return Ok(None);
        };
        let Some(wrapped) = fields.counted(MAX_WRAPPED)? else {
            return Ok(None);
        };
        let head = Self {
            cut,
            facts: facts.to_vec(),
            wrapped: wrapped.to_vec(),
        };
        Ok(Some((head, bytes.len() - fields.0.len())))
    }
}

/// What is readable of a chunk, all of it authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The plaintext is a zstd frame.
    pub(crate) zstd: bool,
    /// Nothing follows but the footer.
    pub(crate) last: bool,
    pub(crate) frames: u32,
    /// Bytes of plaintext after decompression.
    pub(crate) plain: u32,
    /// Bytes of ciphertext with its tag.
    pub(crate) sealed: u32,
    /// Milliseconds from the start of the session to the first frame and to the last.
    pub(crate) first: u64,
    pub(crate) until: u64,
}

/// The type byte of a chunk.
pub(crate) const CHUNK: u8 = 1;
/// The type byte of the footer.
pub(crate) const FOOTER: u8 = 2;

impl Meta {
    pub(crate) fn encode(&self) -> [u8; META] {
        let mut out = [0; META];
        let flags = u8::from(self.zstd) | u8::from(self.last) << 1;
        let fields: [&[u8]; 8] = [
            &[CHUNK],
            &[flags],
            &[0; 4],
            &self.frames.to_be_bytes(),
            &self.plain.to_be_bytes(),
            &self.sealed.to_be_bytes(),
            &self.first.to_be_bytes(),
            &self.until.to_be_bytes(),
        ];
        for (to, from) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8; META]) -> Result<Self, Malformed> {
        let mut fields = Fields(bytes);
        let [kind, flags] = fields.take().unwrap_or_default();
        let reserved: [u8; 4] = fields.take().unwrap_or_default();
        let mut number = || u32::from_be_bytes(fields.take().unwrap_or_default());
        let (frames, plain, sealed) = (number(), number(), number());
        let mut time = || u64::from_be_bytes(fields.take().unwrap_or_default());
        let meta = Self {
            zstd: flags & 1 != 0,
            last: flags & 2 != 0,
            frames,
            plain,
            sealed,
            first: time(),
            until: time(),
        };
        if kind != CHUNK || flags > 3 || reserved != [0; 4] {
            return Err(Malformed("neither a chunk nor a footer of this version"));
        }
        let bounded = frames <= MAX_FRAMES
            && to_usize(plain) <= MAX_PLAIN
            && (TAG..=MAX_PLAIN + TAG).contains(&to_usize(sealed));
        if !bounded || meta.first > meta.until {
            return Err(Malformed("a chunk exceeds its bounds"));
        }
        Ok(meta)
    }
}

/// Where a chunk begins, for seeking by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexEntry {
    /// Byte offset of the chunk in the file.
    pub offset: u64,
    /// Its number, from 0.
    pub number: u64,
    /// When its first frame passed, since the start of the session.
    pub at: Span,
}

/// What closes a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) recovered: bool,
    pub(crate) chunks: u64,
    pub(crate) frames: u64,
    pub(crate) millis: u64,
    /// Bytes of an unfinished chunk that recovery left out.
    pub(crate) dropped: u64,
    pub(crate) index: Vec<IndexEntry>,
}

impl Footer {
    /// Everything up to the digest.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_FIXED + self.index.len() * ENTRY + FOOTER_TAIL);
        out.extend_from_slice(&[FOOTER, u8::from(self.recovered)]);
        for number in [self.chunks, self.frames, self.millis, self.dropped] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(
            &u32::try_from(self.index.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        for entry in &self.index {
            for number in [entry.offset, entry.number, entry.at.as_millis()] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        out
    }

    /// Bytes of the whole footer with its tail, or `None` while its beginning is incomplete.
    pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut fields = Fields(bytes.get(FOOTER_FIXED - 4..).unwrap_or_default());
        let Some(count) = fields.take().map(u32::from_be_bytes).map(to_usize) else {
            return Ok(None);
        };
        if count > MAX_ENTRIES {
            return Err(Malformed("the index exceeds its bound"));
        }
        Ok(Some(FOOTER_FIXED + count * ENTRY + FOOTER_TAIL))
    }

    /// Reads all of a footer but its tail. `bytes` has the length that [`Footer::length`] gave.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, FooterTail), Malformed> {
        let cut = Malformed("the footer is cut off");
        let mut fields = Fields(bytes);
        let [FOOTER, flags @ 0..=1] = fields.take().ok_or(cut)? else {
            return Err(Malformed("neither a chunk nor a footer of this version"));
        };
        let mut number = || fields.take().map(u64::from_be_bytes).ok_or(cut);
        let (chunks, frames, millis, dropped) = (number()?, number()?, number()?, number()?);
        let count = fields.take().map(u32::from_be_bytes).ok_or(cut)?;
        let mut index = Vec::new();
        for _ in 0..count {
            let mut number = || fields.take().map(u64::from_be_bytes).ok_or(cut);
            index.push(IndexEntry {
                offset: number()?,
                number: number()?,
                at: Span::from_millis(number()?),
            });
        }
        let tail = FooterTail {
            digest: fields.take().ok_or(cut)?,
            public_key: fields.take().ok_or(cut)?,
            signature: fields.take().ok_or(cut)?,
        };
        let length: [u8; 4] = fields.take().ok_or(cut)?;
        let end: [u8; 8] = fields.take().ok_or(cut)?;
        if length != length32(bytes).to_be_bytes() || end != END || !fields.0.is_empty() {
            return Err(Malformed("the footer's end does not fit its beginning"));
        }
        let footer = Self {
            recovered: flags & 1 != 0,
            chunks,
            frames,
            millis,
            dropped,
            index,
        };
        Ok((footer, tail))
    }
}

/// What makes a footer binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FooterTail {
    /// SHA-256 of every byte of the file before the digest itself.
    pub(crate) digest: [u8; 32],
    pub(crate) public_key: [u8; 32],
    /// Ed25519 over [`signed_message`].
    pub(crate) signature: [u8; 64],
}

impl FooterTail {
    /// The rest of the file; `before` is the length of [`Footer::encode`].
    pub(crate) fn encode(&self, before: usize) -> Vec<u8> {
        let length = u32::try_from(before + FOOTER_TAIL).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(FOOTER_TAIL);
        out.extend_from_slice(&self.digest);
        out.extend_from_slice(&self.public_key);
        out.extend_from_slice(&self.signature);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&END);
        out
    }
}

/// What the signature covers: a label that no other Mezite signature begins with, and the digest.
pub(crate) fn signed_message(digest: &[u8; 32]) -> Vec<u8> {
    [b"mezite-record/1 sealed\n".as_slice(), digest].concat()
}

/// The AES-GCM nonce of the chunk with this number: four zero bytes and the number.
pub(crate) fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    for (to, from) in nonce.iter_mut().skip(4).zip(number.to_be_bytes()) {
        *to = from;
    }
    nonce
}

/// What a chunk authenticates besides its plaintext: its meta and the tag of the chunk before it.
pub(crate) fn associated(meta: &[u8; META], previous: &[u8; TAG]) -> [u8; META + TAG] {
    let mut out = [0; META + TAG];
    for (to, from) in out.iter_mut().zip(meta.iter().chain(previous)) {
        *to = *from;
    }
    out
}

pub(crate) fn to_usize(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn length32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Takes fixed-size fields off the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    /// A byte string with a 32-bit length, or `None` while it is incomplete. The bound is checked first.
    fn counted(&mut self, limit: usize) -> Result<Option<&'a [u8]>, Malformed> {
        let Some(length) = self.take().map(u32::from_be_bytes).map(to_usize) else {
            return Ok(None);
        };
        if length > limit {
            return Err(Malformed("a part of the header exceeds its bound"));
        }
        let Some((field, rest)) = self.0.split_at_checked(length) else {
            return Ok(None);
        };
        self.0 = rest;
        Ok(Some(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn metas_round_trip(zstd: bool, last: bool, frames in 0..=MAX_FRAMES, plain in 0_u32..4_194_304,
            sealed in 16_u32..4_194_304, first in 0_u64..1 << 40, lasts in 0_u64..1 << 40) {
            let meta = Meta { zstd, last, frames, plain, sealed, first, until: first + lasts };
            prop_assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _any_verdict = Head::decode(&bytes);
            let _any_verdict = Head::decode(&[&MAGIC[..], &[0, 1, 1], &bytes].concat());
            let _any_verdict = Footer::length(&bytes);
            let _any_verdict = Footer::decode(&bytes);
            let _any_verdict = Footer::decode(&[&[FOOTER, 0][..], &bytes].concat());
            if let Some(meta) = bytes.first_chunk() {
                let _any_verdict = Meta::decode(meta);
            }
        }
    }

    #[test]
    fn footers_round_trip() {
        let footer = Footer {
            recovered: true,
            chunks: 3,
            frames: 4,
            millis: 5,
            dropped: 6,
            index: vec![IndexEntry {
                offset: 7,
                number: 1,
                at: Span::from_millis(8),
            }],
        };
        let tail = FooterTail {
            digest: [1; 32],
            public_key: [2; 32],
            signature: [3; 64],
        };
        let mut bytes = footer.encode();
        bytes.extend(tail.encode(bytes.len()));
        assert_eq!(Footer::length(&bytes), Ok(Some(bytes.len())));
        assert_eq!(Footer::decode(&bytes), Ok((footer, tail)));
    }

    #[test]
    fn lengths_are_bounded_before_waiting_for_them() {
        let head = [&MAGIC[..], &[0, 1, 1], &[0xff; 4]].concat();
        assert!(Head::decode(&head).is_err());
        let mut footer = [0; FOOTER_FIXED];
        footer[FOOTER_FIXED - 4..].fill(0xff);
        assert!(Footer::length(&footer).is_err());
    }
}
