//! A stream that can be cut from outside: the library's connection loop waits without bound for a peer that does not
//! read, and lives on when its handles are dropped.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::ByteStream;

/// How long a goodbye may take before the connection is cut.
const GOODBYE: Duration = Duration::from_millis(400);

/// Cuts the stream when dropped.
#[derive(Debug)]
pub(super) struct Cut {
    shared: Arc<Shared>,
    gone: watch::Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Cut {
    /// Says goodbye as `goodbye` does, and returns when the stream is closed, by the goodbye or by a cut.
    pub(super) async fn after(&self, goodbye: impl Future<Output = ()>) {
        let mut gone = self.gone.clone();
        let closing = async {
            goodbye.await;
            // Nothing is ever sent: the change is the stream's end.
            while gone.changed().await.is_ok() {}
        };
        if tokio::time::timeout(GOODBYE, closing).await.is_err() {
            self.now();
        }
    }

    fn now(&self) {
        self.shared.cut.store(true, Ordering::Release);
        self.shared.reader.wake();
        self.shared.writer.wake();
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.now();
    }
}

/// The stream.
#[derive(Debug)]
pub(super) struct Severable<S> {
    stream: S,
    shared: Arc<Shared>,
    _gone: watch::Sender<()>,
}

/// Makes `stream` severable.
pub(super) fn severable<S: ByteStream>(stream: S) -> (Severable<S>, Cut) {
    let shared = Arc::new(Shared::default());
    let (sender, gone) = watch::channel(());
    let stream = Severable {
        stream,
        shared: Arc::clone(&shared),
        _gone: sender,
    };
    (stream, Cut { shared, gone })
}

impl<S> Severable<S> {
    fn check(&self, waker: &AtomicWaker, cx: &Context<'_>) -> io::Result<()> {
        waker.register(cx.waker());
        if self.shared.cut.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl<S: ByteStream> AsyncRead for Severable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(&self.shared.reader, cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: ByteStream> AsyncWrite for Severable<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(&self.shared.writer, cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(&self.shared.writer, cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(&self.shared.writer, cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
