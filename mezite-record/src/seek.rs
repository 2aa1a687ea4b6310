//! Reading a finished recording from any time on, without what lies before: by the index in its footer.

use std::io::{Read, Seek, SeekFrom};

use mezite_core::Span;

use crate::decode::{DecodeError, Decoder};
use crate::format::{END, FOOTER_FIXED, FOOTER_TAIL, Footer, IndexEntry, TAG};
use crate::read::{ReadError, Recording};
use crate::wire::Malformed;

/// Bytes of the length and the end mark that close a file.
const CLOSE: u64 = 12;
/// Longest footer: a full index.
const MAX_FOOTER: u64 = 26 * 1024 * 1024;

impl<R: Read + Seek> Recording<R> {
    /// Goes to the last indexed place that is not after `to`: the next frame is at most one step of the index (256 KiB of
    /// file) before it. The chunks from there on are authenticated as ever; that they are at their place in the file is
    /// what the index says, and [`verify`](crate::verify()) proves.
    ///
    /// # Errors
    /// [`DecodeError::Unindexed`] for a recording without a footer, which is read from its start; [`ReadError`].
    pub fn seek(&mut self, to: Span) -> Result<(), ReadError> {
        let index = footer(&mut self.source)?.index;
        let after = index.partition_point(|entry| entry.at <= to);
        let Some(entry) = index.get(after.saturating_sub(1)) else {
            return Err(DecodeError::Unindexed.into());
        };
        let previous = self.tag_before(entry)?;
        self.source.seek(SeekFrom::Start(entry.offset))?;
        self.decoder.jump(entry, previous)?;
        self.done = false;
        Ok(())
    }

    /// The tag that the chunk at `entry` is chained to.
    fn tag_before(&mut self, entry: &IndexEntry) -> Result<[u8; TAG], ReadError> {
        let mut tag = [0; TAG];
        if entry.number > 0 {
            let at = entry
                .offset
                .checked_sub(16)
                .ok_or(DecodeError::Inconsistent)?;
            self.source.seek(SeekFrom::Start(at))?;
            self.source.read_exact(&mut tag)?;
        }
        Ok(tag)
    }
}

/// The footer of a file. Nothing vouches for it before [`verify`](crate::verify()) was run.
fn footer(source: &mut (impl Read + Seek)) -> Result<Footer, ReadError> {
    let length = source.seek(SeekFrom::End(0))?;
    let unindexed = || ReadError::from(DecodeError::Unindexed);
    let close = length.checked_sub(CLOSE).ok_or_else(unindexed)?;
    source.seek(SeekFrom::Start(close))?;
    let (mut footer_length, mut end) = ([0; 4], [0; 8]);
    source.read_exact(&mut footer_length)?;
    source.read_exact(&mut end)?;
    let footer_length = u64::from(u32::from_be_bytes(footer_length));
    let shortest = u64::try_from(FOOTER_FIXED + FOOTER_TAIL).unwrap_or(u64::MAX);
    if end != END || !(shortest..=MAX_FOOTER).contains(&footer_length) {
        return Err(unindexed());
    }
    let start = length.checked_sub(footer_length).ok_or_else(unindexed)?;
    source.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    source.take(footer_length).read_to_end(&mut bytes)?;
    let (footer, _) = Footer::decode(&bytes).map_err(|Malformed(what)| DecodeError::Malformed {
        offset: start,
        what,
    })?;
    Ok(footer)
}

impl Decoder {
    /// Goes on at the chunk of this entry, which is chained to the tag `previous`.
    fn jump(&mut self, entry: &IndexEntry, previous: [u8; TAG]) -> Result<(), DecodeError> {
        self.scanner
            .jump(entry.offset, entry.number, entry.at.as_millis());
        let opening = self.opening.as_mut().ok_or(DecodeError::Inconsistent)?;
        (opening.number, opening.previous) = (entry.number, previous);
        (self.chunk, self.ending, self.failed) = (None, None, None);
        Ok(())
    }
}
