//! The messages of one channel (RFC 4254 sections 5 and 6), free of any library's types.

use std::fmt;

use bytes::Bytes;

/// One end of a forwarded TCP connection, as a client or a node wrote it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "a host and a port")]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// The port; whoever uses it looks at its range.
    pub port: u32,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.escape_default();
        if self.host.contains(':') {
            write!(f, "[{host}]:{}", self.port)
        } else {
            write!(f, "{host}:{}", self.port)
        }
    }
}

/// Where a node is to listen for a client (`tcpip-forward`, RFC 4254 section 7.1; `streamlocal-forward@openssh.com`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "what SSH can listen at")]
pub enum Listener {
    /// An address, or every one if it is empty; with port 0 the node picks one.
    Tcp(Endpoint),
    /// The path of a Unix socket.
    Socket(String),
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => at.fmt(f),
            Self::Socket(path) => path.escape_default().fmt(f),
        }
    }
}

/// What a client wants for X11 (RFC 4254 section 6.3.1).
#[derive(Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the fields of the RFC")]
pub struct X11 {
    /// Whether only one connection is to be carried.
    pub single: bool,
    /// `MIT-MAGIC-COOKIE-1`.
    pub protocol: String,
    /// What connections have to show. The client compares it; OpenSSH makes it for this session alone.
    pub cookie: String,
    /// Number of the screen.
    pub screen: u32,
}

impl fmt::Debug for X11 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X11")
            .field("single", &self.single)
            .field("protocol", &self.protocol)
            .field("screen", &self.screen)
            .finish_non_exhaustive()
    }
}

/// What a channel is for (`SSH_MSG_CHANNEL_OPEN`, RFC 4254 sections 5.1, 6.1, 6.3, 7; OpenSSH's PROTOCOL section 2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a new kind must get a row in the coverage table"
)]
pub enum ChannelKind {
    /// `session`.
    Session,
    /// `direct-tcpip`: a forward that the client asked for.
    DirectTcpip {
        /// Where to.
        to: Endpoint,
        /// Where the client says it comes from.
        from: Endpoint,
    },
    /// `direct-streamlocal@openssh.com`.
    DirectStreamlocal {
        /// Path of the socket.
        path: String,
    },
    /// `forwarded-tcpip`: somebody connected where the client has let the node listen.
    ForwardedTcpip {
        /// Where the node listens.
        at: Endpoint,
        /// Who connected.
        from: Endpoint,
    },
    /// `forwarded-streamlocal@openssh.com`.
    ForwardedStreamlocal {
        /// Path of the socket.
        path: String,
    },
    /// `auth-agent@openssh.com`: a program on the node asks the client's agent.
    Agent,
    /// `x11`: a program on the node connects to the client's display.
    X11 {
        /// Who connected.
        from: Endpoint,
    },
}

impl fmt::Display for ChannelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session => f.write_str("session"),
            Self::DirectTcpip { to, .. } => write!(f, "direct-tcpip {to}"),
            Self::DirectStreamlocal { path } => {
                write!(f, "direct-streamlocal {}", path.escape_default())
            }
            Self::ForwardedTcpip { at, .. } => write!(f, "forwarded-tcpip {at}"),
            Self::ForwardedStreamlocal { path } => {
                write!(f, "forwarded-streamlocal {}", path.escape_default())
            }
            Self::Agent => f.write_str("auth-agent"),
            Self::X11 { .. } => f.write_str("x11"),
        }
    }
}

/// Why a channel was not opened (RFC 4254 section 5.1 reason codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the reason codes of the RFC")]
pub enum OpenFailure {
    /// Code 1.
    Prohibited,
    /// Code 2.
    ConnectFailed,
    /// Code 3.
    UnknownType,
    /// Code 4.
    Shortage,
}

impl fmt::Display for OpenFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prohibited => "administratively prohibited",
            Self::ConnectFailed => "connect failed",
            Self::UnknownType => "unknown channel type",
            Self::Shortage => "resource shortage",
        })
    }
}

impl From<russh::ChannelOpenFailure> for OpenFailure {
    fn from(failure: russh::ChannelOpenFailure) -> Self {
        match failure {
            russh::ChannelOpenFailure::ConnectFailed => Self::ConnectFailed,
            russh::ChannelOpenFailure::UnknownChannelType => Self::UnknownType,
            russh::ChannelOpenFailure::ResourceShortage => Self::Shortage,
            russh::ChannelOpenFailure::AdministrativelyProhibited
            | russh::ChannelOpenFailure::Other { .. } => Self::Prohibited,
        }
    }
}

impl OpenFailure {
    /// The reason code of the RFC.
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Prohibited => 1,
            Self::ConnectFailed => 2,
            Self::UnknownType => 3,
            Self::Shortage => 4,
        }
    }
}

/// One message of an open channel, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a relay must decide on every message"
)]
pub enum Message {
    /// `SSH_MSG_CHANNEL_DATA`.
    Data(Bytes),
    /// `SSH_MSG_CHANNEL_EXTENDED_DATA` with its type code; 1 is standard error.
    ExtendedData(u32, Bytes),
    /// `SSH_MSG_CHANNEL_EOF`.
    Eof,
    /// `SSH_MSG_CHANNEL_CLOSE`. The last message of a channel.
    Close,
    /// `SSH_MSG_CHANNEL_REQUEST`.
    Request(Request),
    /// `SSH_MSG_CHANNEL_SUCCESS`, the answer to a [`Request`] that [wants one](Request::is_answered).
    Success,
    /// `SSH_MSG_CHANNEL_FAILURE`, likewise.
    Failure,
}

/// A channel request (RFC 4254 sections 6.2 to 6.10).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a new request must get a row in the coverage table"
)]
pub enum Request {
    /// `pty-req`.
    Pty {
        /// `TERM`.
        term: String,
        /// Size in character cells and pixels.
        size: WindowSize,
        /// Terminal modes, opcode and argument (section 8).
        modes: Vec<(u8, u32)>,
    },
    /// `shell`.
    Shell,
    /// `exec` with its command line, bytes as they came.
    Exec(Vec<u8>),
    /// `subsystem`.
    Subsystem(String),
    /// `env`.
    Env {
        /// Name of the variable.
        name: String,
        /// Its value.
        value: String,
    },
    /// `signal`, without `SIG`.
    Signal(String),
    /// `window-change`.
    WindowChange(WindowSize),
    /// `auth-agent-req@openssh.com`.
    AgentForward,
    /// `x11-req`.
    X11(X11),
    /// `exit-status`.
    ExitStatus(u32),
    /// `exit-signal`.
    ExitSignal {
        /// Name without `SIG`.
        signal: String,
        /// Whether there is a core file.
        core_dumped: bool,
        /// For people.
        message: String,
    },
}

impl Request {
    /// Whether the receiving side owes exactly one [`Message::Success`] or [`Message::Failure`].
    ///
    /// `env` is acknowledged by the connection itself: a server may ignore a variable anyway (RFC 4254 section 6.4),
    /// and waiting for the far end would cost a round trip each.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        match self {
            Self::Pty { .. }
            | Self::Shell
            | Self::Exec(_)
            | Self::Subsystem(_)
            | Self::AgentForward
            | Self::X11(_) => true,
            Self::Env { .. }
            | Self::Signal(_)
            | Self::WindowChange(_)
            | Self::ExitStatus(_)
            | Self::ExitSignal { .. } => false,
        }
    }
}

/// The size of a terminal. Zero means "not told" (RFC 4254 section 6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the four numbers of the RFC")]
pub struct WindowSize {
    /// Columns.
    pub cols: u32,
    /// Rows.
    pub rows: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}
