//! A recording on its way from the hub: bytes arrive, frames leave. It is decrypted and checked here, with the key that
//! the hub lent for this one recording.

use std::io::{self, Read};

use mezite_api::v1::read_recording_response::Part;
use mezite_api::v1::{ReadRecordingRequest, ReadRecordingResponse};
use mezite_core::{Secret, SessionId};
use mezite_record::{DataKey, Decoded, Decoder, Ending, Header, ReadError, Timed};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::fail::Failure;
use crate::hub::{Hub, within};

/// How many pieces may wait to be read.
const WAITING: usize = 16;

/// A recording that the hub opened for us.
pub(crate) struct Opened {
    key: Vec<u8>,
    answers: Streaming<ReadRecordingResponse>,
}

/// Asks the hub for a recording.
pub(crate) async fn open(hub: &mut Hub, id: SessionId) -> Result<Opened, Failure> {
    let session_id = id.to_string();
    let mut answers = within(
        hub.client
            .read_recording(ReadRecordingRequest { session_id }),
    )
    .await?;
    let first = answers.message().await?.and_then(|answer| answer.part);
    let Some(Part::Facts(facts)) = first else {
        return Err(Failure::failed(
            "the hub's answer does not begin with the facts of the recording",
        ));
    };
    let key = facts.data_key;
    Ok(Opened { key, answers })
}

impl Opened {
    /// Reads the frames with `work`, which runs beside the download.
    pub(crate) async fn read_frames<T: Send + 'static>(
        mut self,
        work: impl FnOnce(Frames<Pulled>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let key = std::mem::take(&mut self.key);
        if key.is_empty() {
            return Err(Failure::failed(
                "the hub cannot open this recording: only its recipients can, with `msh play --file`",
            ));
        }
        let key = <[u8; 32]>::try_from(key)
            .map_err(|_| Failure::failed("the hub sent a key that is none"))?;
        let key = DataKey::from_bytes(Secret::new(key));
        self.read_bytes(move |pulled| {
            work(Frames::open(pulled, Decoder::for_key(key)).map_err(Failure::failed)?)
        })
        .await
    }

    /// Reads the bytes of the file with `work`, which runs beside the download.
    pub(crate) async fn read_bytes<T: Send + 'static>(
        self,
        work: impl FnOnce(Pulled) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let Self { mut answers, .. } = self;
        let (sender, receiver) = mpsc::channel(WAITING);
        let reading = tokio::task::spawn_blocking(move || {
            work(Pulled {
                receiver,
                piece: Vec::new(),
                at: 0,
            })
        });
        while let Some(answer) = answers.message().await? {
            if let Some(Part::Data(data)) = answer.part
                && sender.send(data).await.is_err()
            {
                break;
            }
        }
        drop(sender);
        reading.await.map_err(Failure::failed)?
    }
}

/// The bytes that were downloaded, for a thread that reads.
pub(crate) struct Pulled {
    receiver: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pulled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.piece.len() {
            let Some(piece) = self.receiver.blocking_recv() else {
                return Ok(0);
            };
            (self.piece, self.at) = (piece, 0);
        }
        let mut left = self.piece.get(self.at..).unwrap_or_default();
        let count = left.read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

/// The frames of a recording.
pub(crate) struct Frames<R> {
    source: R,
    decoder: Decoder,
    buffer: Vec<u8>,
    header: Header,
    done: bool,
}

impl<R: Read> Frames<R> {
    fn open(mut source: R, mut decoder: Decoder) -> Result<Self, ReadError> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Some(Decoded::Header(header)) = decoder.next()? {
                return Ok(Self {
                    source,
                    decoder,
                    buffer,
                    header,
                    done: false,
                });
            }
            if !feed(&mut source, &mut buffer, &mut decoder)? {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// How the recording ends, once the last frame was read.
    pub(crate) fn ending(&self) -> Ending {
        self.decoder.ending()
    }

    fn advance(&mut self) -> Result<Option<Timed>, ReadError> {
        loop {
            match self.decoder.next()? {
                Some(Decoded::Frame(timed)) => return Ok(Some(timed)),
                Some(_) => {}
                None if feed(&mut self.source, &mut self.buffer, &mut self.decoder)? => {}
                None => return Ok(None),
            }
        }
    }
}

impl<R: Read> Iterator for Frames<R> {
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

/// Feeds the next bytes; false at the end.
fn feed(source: &mut impl Read, buffer: &mut [u8], decoder: &mut Decoder) -> io::Result<bool> {
    let count = source.read(buffer)?;
    decoder.feed(buffer.get(..count).unwrap_or_default());
    Ok(count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_are_read_as_one_stream() {
        let (sender, receiver) = mpsc::channel(4);
        for piece in [&b"ab"[..], b"", b"cdefg", b"h"] {
            sender.blocking_send(piece.to_vec()).unwrap();
        }
        drop(sender);
        let mut pulled = Pulled {
            receiver,
            piece: Vec::new(),
            at: 0,
        };
        let mut small = [0; 3];
        assert_eq!(pulled.read(&mut small).unwrap(), 2);
        let mut rest = String::new();
        pulled.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "cdefgh");
    }
}
