//! A program's streams: pipes, or one end of a terminal.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep};

use super::{Exit, QUIET};

/// Our end of a program's terminal.
#[derive(Debug)]
pub(super) struct Master(AsyncFd<OwnedFd>);

impl Master {
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&descriptor, FcntlArg::F_GETFL)?);
        fcntl(&descriptor, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self(crate::sys::register(descriptor)?))
    }

    /// The group that the terminal's keys go to.
    pub(super) fn foreground(&self) -> Option<Pid> {
        nix::unistd::tcgetpgrp(self)
            .ok()
            .filter(|group| group.as_raw() > 1)
    }

    /// The kernel says EIO when nobody has the terminal open any more: that is its end of file.
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let unfilled = buffer.initialize_unfilled();
            let read = ready.try_io(|master| Ok(nix::unistd::read(master, unfilled)?));
            match read {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() != io::ErrorKind::Interrupted => {
                    return Poll::Ready(Err(error));
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match ready.try_io(|master| Ok(nix::unistd::write(master, bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => return Poll::Ready(written),
                Err(_) => {}
            }
        }
    }
}

impl AsFd for Master {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a program reads.
#[derive(Debug)]
pub struct Input(Sink);

#[derive(Debug)]
enum Sink {
    Pipe(Option<ChildStdin>),
    Terminal(Arc<Master>),
}

impl Input {
    pub(super) const fn pipe(pipe: ChildStdin) -> Self {
        Self(Sink::Pipe(Some(pipe)))
    }

    pub(super) const fn terminal(master: Arc<Master>) -> Self {
        Self(Sink::Terminal(master))
    }
}

impl AsyncWrite for Input {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Sink::Pipe(Some(pipe)) => Pin::new(pipe).poll_write(cx, bytes),
            Sink::Pipe(None) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Sink::Terminal(master) => master.poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes a pipe. A terminal stays open: its reader is told of an end by a typed character, if at all.
    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Sink::Pipe(pipe) = &mut self.0 {
            pipe.take();
        }
        Poll::Ready(Ok(()))
    }
}

/// What a program writes. Ends at end of file; or, once the program has exited, when nothing came for [`QUIET`]
/// although a background child still has it open.
pub struct Output {
    source: Source,
    ending: Ending,
}

enum Source {
    Stdout(ChildStdout),
    Stderr(ChildStderr),
    Terminal(Arc<Master>),
}

/// How near the end of the output is.
enum Ending {
    Running(Pin<Box<dyn Future<Output = ()> + Send + Sync>>),
    Exited(Pin<Box<Sleep>>),
    Over,
}

impl Output {
    pub(super) fn stdout(pipe: ChildStdout, exit: watch::Receiver<Option<Exit>>) -> Self {
        Self::new(Source::Stdout(pipe), exit)
    }

    pub(super) fn stderr(pipe: ChildStderr, exit: watch::Receiver<Option<Exit>>) -> Self {
        Self::new(Source::Stderr(pipe), exit)
    }

    pub(super) fn terminal(master: Arc<Master>, exit: watch::Receiver<Option<Exit>>) -> Self {
        Self::new(Source::Terminal(master), exit)
    }

    fn new(source: Source, mut exit: watch::Receiver<Option<Exit>>) -> Self {
        // A lost status is an exit too.
        let exited = async move { drop(exit.wait_for(Option::is_some).await) };
        Self {
            source,
            ending: Ending::Running(Box::pin(exited)),
        }
    }
}

impl Source {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Stdout(pipe) => Pin::new(pipe).poll_read(cx, buffer),
            Self::Stderr(pipe) => Pin::new(pipe).poll_read(cx, buffer),
            Self::Terminal(master) => master.poll_read(cx, buffer),
        }
    }
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if matches!(self.ending, Ending::Over) || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        if let Poll::Ready(read) = self.source.poll_read(cx, buffer) {
            if read.is_ok() && buffer.filled().len() == before {
                self.ending = Ending::Over;
            } else if let Ending::Exited(quiet) = &mut self.ending {
                quiet.as_mut().reset(Instant::now() + QUIET);
            }
            return Poll::Ready(read);
        }
        loop {
            match &mut self.ending {
                Ending::Running(exited) => {
                    ready!(exited.as_mut().poll(cx));
                    self.ending = Ending::Exited(Box::pin(sleep(QUIET)));
                }
                Ending::Exited(quiet) => {
                    ready!(quiet.as_mut().poll(cx));
                    self.ending = Ending::Over;
                }
                Ending::Over => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = match &self.source {
            Source::Stdout(_) => "stdout",
            Source::Stderr(_) => "stderr",
            Source::Terminal(_) => "terminal",
        };
        f.debug_tuple("Output").field(&stream).finish()
    }
}
