//! A recording on its way from the hub: bytes arrive, frames leave. It is decrypted and checked here, with the key that
//! the hub lent for this one recording, or with one of the reader's own.

use std::io::{self, IsTerminal, Read};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mezite_api::v1::hub_client::HubClient;
use mezite_api::v1::read_recording_response::Part;
use mezite_api::v1::{ReadRecordingRequest, ReadRecordingResponse, Recording as Recorded};
use mezite_core::{Secret, SessionId};
use mezite_record::{DataKey, Identity, Recording};
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::call::within;
use crate::fail::Failure;

/// How many pieces may wait to be read.
const WAITING: usize = 16;

/// A recording that the hub gives out.
#[derive(Debug)]
pub struct Opened {
    key: Vec<u8>,
    facts: Recorded,
    answers: Streaming<ReadRecordingResponse>,
}

/// Asks the hub for a recording as it is now.
///
/// # Errors
/// What the hub says.
pub async fn open(client: &mut HubClient<Channel>, id: SessionId) -> Result<Opened, Failure> {
    request(client, id, false).await
}

/// Asks the hub for a recording that goes on while its session does.
///
/// # Errors
/// What the hub says.
pub async fn follow(client: &mut HubClient<Channel>, id: SessionId) -> Result<Opened, Failure> {
    request(client, id, true).await
}

async fn request(
    client: &mut HubClient<Channel>,
    id: SessionId,
    follow: bool,
) -> Result<Opened, Failure> {
    let session_id = id.to_string();
    let request = ReadRecordingRequest { session_id, follow };
    let mut answers = within(client.read_recording(request)).await?;
    let first = answers.message().await?.and_then(|answer| answer.part);
    let Some(Part::Facts(facts)) = first else {
        return Err(Failure::failed(
            "the hub's answer does not begin with the facts of the recording",
        ));
    };
    Ok(Opened {
        key: facts.data_key,
        facts: facts.recording.unwrap_or_default(),
        answers,
    })
}

impl Opened {
    /// Bytes of the file when it was opened.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.facts.bytes
    }

    /// Whether the session is over and its file finished.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.facts.sealed
    }

    /// Reads the frames with `work`, which runs beside the download. Opened with the key that the hub lent, or with
    /// `identities` where there are any.
    ///
    /// # Errors
    /// What `work` or the hub says, or that the recording does not open.
    pub async fn read_frames<T: Send + 'static>(
        mut self,
        identities: Vec<Identity>,
        progress: ProgressBar,
        work: impl FnOnce(Recording<Pulled>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let key = std::mem::take(&mut self.key);
        if key.is_empty() && identities.is_empty() {
            return Err(Failure::failed(
                "the hub cannot open this recording: only its recipients can, with --identity KEY",
            ));
        }
        let key = <[u8; 32]>::try_from(key);
        self.read_bytes(progress, move |pulled| {
            let opened = match key {
                _ if !identities.is_empty() => Recording::open(pulled, identities),
                Ok(key) => Recording::with_key(pulled, DataKey::from_bytes(Secret::new(key))),
                Err(_) => return Err(Failure::failed("the hub sent a key that is none")),
            };
            work(opened.map_err(Failure::failed)?)
        })
        .await
    }

    /// Reads the bytes of the file with `work`, which runs beside the download.
    ///
    /// # Errors
    /// What `work` or the hub says.
    pub async fn read_bytes<T: Send + 'static>(
        self,
        progress: ProgressBar,
        work: impl FnOnce(Pulled) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let Self { mut answers, .. } = self;
        let (sender, receiver) = mpsc::channel(WAITING);
        let bar = progress.clone();
        let reading = tokio::task::spawn_blocking(move || {
            work(Pulled {
                receiver,
                piece: Vec::new(),
                at: 0,
                taken: 0,
                progress: bar,
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
        let read = reading.await.map_err(Failure::failed)?;
        progress.finish_and_clear();
        read
    }
}

/// A bar on standard error that counts bytes: only where a person sees it and nothing else is written there.
#[must_use]
pub fn progress(bytes: u64, writes_to_stdout: bool) -> ProgressBar {
    let hidden = writes_to_stdout && io::stdout().is_terminal();
    let target = if hidden {
        ProgressDrawTarget::hidden()
    } else {
        // Hides itself where standard error is no terminal.
        ProgressDrawTarget::stderr()
    };
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}, {eta} left");
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// No bar: something else is shown.
#[must_use]
pub fn no_progress() -> ProgressBar {
    ProgressBar::hidden()
}

/// The bytes that were downloaded, for a thread that reads.
#[derive(Debug)]
pub struct Pulled {
    receiver: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    taken: u64,
    progress: ProgressBar,
}

impl Pulled {
    /// How many bytes were read from it.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }
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
        self.taken = self
            .taken
            .saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        self.progress.set_position(self.taken);
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
            taken: 0,
            progress: ProgressBar::hidden(),
        };
        let mut small = [0; 3];
        assert_eq!(pulled.read(&mut small).unwrap(), 2);
        let mut rest = String::new();
        pulled.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), pulled.taken()), ("cdefgh", 8));
    }
}
