//! RFC 5424 over TCP or TLS, with octet counting.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use mezite_audit::sink::syslog;
use mezite_audit::{Batch, Sink, SinkError};
use mezite_net::ByteStream;
use mezite_net::tls::Outside;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::failed;

/// How long a receiver may take for one batch.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much a receiver may say: syslog is one-way, so anything is too much, but harmless.
const ANSWER: usize = 64 * 1024;

/// Sends events to a syslog receiver, each batch over a connection of its own.
#[derive(Debug)]
pub struct Syslog {
    way: Outside,
    host: String,
    port: u16,
    hostname: String,
}

impl Syslog {
    /// A sink towards `host:port` by `way`, which calls itself `hostname`.
    #[must_use]
    pub fn new(way: Outside, host: String, port: u16, hostname: String) -> Self {
        Self {
            way,
            host,
            port,
            hostname,
        }
    }

    async fn send(&self, frames: &[u8]) -> Result<(), SinkError> {
        let mut stream = self
            .way
            .connect(&self.host, self.port)
            .await
            .map_err(failed)?;
        let lost = |error: std::io::Error| {
            failed(format_args!(
                "{}:{} broke the connection: {error}",
                self.host, self.port
            ))
        };
        stream.write_all(frames).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;
        if has_ended(&mut stream).await {
            return Err(lost(std::io::ErrorKind::UnexpectedEof.into()));
        }
        stream.shutdown().await.map_err(lost)?;
        // The end of its stream says that it has read to the end of ours.
        let mut answer = vec![0; 1024];
        let mut told = 0;
        loop {
            match stream.read(&mut answer).await {
                Ok(0) => return Ok(()),
                Ok(count) => told += count,
                Err(error) => return Err(lost(error)),
            }
            if told > ANSWER {
                return Err(failed("it answers at length: is it a syslog receiver?"));
            }
        }
    }
}

/// Whether the other side has closed already: then it has not read what was just sent.
async fn has_ended(stream: &mut Box<dyn ByteStream>) -> bool {
    let mut byte = [0; 1];
    std::future::poll_fn(|context| {
        let mut buffer = ReadBuf::new(&mut byte);
        let read = Pin::new(&mut *stream).poll_read(context, &mut buffer);
        Poll::Ready(match read {
            Poll::Ready(Ok(())) => buffer.filled().is_empty(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        })
    })
    .await
}

#[async_trait]
impl Sink for Syslog {
    async fn deliver(&self, batch: &Batch<'_>) -> Result<(), SinkError> {
        let mut frames = Vec::new();
        for event in batch.events {
            frames.extend(syslog::event(&self.hostname, &event.body));
        }
        if let Some(note) = batch.checkpoint {
            frames.extend(syslog::checkpoint(&self.hostname, note));
        }
        match tokio::time::timeout(PATIENCE, self.send(&frames)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(failed(format_args!(
                "{}:{} did not take a batch within {} seconds",
                self.host,
                self.port,
                PATIENCE.as_secs()
            ))),
        }
    }

    async fn acknowledged(&self) -> Result<u64, SinkError> {
        // The protocol has no way to ask.
        Ok(0)
    }
}
