//! Composition for the recording proxy: journal, sink and signature, in the order that loses nothing. Runtime-free.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use ed25519_dalek::Signer as _;
use mezite_core::{SessionId, UnixTime};
use rand_core::CryptoRng;
use thiserror::Error;

use crate::decode::{DecodeError, Decoder, Piece, Scanner};
use crate::encode::{Closing, EncodeError, Journal, Summary, Unsigned};
use crate::format::Header;
use crate::frame::Frame;
use crate::key::Recipient;
use crate::sink::{Part, Sink, SinkError};
use crate::wire::length;

/// Bytes read from the sink at once while sealing.
const PIECE: usize = 256 * 1024;

/// Who signs finished recordings with an Ed25519 key (RFC 8032). The cluster's signing key fits with two lines.
pub trait Signer: Send + Sync + std::fmt::Debug {
    /// The public half, which verifiers trust.
    fn public_key(&self) -> [u8; 32];

    /// Signs `message`, which begins with a label of this format.
    ///
    /// # Errors
    /// [`SignError`] when the key cannot be used.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError>;
}

impl Signer for ed25519_dalek::SigningKey {
    fn public_key(&self) -> [u8; 32] {
        self.verifying_key().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        self.try_sign(message)
            .map(|signature| signature.to_bytes())
            .map_err(|error| SignError(error.to_string()))
    }
}

/// Why a key could not sign, in words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the recording cannot be signed: {0}")]
#[expect(clippy::exhaustive_structs, reason = "signers build it")]
pub struct SignError(pub String);

/// Why something was not recorded. What the user would see next must not be shown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The store of recordings refused or failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A frame or the header cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The journal does not read back as it was written.
    #[error("the journal does not read back: {0}")]
    Journal(#[from] DecodeError),
    /// The journal reads back with fewer or more frames than were written.
    #[error("the journal holds {found} frames where {written} were written")]
    Lost {
        /// Frames that the recorder wrote.
        written: u64,
        /// Frames that the sink gave back.
        found: u64,
    },
    /// The signature was refused. The journal stays and can be recovered.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// An earlier call failed or was given up half-way: the end of the journal is unknown.
    #[error("recording failed before and cannot go on")]
    Broken,
}

/// Records one session.
///
/// Whoever drops a recorder without [`Recorder::finish`] leaves a journal that [`recover`] closes.
#[derive(Debug)]
pub struct Recorder {
    sink: Arc<dyn Sink>,
    signer: Arc<dyn Signer>,
    id: SessionId,
    started: UnixTime,
    journal: Journal,
    /// Bytes that the sink has for certain.
    written: u64,
    /// What is to be written next, or could not be.
    buffer: Vec<u8>,
    broken: bool,
}

impl Recorder {
    /// Begins a recording: its journal is durable when the future gives the recorder.
    ///
    /// Randomness is drawn before the first await, so the future does not hold `rng` and is `Send`.
    ///
    /// # Errors
    /// [`RecordError::Encode`] without recipients, [`RecordError::Sink`] (also when the session has a recording).
    pub fn open(
        sink: Arc<dyn Sink>,
        header: &Header,
        recipients: &[Recipient],
        signer: Arc<dyn Signer>,
        rng: &mut dyn CryptoRng,
    ) -> impl Future<Output = Result<Self, RecordError>> + Send + use<> {
        let prepared = Journal::new(header, recipients, rng);
        let (id, started) = (header.session_id, header.started);
        async move {
            let (journal, head) = prepared?;
            sink.open(&id, &head).await?;
            Ok(Self {
                sink,
                signer,
                id,
                started,
                journal,
                written: length(&head),
                buffer: Vec::new(),
                broken: false,
            })
        }
    }

