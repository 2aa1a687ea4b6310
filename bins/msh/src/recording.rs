//! A recording on its way from the hub: bytes arrive, frames leave. It is decrypted and checked here, with the key that
//! the hub lent for this one recording, or with one of the reader's own.

use std::io::{self, Read};

use indicatif::{ProgressBar, ProgressStyle};
use mezite_api::v1::read_recording_response::Part;
use mezite_api::v1::{ReadRecordingRequest, ReadRecordingResponse};
use mezite_core::{Secret, SessionId};
use mezite_record::{DataKey, Identity, ReadError, Recording};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::fail::Failure;
use crate::home::Login;
use crate::hub;

/// How many pieces may wait to be read.
const WAITING: usize = 16;

/// A recording that the hub gives out.
pub(crate) struct Opened {
    key: Vec<u8>,
    bytes: u64,
    answers: Streaming<ReadRecordingResponse>,
}

/// Asks the hub for a recording.
pub(crate) async fn open(login: &Login, id: SessionId) -> Result<Opened, Failure> {
    let mut client = hub::hub(login).await?;
    let session_id = id.to_string();
    let mut answers =
        hub::within(client.read_recording(ReadRecordingRequest { session_id })).await?;
    let first = answers.message().await?.and_then(|answer| answer.part);
    let Some(Part::Facts(facts)) = first else {
        return Err(Failure::failed(
            "the hub's answer does not begin with the facts of the recording",
        ));
    };
    Ok(Opened {
        key: facts.data_key,
        bytes: facts.recording.map_or(0, |recording| recording.bytes),
        answers,
    })
}

impl Opened {
    /// Reads the whole recording with `work`, which runs beside the download. Opened with the key that the hub lent, or
    /// with `identities` where there are any.
    pub(crate) async fn read<T: Send + 'static>(
        self,
        identities: Vec<Identity>,
        work: impl FnOnce(Recording<Pulled>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Failure> {
        if self.key.is_empty() && identities.is_empty() {
            return Err(Failure::failed(
                "the hub cannot open this recording: only its recipients can, with --identity KEY",
            ));
        }
        let key = <[u8; 32]>::try_from(self.key);
        let mut answers = self.answers;
        let (sender, receiver) = mpsc::channel(WAITING);
        let bar = progress(self.bytes);
        let pulled = Pulled {
            receiver,
            piece: Vec::new(),
            at: 0,
            progress: bar.clone(),
        };
        let reading = tokio::task::spawn_blocking(move || {
            let opened = match key {
                _ if !identities.is_empty() => Recording::open(pulled, identities),
                Ok(key) => Recording::with_key(pulled, DataKey::from_bytes(Secret::new(key))),
                Err(_) => return Err(Failure::failed("the hub sent a key that is none")),
            };
            opened.and_then(work).map_err(Failure::failed)
        });
        while let Some(answer) = answers.message().await? {
            if let Some(Part::Data(data)) = answer.part
                && sender.send(data).await.is_err()
            {
                break;
            }
        }
        drop(sender);
        let read = reading.await.map_err(Failure::failed)?;
        bar.finish_and_clear();
        read
    }
}

/// A bar on standard error that counts bytes; it hides itself where that is no terminal.
fn progress(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    match ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The bytes that were downloaded, for a thread that reads.
pub(crate) struct Pulled {
    receiver: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    progress: ProgressBar,
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
        self.progress.inc(u64::try_from(count).unwrap_or_default());
        Ok(count)
    }
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
            progress: ProgressBar::hidden(),
        };
        let mut small = [0; 3];
        assert_eq!(pulled.read(&mut small).unwrap(), 2);
        let mut rest = String::new();
        pulled.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "cdefgh");
    }
}
