//! An SFTP server, version 3 (draft-ietf-secsh-filexfer-02) with the extensions OpenSSH's clients use
//! (its `PROTOCOL` file, section 4), over any stream, as the user this process runs as.
//!
//! Packets are coded by `russh-sftp`, but for the two that carry data; the loop around them is ours. Three parties work at once: one reads
//! requests ahead, a thread does the file operations in the order they came, one writes replies and flushes when
//! none is waiting. The library's own loop would take one request at a time, flush each reply, spin on a broken
//! stream, and not say when it ended.
//!
//! A limit that comes from the library: names are UTF-8. A name that is not is refused and never guessed at.

mod attributes;
mod handles;
mod operations;
mod refusal;

use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::mpsc;

use self::operations::Server;

/// Longest packet either side may send, in bytes, as OpenSSH has it.
pub const MAX_PACKET: u32 = 256 * 1024;
/// Most bytes one read gives or one write takes: a packet less room for its head.
pub const MAX_DATA: u32 = MAX_PACKET - 1024;
/// Most files and directories open at a time.
pub const MAX_HANDLES: usize = 1024;
/// How many requests are read ahead, and how many replies may wait: at most 4 MiB each.
const PIPELINE: usize = 16;
/// Small packets are gathered up to this many bytes.
const BUFFER: usize = 64 * 1024;

/// Why a server ended before its client did.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SftpError {
    /// The stream failed.
    #[error("the SFTP stream failed: {source}")]
    Stream {
        /// What the system said.
        #[from]
        source: io::Error,
    },
    /// A packet is empty or longer than [`MAX_PACKET`].
    #[error("an SFTP packet of {length} bytes: expected 1 to {MAX_PACKET}")]
    Length {
        /// Its length as announced.
        length: u32,
    },
    /// The stream ended within a packet.
    #[error("the SFTP stream ended within a packet")]
    Truncated,
    /// The first packet is not the client's version, or no version that this server speaks.
    #[error("the client did not begin with SFTP version 3 or later")]
    Version,
    /// A reply could not be encoded.
    #[error("an SFTP reply could not be encoded: {message}")]
    Encoding {
        /// What the library said.
        message: String,
    },
    /// The thread for file operations ended by itself.
    #[error("the SFTP file operations stopped")]
    Stopped,
}

/// How to serve.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where relative paths begin: the login's home.
    pub start: PathBuf,
    /// Whether everything that changes a file is refused.
    pub read_only: bool,
}

impl Options {
    /// Reading and writing, relative paths beginning in `start`.
    #[must_use]
    pub const fn new(start: PathBuf) -> Self {
        Self {
            start,
            read_only: false,
        }
    }

    /// Reading only.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }
}

/// Serves one client until it ends the stream. Open files are closed when this returns.
///
/// File operations block and run on a thread of their own; if the returned future is dropped, the thread ends after
/// the operation it is in.
///
/// # Errors
/// An [`SftpError`] if the stream fails or the client breaks the protocol's framing. Failing file operations are
/// replies to the client and no error here.
pub async fn serve<S>(stream: S, options: Options) -> Result<(), SftpError>
where
    S: AsyncRead + AsyncWrite + Send,
{
    let (input, output) = tokio::io::split(stream);
    let (requests, mut waiting) = mpsc::channel::<Vec<u8>>(PIPELINE);
    let (replies, finished) = mpsc::channel::<Vec<u8>>(PIPELINE);
    let worker = tokio::task::spawn_blocking(move || {
        let mut server = Server::new(options);
        while let Some(request) = waiting.blocking_recv() {
            let mut reply = Vec::new();
            server.answer(&request, &mut reply)?;
            if replies.blocking_send(reply).is_err() {
                break;
            }
        }
        Ok::<(), SftpError>(())
    });
    let (read, written) = tokio::join!(
        read_requests(input, requests),
        write_replies(output, finished)
    );
    // What stopped the thread stopped the other two, so its reason comes first.
    worker.await.map_err(|_| SftpError::Stopped)??;
    written?;
    read
}

/// As [`serve`], on the calling thread and with no runtime: the fastest way for a process that does nothing else,
/// with its standard input and output. Requests that arrived together are answered together.
///
/// # Errors
/// As [`serve`].
pub fn serve_blocking(
    input: impl Read,
    output: impl Write,
    options: Options,
) -> Result<(), SftpError> {
    let mut input = io::BufReader::with_capacity(BUFFER, input);
    let mut output = io::BufWriter::with_capacity(BUFFER, output);
    let mut server = Server::new(options);
    let (mut request, mut reply) = (Vec::new(), Vec::new());
    while !input.fill_buf()?.is_empty() {
        let mut length = [0; 4];
        input.read_exact(&mut length).map_err(truncated)?;
        let length = packet_length(length)?;
        if request.len() < length {
            request.resize(length, 0);
        }
        let packet = request.get_mut(..length).unwrap_or_default();
        input.read_exact(packet).map_err(truncated)?;
        server.answer(packet, &mut reply)?;
        output.write_all(&reply)?;
        if input.buffer().is_empty() {
            output.flush()?;
        }
    }
    output.flush()?;
    Ok(())
}

/// Ends at end of file, or when nobody takes requests any more.
async fn read_requests(
    input: impl AsyncRead + Unpin,
    requests: mpsc::Sender<Vec<u8>>,
) -> Result<(), SftpError> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    loop {
        let request = tokio::select! {
            request = read_packet(&mut input) => request?,
            () = requests.closed() => return Ok(()),
        };
        let Some(request) = request else {
            return Ok(());
        };
        if requests.send(request).await.is_err() {
            return Ok(());
        }
    }
}

/// One packet without its length; none at end of file.
async fn read_packet(input: &mut (impl AsyncRead + Unpin)) -> Result<Option<Vec<u8>>, SftpError> {
    let mut length = [0; 4];
    if input.read(length.get_mut(..1).unwrap_or_default()).await? == 0 {
        return Ok(None);
    }
    let rest = length.get_mut(1..).unwrap_or_default();
    input.read_exact(rest).await.map_err(truncated)?;
    let mut packet = vec![0; packet_length(length)?];
    input.read_exact(&mut packet).await.map_err(truncated)?;
    Ok(Some(packet))
}

/// The announced length of a packet, if it is within bounds.
fn packet_length(length: [u8; 4]) -> Result<usize, SftpError> {
    let length = u32::from_be_bytes(length);
    if !(1..=MAX_PACKET).contains(&length) {
        return Err(SftpError::Length { length });
    }
    usize::try_from(length).map_err(|_| SftpError::Length { length })
}

fn truncated(error: io::Error) -> SftpError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return SftpError::Truncated;
    }
    SftpError::from(error)
}

/// Ends when there will be no more replies. Replies that wait go out together.
async fn write_replies(
    output: impl AsyncWrite + Unpin,
    mut replies: mpsc::Receiver<Vec<u8>>,
) -> Result<(), SftpError> {
    let mut output = BufWriter::with_capacity(BUFFER, output);
    while let Some(reply) = replies.recv().await {
        output.write_all(&reply).await?;
        if replies.is_empty() {
            output.flush().await?;
        }
    }
    output.shutdown().await?;
    Ok(())
}