    /// Records what passed at `now`. Once this returns it is written, and may be shown.
    ///
    /// # Errors
    /// [`RecordError::Sink`]; from then on, or when the future is dropped before its end, [`RecordError::Broken`], until
    /// [`Recorder::retry`] has written it.
    pub async fn record(&mut self, now: UnixTime, frame: Frame) -> Result<(), RecordError> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(RecordError::Broken);
        }
        self.buffer.clear();
        let pushed = self
            .journal
            .push(now.since(self.started), frame, &mut self.buffer);
        if let Err(error) = pushed {
            // Half a frame is nothing to write again.
            self.buffer.clear();
            return Err(error.into());
        }
        self.sink.append(&self.id, &self.buffer).await?;
        self.wrote();
        Ok(())
    }

    fn wrote(&mut self) {
        self.written += length(&self.buffer);
        self.buffer.clear();
        // An idle session keeps no large buffer.
        self.buffer.shrink_to(KEPT_BUFFER);
        self.broken = false;
    }

    /// Writes again what [`Recorder::record`] could not, and goes on from there. What the sink has of it already, stays.
    /// Nothing to do where nothing failed.
    ///
    /// # Errors
    /// [`RecordError::Sink`], and it may be tried again; [`RecordError::Broken`] where the sink holds something else than
    /// was written.
    pub async fn retry(&mut self) -> Result<(), RecordError> {
        if !self.broken {
            return Ok(());
        }
        let there = self.sink.length(&self.id, Part::Journal).await?;
        let done = there.checked_sub(self.written);
        let done = done.and_then(|done| usize::try_from(done).ok());
        let rest = done.and_then(|done| self.buffer.get(done..));
        let rest = rest
            .filter(|_| !self.buffer.is_empty())
            .ok_or(RecordError::Broken)?;
        if !rest.is_empty() {
            self.sink.append(&self.id, rest).await?;
        }
        self.wrote();
        Ok(())
    }

    /// Makes what was recorded survive a power cut. To be called every second while something is recorded.
    ///
    /// # Errors
    /// [`RecordError::Sink`].
    pub async fn sync(&self) -> Result<(), RecordError> {
        Ok(self.sink.sync(&self.id).await?)
    }

    /// The session.
    #[must_use]
    pub fn session_id(&self) -> &SessionId {
        &self.id
    }

    /// Frames recorded so far.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.journal.frames()
    }

    /// Ends the session at `now`: re-cuts the journal, signs, and replaces it by the sealed file.
    ///
    /// Costs up to three times the processor time of recording; it yields between pieces, so that others get their turn.
    ///
    /// # Errors
    /// Any [`RecordError`]. Then the journal stays and [`recover`] can close it.
    pub async fn finish(self, now: UnixTime) -> Result<Summary, RecordError> {
        if self.broken {
            return Err(RecordError::Broken);
        }
        self.sink.sync(&self.id).await?;
        let written = self.journal.frames();
        let duration = now.since(self.started);
        let (key, mut recut) = self.journal.into_recut();
        let mut decoder = Decoder::for_key(key);
        let mut source = Source::new(self.sink.as_ref(), self.id);
        let mut staging = Staging::new(self.sink.as_ref(), self.id);
        let mut found = 0;
        while let Some(piece) = source.next().await? {
            decoder.feed(&piece);
            while let Some((meta, mut chunk)) = decoder.next_chunk()? {
                found += u64::from(meta.frames);
                if recut.keeps(&meta) {
                    recut.keep(meta, &mut chunk, &mut staging.buffer)?;
                    continue;
                }
                let mut frames = decoder.frames(meta, chunk)?;
                while let Some(timed) = frames.next()? {
                    recut.push(&timed, &mut staging.buffer)?;
                }
            }
            staging.flush().await?;
        }
        if found != written {
            return Err(RecordError::Lost { written, found });
        }
        let unsigned = recut.finish(duration, &mut staging.buffer)?;
        staging.close(unsigned, self.signer.as_ref()).await
    }
}

/// What a recorder keeps allocated between calls: an interactive session stays below.
const KEPT_BUFFER: usize = 40 * 1024;

/// Closes a journal whose recorder died, without its data key: whole chunks stay as they are, an unfinished one is left
/// out and its length stated, and the file says `recovered`.
///
/// # Errors
/// [`RecordError::Journal`] if not even the header is whole, [`RecordError::Sink`], [`RecordError::Sign`]. The journal
/// then stays.
pub async fn recover(
    sink: &dyn Sink,
    id: SessionId,
    signer: &dyn Signer,
) -> Result<Summary, RecordError> {
    let mut source = Source::new(sink, id);
    let mut staging = Staging::new(sink, id);
    let mut scanner = Scanner::default();
    let mut closing = Closing::new(true);
    while let Some(piece) = source.next().await? {
        scanner.feed(&piece);
        loop {
            match scanner.next() {
                Ok(Some(Piece::Head { raw, .. })) => closing.pass(&raw, &mut staging.buffer),
                Ok(Some(Piece::Chunk { meta, raw })) => {
                    closing.chunk(&meta, &raw, &mut staging.buffer);
                }
                Ok(None) => break,
                // Behind the first unreadable byte nothing can be told apart: it is counted as dropped.
                Err(error) if scanner.offset() == 0 => return Err(error.into()),
                Ok(Some(Piece::Footer { .. })) | Err(_) => {
                    let dropped = source.length().await? - scanner.offset();
                    let unsigned = closing.finish(dropped, &mut staging.buffer);
                    return staging.close(unsigned, signer).await;
                }
            }
        }
        staging.flush().await?;
    }
    if scanner.offset() == 0 {
        let what = "the header is not whole";
        return Err(DecodeError::Malformed { offset: 0, what }.into());
    }
    let unsigned = closing.finish(scanner.left(), &mut staging.buffer);
    staging.close(unsigned, signer).await
}

/// Reads a journal piece by piece.
struct Source<'a> {
    sink: &'a dyn Sink,
    id: SessionId,
    offset: u64,
}

impl<'a> Source<'a> {
    fn new(sink: &'a dyn Sink, id: SessionId) -> Self {
        Self {
            sink,
            id,
            offset: 0,
        }
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        yield_once().await;
        let piece = self
            .sink
            .read(&self.id, Part::Journal, self.offset, PIECE)
            .await?;
        self.offset += length(&piece);
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// The length of the whole journal.
    async fn length(&mut self) -> Result<u64, SinkError> {
        while self.next().await?.is_some() {}
        Ok(self.offset)
    }
}

/// Writes a sealed file piece by piece.
struct Staging<'a> {
    sink: &'a dyn Sink,
    id: SessionId,
    offset: u64,
    buffer: Vec<u8>,
}

impl<'a> Staging<'a> {
    fn new(sink: &'a dyn Sink, id: SessionId) -> Self {
        Self {
            sink,
            id,
            offset: 0,
            buffer: Vec::new(),
        }
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        if !self.buffer.is_empty() {
            self.sink.stage(&self.id, self.offset, &self.buffer).await?;
            self.offset += length(&self.buffer);
            self.buffer.clear();
        }
        Ok(())
    }

    async fn close(
        mut self,
        unsigned: Unsigned,
        signer: &dyn Signer,
    ) -> Result<Summary, RecordError> {
        let signature = signer.sign(&unsigned.message())?;
        let summary = unsigned.sign(signer.public_key(), signature, &mut self.buffer);
        self.flush().await?;
        self.sink.finish(&self.id).await?;
        Ok(summary)
    }
}

/// Gives the executor one turn for other tasks.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
