//! A channel as two halves: a reader of [`Message`]s and a writer of them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use russh::{ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};
use tokio::io::AsyncWrite;
use tokio::sync::{Notify, mpsc};
use tokio_util::io::StreamReader;

use super::throttle::Gauge;
use super::{Message, Request, SshError, WindowSize, X11};
use crate::ByteStream;

/// The plain byte stream of a channel, for another protocol inside it: data only, everything else is passed over.
/// Dropped, it closes the channel.
pub(super) fn byte_stream<M>(
    reading: ChannelReadHalf,
    writing: ChannelWriteHalf<M>,
    gauge: Gauge,
) -> impl ByteStream + use<M>
where
    M: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    let reader = ChannelReader::new(reading, gauge);
    let pieces = futures_util::stream::unfold(reader, |mut reader| async {
        while let Some(message) = reader.next().await {
            match message {
                Message::Data(data) => return Some((Ok::<_, io::Error>(data), reader)),
                Message::Eof | Message::Close => return None,
                Message::ExtendedData(..)
                | Message::Request(_)
                | Message::Success
                | Message::Failure => {}
            }
        }
        None
    });
    let writer: Box<dyn AsyncWrite + Send> = Box::new(writing.make_writer());
    let writer = Closing {
        writer: Pin::from(writer),
        half: Some(writing),
    };
    tokio::io::join(StreamReader::new(Box::pin(pieces)), writer)
}

/// The writing end of a byte stream, which closes its channel when dropped: whoever is at the other end of a jump must
/// not wait for a connection that is gone.
struct Closing<M>
where
    M: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    writer: Pin<Box<dyn AsyncWrite + Send>>,
    half: Option<ChannelWriteHalf<M>>,
}

impl<M> Drop for Closing<M>
where
    M: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    fn drop(&mut self) {
        if let (Some(half), Ok(runtime)) = (self.half.take(), tokio::runtime::Handle::try_current())
        {
            // A connection that is gone needs no close.
            runtime.spawn(async move { drop(half.close().await) });
        }
    }
}

impl<M> AsyncWrite for Closing<M>
where
    M: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writer.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_shutdown(cx)
    }
}

/// A write that takes longer waits for the other side to take something up.
const PATIENCE: Duration = Duration::from_millis(5);

/// An open channel.
#[derive(Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "two halves, made to be taken apart"
)]
pub struct Channel {
    /// What the other side says.
    pub reader: ChannelReader,
    /// What we say.
    pub writer: ChannelWriter,
}

impl Channel {
    /// Puts the halves of one channel together.
    pub(super) fn new(mut reader: ChannelReader, writer: ChannelWriter) -> Self {
        reader.own_close = Arc::clone(&writer.own_close);
        Self { reader, writer }
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct ChannelReader {
    half: ChannelReadHalf,
    gauge: Gauge,
    /// Told when our side has closed the channel: the library forgets it then, and nothing more is received.
    own_close: Arc<Notify>,
    ended: bool,
}

impl ChannelReader {
    pub(super) fn new(half: ChannelReadHalf, gauge: Gauge) -> Self {
        Self {
            half,
            gauge,
            own_close: Arc::new(Notify::new()),
            ended: false,
        }
    }

    /// The next message; `None` after [`Message::Close`], which a lost connection and our own close give too.
    pub async fn next(&mut self) -> Option<Message> {
        if self.ended {
            return None;
        }
        loop {
            let message = tokio::select! {
                biased;
                message = self.half.wait() => message,
                () = self.own_close.notified() => None,
            };
            let Some(message) = message else {
                self.ended = true;
                return Some(Message::Close);
            };
            if let Some(message) = from_library(message) {
                if let Message::Data(data) | Message::ExtendedData(_, data) = &message {
                    self.gauge.take(data.len());
                }
                self.ended = message == Message::Close;
                return Some(message);
            }
        }
    }
}

/// The sending half. Data waits until the other side has given window for it.
#[derive(Debug)]
pub struct ChannelWriter {
    side: Side,
    gauge: Gauge,
    own_close: Arc<Notify>,
}

#[derive(Debug)]
enum Side {
    /// We accepted the channel: answers go through the connection's handler, in the order of the requests.
    Server {
        half: ChannelWriteHalf<russh::server::Msg>,
        handle: ServerHandle,
        answers: mpsc::UnboundedSender<bool>,
    },
    /// We opened the channel.
    Client {
        half: ChannelWriteHalf<russh::client::Msg>,
    },
}

/// The library's handle has no `Debug`.
pub(super) struct ServerHandle(pub(super) russh::server::Handle);

impl std::fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerHandle")
    }
}

