//! A recording as an iterator over the frames of any [`Read`].

use std::io::Read;

use thiserror::Error;

use crate::decode::{DecodeError, Decoded, Decoder, Ending};
use crate::format::Header;
use crate::frame::Timed;
use crate::key::{DataKey, Identity};

/// Why a recording stopped reading.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be read.
    #[error("the recording cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// Its content is not a recording, was changed, or is not for us.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// A recording that is being read. Iterating gives every whole frame; [`Recording::ending`] then tells how it ended.
#[derive(Debug)]
pub struct Recording<R> {
    pub(crate) source: R,
    buffer: Vec<u8>,
    pub(crate) decoder: Decoder,
    header: Header,
    pub(crate) done: bool,
}

impl<R: Read> Recording<R> {
    /// Reads the header and unwraps the key with the first of `identities` that fits.
    ///
    /// # Errors
    /// [`ReadError::Io`]; [`ReadError::Decode`] if this is no recording or no identity fits.
    pub fn open(source: R, identities: Vec<Identity>) -> Result<Self, ReadError> {
        Self::with(source, Decoder::new(identities))
    }

    /// Reads the header with a key that was lent.
    ///
    /// # Errors
    /// [`ReadError::Io`]; [`ReadError::Decode`] if this is no recording.
    pub fn with_key(source: R, key: DataKey) -> Result<Self, ReadError> {
        Self::with(source, Decoder::for_key(key))
    }

    fn with(mut source: R, mut decoder: Decoder) -> Result<Self, ReadError> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Some(Decoded::Header(header)) = decoder.next()? {
                return Ok(Self {
                    source,
                    buffer,
                    decoder,
                    header,
                    done: false,
                });
            }
            if !feed(&mut source, &mut buffer, &mut decoder)? {
                let what = "the header is not whole";
                return Err(DecodeError::Malformed { offset: 0, what }.into());
            }
        }
    }

    /// The facts of the session.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where the bytes come from.
    #[must_use]
    pub fn get_ref(&self) -> &R {
        &self.source
    }

    /// How the recording ends; meaningful once the iterator gave its last frame.
    #[must_use]
    pub fn ending(&self) -> Ending {
        self.decoder.ending()
    }

    fn advance(&mut self) -> Result<Option<Timed>, ReadError> {
        loop {
            match self.decoder.next()? {
                Some(Decoded::Frame(timed)) => return Ok(Some(timed)),
                Some(Decoded::Header(_) | Decoded::End(_)) => {}
                None if feed(&mut self.source, &mut self.buffer, &mut self.decoder)? => {}
                None => return Ok(None),
            }
        }
    }
}

impl<R: Read> Iterator for Recording<R> {
    type Item = Result<Timed, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let found = self.advance();
        self.done = !matches!(found, Ok(Some(_)));
        found.transpose()
    }
}

/// Feeds the next bytes of `source`; false at its end.
fn feed(source: &mut impl Read, buffer: &mut [u8], decoder: &mut Decoder) -> std::io::Result<bool> {
    let count = source.read(buffer)?;
    decoder.feed(buffer.get(..count).unwrap_or_default());
    Ok(count > 0)
}
