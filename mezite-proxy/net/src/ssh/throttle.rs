//! Backpressure that cannot deadlock. The library has one loop per connection, which must never wait for anybody: two
//! connections that carry bulk both ways would wait for each other for ever.
//!
//! Reading: the library re-opens a channel's window on receipt and then waits for room in the channel's queue. So the
//! queues are made too long to fill, what lies in them is counted here, and above a limit the connection is not *read*,
//! which holds up nothing that leaves it. One thing must still be read then: the window that a blocked writer of the same
//! connection waits for. While there is such a writer, reading goes on up to a second, hard limit.
//!
//! Writing: what the socket does not take at once is kept here and sent while the loop waits for the next packet. The
//! windows of the other side bound it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes taken in and not yet taken up, above which a connection is not read.
const SOFT: usize = 1024 * 1024;

/// The same while a writer of the connection waits for window.
const HARD: usize = 16 * 1024 * 1024;

/// What a message costs besides its bytes, so that many small ones are counted too.
const OVERHEAD: usize = 128;

/// What one connection has taken in and nobody has taken up yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauge(Arc<State>);

#[derive(Debug, Default)]
struct State {
    queued: AtomicUsize,
    blocked: AtomicUsize,
    reader: AtomicWaker,
}

impl Gauge {
    /// A message with so many bytes was put into a channel's queue.
    pub(super) fn put(&self, bytes: usize) {
        self.0
            .queued
            .fetch_add(bytes.saturating_add(OVERHEAD), Ordering::AcqRel);
    }

    /// It was taken out.
    pub(super) fn take(&self, bytes: usize) {
        let cost = bytes.saturating_add(OVERHEAD);
        // A message can be taken before it is counted; the sum is right again right after.
        self.0.queued.fetch_sub(cost, Ordering::AcqRel);
        self.0.reader.wake();
    }

    /// Somebody waits for window until the guard is dropped.
    pub(super) fn block(&self) -> Blocked<'_> {
        self.0.blocked.fetch_add(1, Ordering::AcqRel);
        self.0.reader.wake();
        Blocked(self)
    }

    fn is_full(&self) -> bool {
        // Below zero for a moment looks like a very large number: nothing is queued then.
        let queued = self.0.queued.load(Ordering::Acquire);
        let queued = if queued > usize::MAX / 2 { 0 } else { queued };
        let limit = if self.0.blocked.load(Ordering::Acquire) > 0 {
            HARD
        } else {
            SOFT
        };
        queued > limit
    }
}

/// A writer that waits for window.
#[derive(Debug)]
pub(super) struct Blocked<'a>(&'a Gauge);

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.0.0.blocked.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Most bytes kept for a socket that takes none; windows bound what is sent long before.
const KEPT: usize = 64 * 1024 * 1024;

/// A stream that is read only while its gauge is below the limit, and that takes what is written at once.
#[derive(Debug)]
pub(super) struct Throttled<S> {
    stream: S,
    gauge: Gauge,
    kept: BytesMut,
    unflushed: bool,
}

impl<S> Throttled<S> {
    pub(super) fn new(stream: S, gauge: Gauge) -> Self {
        Self {
            stream,
            gauge,
            kept: BytesMut::new(),
            unflushed: false,
        }
    }
}

impl<S: AsyncWrite + Unpin> Throttled<S> {
    /// Sends what was kept, as far as the socket takes it now.
    fn send_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.kept))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept.advance(written);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Throttled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.send_kept(cx) {
            return Poll::Ready(Err(error));
        }
        if self.gauge.is_full() {
            self.gauge.0.reader.register(cx.waker());
            // Taken up between the look and the registration: nobody else would wake us.
            if self.gauge.is_full() {
                return Poll::Pending;
            }
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Throttled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.send_kept(cx)?.is_ready() {
            self.unflushed = true;
            if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, buf) {
                return Poll::Ready(written);
            }
        } else if self.kept.len() >= KEPT {
            return Poll::Pending;
        }
        self.kept.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    /// What is not flushed now goes with the next read.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.send_kept(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_kept(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn reads(stream: &mut Throttled<tokio::io::DuplexStream>) -> bool {
        tokio::time::timeout(Duration::from_millis(10), stream.read_u8())
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_connection_is_not_read_until_something_is_taken() {
        let (mut far, near) = tokio::io::duplex(64);
        let gauge = Gauge::default();
        let mut stream = Throttled::new(near, gauge.clone());
        far.write_all(b"abcdef").await.unwrap();
        assert!(reads(&mut stream).await);
        gauge.put(SOFT);
        assert!(!reads(&mut stream).await, "above the soft limit");
        let waiting = tokio::spawn(async move { (reads(&mut stream).await, stream) });
        tokio::task::yield_now().await;
        gauge.take(SOFT);
        let (read, mut stream) = waiting.await.unwrap();
        assert!(read, "woken by what was taken");
        gauge.put(SOFT);
        let blocked = gauge.block();
        assert!(
            reads(&mut stream).await,
            "a blocked writer needs its window"
        );
        gauge.put(HARD);
        assert!(!reads(&mut stream).await, "but not without bound");
        gauge.take(HARD);
        drop(blocked);
        assert!(
            !reads(&mut stream).await,
            "the writer goes on, the limit is the soft one again"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_takes_nothing_holds_up_no_writer_and_gets_it_all_later() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut stream = Throttled::new(near, Gauge::default());
        let sent: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let writing = async {
            stream.write_all(&sent).await.unwrap();
            stream.flush().await.unwrap();
        };
        tokio::time::timeout(Duration::from_millis(10), writing)
            .await
            .expect("never waits");
        // The loop goes on reading, which sends the rest.
        let reading = tokio::spawn(async move { stream.read_u8().await.unwrap() });
        let mut received = vec![0; sent.len()];
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(received, sent);
        far.write_u8(7).await.unwrap();
        assert_eq!(reading.await.unwrap(), 7);
    }
}