impl ChannelWriter {
    pub(super) fn server(
        half: ChannelWriteHalf<russh::server::Msg>,
        handle: ServerHandle,
        answers: mpsc::UnboundedSender<bool>,
        gauge: Gauge,
    ) -> Self {
        let side = Side::Server {
            half,
            handle,
            answers,
        };
        Self::new(side, gauge)
    }

    pub(super) fn client(half: ChannelWriteHalf<russh::client::Msg>, gauge: Gauge) -> Self {
        Self::new(Side::Client { half }, gauge)
    }

    fn new(side: Side, gauge: Gauge) -> Self {
        Self {
            side,
            gauge,
            own_close: Arc::new(Notify::new()),
        }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`SshError::Closed`] when channel or connection is gone; [`SshError::Protocol`] for a message that this side
    /// cannot say (a server's `exit-status` from a client and the like).
    pub async fn send(&self, message: Message) -> Result<(), SshError> {
        let closes = message == Message::Close;
        let sent = self.pass(message).await;
        if closes {
            self.own_close.notify_one();
        }
        sent
    }

    async fn pass(&self, message: Message) -> Result<(), SshError> {
        match (&self.side, message) {
            (side, Message::Data(data)) => self.waiting(side.data(data)).await,
            (side, Message::ExtendedData(code, data)) => {
                self.waiting(side.extended_data(code, data)).await
            }
            (Side::Server { half, .. }, Message::Eof) => half.eof().await.map_err(SshError::from),
            (Side::Client { half }, Message::Eof) => half.eof().await.map_err(SshError::from),
            (Side::Server { half, .. }, Message::Close) => {
                half.close().await.map_err(SshError::from)
            }
            (Side::Client { half }, Message::Close) => half.close().await.map_err(SshError::from),
            (Side::Server { answers, .. }, Message::Success) => {
                answers.send(true).map_err(|_| SshError::Closed)
            }
            (Side::Server { answers, .. }, Message::Failure) => {
                answers.send(false).map_err(|_| SshError::Closed)
            }
            (Side::Server { half, handle, .. }, Message::Request(request)) => {
                server_request(half, handle, request).await
            }
            (Side::Client { half }, Message::Request(request)) => {
                client_request(half, request).await
            }
            (Side::Client { .. }, Message::Success | Message::Failure) => Ok(()),
        }
    }
}

impl ChannelWriter {
    /// Sends data; when that takes long enough to be a wait for window, the connection must go on reading.
    async fn waiting(
        &self,
        sending: impl Future<Output = Result<(), SshError>>,
    ) -> Result<(), SshError> {
        let mut sending = std::pin::pin!(sending);
        if let Ok(sent) = tokio::time::timeout(PATIENCE, &mut sending).await {
            return sent;
        }
        let _blocked = self.gauge.block();
        sending.await
    }
}

impl Side {
    async fn data(&self, data: Bytes) -> Result<(), SshError> {
        match self {
            Self::Server { half, .. } => half.data_bytes(data).await?,
            Self::Client { half } => half.data_bytes(data).await?,
        }
        Ok(())
    }

    async fn extended_data(&self, code: u32, data: Bytes) -> Result<(), SshError> {
        match self {
            Self::Server { half, .. } => half.extended_data_bytes(code, data).await?,
            Self::Client { half } => half.extended_data_bytes(code, data).await?,
        }
        Ok(())
    }
}

/// What a server may request of a client.
async fn server_request(
    half: &ChannelWriteHalf<russh::server::Msg>,
    handle: &ServerHandle,
    request: Request,
) -> Result<(), SshError> {
    match request {
        Request::ExitStatus(status) => half.exit_status(status).await.map_err(SshError::from),
        Request::ExitSignal {
            signal,
            core_dumped,
            message,
        } => handle
            .0
            .exit_signal_request(
                half.id(),
                signal_from(&signal),
                core_dumped,
                message,
                String::new(),
            )
            .await
            .map_err(|()| SshError::Closed),
        Request::Pty { .. }
        | Request::Shell
        | Request::Exec(_)
        | Request::Subsystem(_)
        | Request::Env { .. }
        | Request::Signal(_)
        | Request::WindowChange(_)
        | Request::AgentForward
        | Request::X11(_) => Err(SshError::Protocol(String::from(
            "a server cannot send this request",
        ))),
    }
}

/// What a client may request of a server. Answers are asked for where [`Request::is_answered`] says so.
async fn client_request(
    half: &ChannelWriteHalf<russh::client::Msg>,
    request: Request,
) -> Result<(), SshError> {
    match request {
        Request::Pty { term, size, modes } => {
            let modes: Vec<(Pty, u32)> = modes
                .into_iter()
                .filter_map(|(code, value)| Some((Pty::from_u8(code)?, value)))
                .collect();
            half.request_pty(
                true,
                &term,
                size.cols,
                size.rows,
                size.width,
                size.height,
                &modes,
            )
            .await?;
        }
        Request::Shell => half.request_shell(true).await?,
        Request::Exec(command) => half.exec(true, command).await?,
        Request::Subsystem(name) => half.request_subsystem(true, name).await?,
        Request::Env { name, value } => half.set_env(false, name, value).await?,
        Request::Signal(name) => half.signal(signal_from(&name)).await?,
        Request::WindowChange(size) => {
            half.window_change(size.cols, size.rows, size.width, size.height)
                .await?
        }
        Request::AgentForward => half.agent_forward(true).await?,
        Request::X11(x11) => {
            half.request_x11(true, x11.single, x11.protocol, x11.cookie, x11.screen)
                .await?
        }
        Request::ExitStatus(_) | Request::ExitSignal { .. } => {
            return Err(SshError::Protocol(String::from(
                "a client cannot send this request",
            )));
        }
    }
    Ok(())
}

/// `None` for what is no message of the channel but bookkeeping of the library.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what has no name here does not pass"
)]
fn from_library(message: ChannelMsg) -> Option<Message> {
    Some(match message {
        ChannelMsg::Data { data } => Message::Data(data),
        ChannelMsg::ExtendedData { data, ext } => Message::ExtendedData(ext, data),
        ChannelMsg::Eof => Message::Eof,
        ChannelMsg::Close => Message::Close,
        ChannelMsg::Success => Message::Success,
        ChannelMsg::Failure => Message::Failure,
        ChannelMsg::RequestPty {
            term,
            col_width,
            row_height,
            pix_width,
            pix_height,
            terminal_modes,
            ..
        } => {
            let size = WindowSize {
                cols: col_width,
                rows: row_height,
                width: pix_width,
                height: pix_height,
            };
            Message::Request(Request::Pty {
                term,
                size,
                modes: terminal_modes.into_iter().map(mode).collect(),
            })
        }
        ChannelMsg::RequestShell { .. } => Message::Request(Request::Shell),
        ChannelMsg::Exec { command, .. } => Message::Request(Request::Exec(command)),
        ChannelMsg::Signal { signal } => Message::Request(Request::Signal(signal_name(&signal))),
        ChannelMsg::RequestSubsystem { name, .. } => Message::Request(Request::Subsystem(name)),
        ChannelMsg::RequestX11 {
            single_connection,
            x11_authentication_protocol,
            x11_authentication_cookie,
            x11_screen_number,
            ..
        } => Message::Request(Request::X11(X11 {
            single: single_connection,
            protocol: x11_authentication_protocol,
            cookie: x11_authentication_cookie,
            screen: x11_screen_number,
        })),
        ChannelMsg::SetEnv {
            variable_name,
            variable_value,
            ..
        } => Message::Request(Request::Env {
            name: variable_name,
            value: variable_value,
        }),
        ChannelMsg::WindowChange {
            col_width,
            row_height,
            pix_width,
            pix_height,
        } => {
            let size = WindowSize {
                cols: col_width,
                rows: row_height,
                width: pix_width,
                height: pix_height,
            };
            Message::Request(Request::WindowChange(size))
        }
        ChannelMsg::AgentForward { .. } => Message::Request(Request::AgentForward),
        ChannelMsg::ExitStatus { exit_status } => {
            Message::Request(Request::ExitStatus(exit_status))
        }
        ChannelMsg::ExitSignal {
            signal_name: signal,
            core_dumped,
            error_message,
            ..
        } => {
            let signal = signal_name(&signal);
            Message::Request(Request::ExitSignal {
                signal,
                core_dumped,
                message: error_message,
            })
        }
        _ => return None,
    })
}

fn mode((code, value): (Pty, u32)) -> (u8, u32) {
    #[expect(
        clippy::as_conversions,
        reason = "a fieldless enum whose discriminants are the opcodes"
    )]
    let code = code as u8;
    (code, value)
}

fn signal_name(signal: &Sig) -> String {
    if let Sig::Custom(name) = signal {
        return name.clone();
    }
    format!("{signal:?}")
}

fn signal_from(name: &str) -> Sig {
    let known = [
        Sig::ABRT,
        Sig::ALRM,
        Sig::FPE,
        Sig::HUP,
        Sig::ILL,
        Sig::INT,
        Sig::KILL,
        Sig::PIPE,
        Sig::QUIT,
        Sig::SEGV,
        Sig::TERM,
        Sig::USR1,
    ];
    known
        .into_iter()
        .find(|signal| signal_name(signal) == name)
        .unwrap_or_else(|| Sig::Custom(name.to_owned()))
}
