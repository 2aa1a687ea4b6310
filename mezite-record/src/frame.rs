//! What is recorded: one [`Frame`] per thing that passed, and its bytes inside a chunk.

use bytes::Bytes;
use mezite_core::Span;

use crate::file::FileOperation;
use crate::wire::{Malformed, Reader, length, put_bytes, put_varint};

/// Most bytes of data in one frame; the recorder cuts longer ones into several frames.
pub const MAX_DATA: usize = 1024 * 1024;
/// Most bytes of a name, command or note; longer ones are cut when written.
pub const MAX_TEXT: usize = 64 * 1024;

/// Which of a channel's two outputs (RFC 4254 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "RFC 4254 knows data and one extended type"
)]
pub enum Stream {
    /// Standard output; with a PTY everything the terminal shows.
    Stdout,
    /// `SSH_EXTENDED_DATA_STDERR`.
    Stderr,
}

/// One thing that passed in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// From the node to the user.
    Output {
        /// The channel, as the recording proxy numbers them within the session.
        channel: u32,
        /// Which output.
        stream: Stream,
        /// The exact bytes.
        data: Bytes,
    },
    /// From the user to the node.
    Input {
        /// The channel.
        channel: u32,
        /// The exact bytes.
        data: Bytes,
    },
    /// The terminal has a new size.
    Resize {
        /// The channel.
        channel: u32,
        /// Columns, as the client claims.
        cols: u32,
        /// Rows, as the client claims.
        rows: u32,
    },
    /// Something happened to a channel.
    Channel {
        /// The channel.
        channel: u32,
        /// What happened.
        what: ChannelEvent,
    },
    /// Something was done with a file, or tried.
    File {
        /// The channel.
        channel: u32,
        /// What was done, and what came of it.
        operation: Box<FileOperation>,
    },
    /// Content of a file, where the role wants it recorded.
    Content {
        /// The channel.
        channel: u32,
        /// The file, as its [`FileOperation`]s number it.
        file: u64,
        /// Whether it goes to the node; otherwise it comes from there.
        to_node: bool,
        /// Place of its first byte in the file.
        offset: u64,
        /// The exact bytes.
        data: Bytes,
    },
    /// A remark of the recorder, for example why the session was ended.
    Note {
        /// The remark.
        text: String,
    },
}

/// What can happen to a channel besides data (RFC 4254 sections 5 and 6).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelEvent {
    /// The channel was opened.
    Opened {
        /// `session`, `direct-tcpip`…
        kind: String,
    },
    /// A pseudo-terminal was granted.
    Pty {
        /// The value of `TERM`.
        term: String,
        /// Columns.
        cols: u32,
        /// Rows.
        rows: u32,
    },
    /// A shell was started.
    Shell,
    /// A command was started.
    Exec {
        /// The exact bytes of the command line.
        command: Bytes,
    },
    /// A subsystem was started.
    Subsystem {
        /// For example `sftp`.
        name: String,
    },
    /// An environment variable was passed on.
    Env {
        /// Its name.
        name: String,
        /// Its exact value.
        value: Bytes,
    },
    /// The command ended.
    Exit {
        /// Its exit status.
        status: u32,
    },
    /// The command was ended by a signal.
    Signal {
        /// The name without `SIG`.
        name: String,
    },
    /// The node sends nothing more.
    Eof,
    /// The channel is gone.
    Closed,
}

/// A frame and when it passed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a pair with names")]
pub struct Timed {
    /// Since the start of the session. Never falls from one frame to the next.
    pub at: Span,
    /// What passed.
    pub frame: Frame,
}

impl Frame {
    /// Bytes on standard output.
    #[must_use]
    pub fn stdout(channel: u32, data: impl Into<Bytes>) -> Self {
        Self::Output {
            channel,
            stream: Stream::Stdout,
            data: data.into(),
        }
    }

    /// Bytes on standard error.
    #[must_use]
    pub fn stderr(channel: u32, data: impl Into<Bytes>) -> Self {
        Self::Output {
            channel,
            stream: Stream::Stderr,
            data: data.into(),
        }
    }

    /// Bytes of standard input.
    #[must_use]
    pub fn input(channel: u32, data: impl Into<Bytes>) -> Self {
        Self::Input {
            channel,
            data: data.into(),
        }
    }

    /// Something that happened to a channel.
    #[must_use]
    pub fn channel(channel: u32, what: ChannelEvent) -> Self {
        Self::Channel { channel, what }
    }

    /// A remark.
    #[must_use]
    pub fn note(text: impl Into<String>) -> Self {
        Self::Note { text: text.into() }
    }

    /// Cuts off what exceeds [`MAX_DATA`]: the rest is the next frame. Copies nothing.
    pub(crate) fn split(&mut self) -> Option<Self> {
        match self {
            Self::Output {
                channel,
                stream,
                data,
            } if data.len() > MAX_DATA => Some(Self::Output {
                channel: *channel,
                stream: *stream,
                data: data.split_off(MAX_DATA),
            }),
            Self::Input { channel, data } if data.len() > MAX_DATA => Some(Self::Input {
                channel: *channel,
                data: data.split_off(MAX_DATA),
            }),
            Self::Content {
                channel,
                file,
                to_node,
                offset,
                data,
            } if data.len() > MAX_DATA => {
                let rest = data.split_off(MAX_DATA);
                Some(Self::Content {
                    channel: *channel,
                    file: *file,
                    to_node: *to_node,
                    offset: offset.saturating_add(length(data)),
                    data: rest,
                })
            }
            Self::Output { .. }
            | Self::Input { .. }
            | Self::Content { .. }
            | Self::File { .. }
            | Self::Resize { .. }
            | Self::Channel { .. }
            | Self::Note { .. } => None,
        }
    }

    /// Upper bound of what [`Frame::encode`] writes, to reserve once.
    pub(crate) fn size_hint(&self) -> usize {
        match self {
            Self::Output { data, .. } | Self::Input { data, .. } => data.len() + 32,
            Self::Content { data, .. } => data.len() + 64,
            Self::File { operation, .. } => operation.path.len() + operation.target.len() + 384,
            Self::Resize { .. } | Self::Channel { .. } | Self::Note { .. } => 96,
        }
    }

    /// Writes the frame; `delta` is milliseconds since the frame before it in the chunk.
    pub(crate) fn encode(&self, delta: u64, out: &mut Vec<u8>) {
        out.push(self.kind());
        put_varint(delta, out);
        match self {
            Self::Output { channel, data, .. } | Self::Input { channel, data } => {
                put_varint((*channel).into(), out);
                put_bytes(data, MAX_DATA, out);
            }
            Self::Resize {
                channel,
                cols,
                rows,
            } => {
                for number in [*channel, *cols, *rows] {
                    put_varint(number.into(), out);
                }
            }
            Self::Channel { channel, what } => {
                put_varint((*channel).into(), out);
                what.encode(out);
            }
            Self::File { channel, operation } => {
                put_varint((*channel).into(), out);
                operation.encode(out);
            }
            Self::Content {
                channel,
                file,
                to_node,
                offset,
                data,
            } => {
                put_varint((*channel).into(), out);
                put_varint(*file, out);
                out.push(u8::from(*to_node));
                put_varint(*offset, out);
                put_bytes(data, MAX_DATA, out);
            }
            Self::Note { text } => put_text(text, out),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Output {
                stream: Stream::Stdout,
                ..
            } => 0x01,
            Self::Output {
                stream: Stream::Stderr,
                ..
            } => 0x02,
            Self::Input { .. } => 0x03,
            Self::Resize { .. } => 0x04,
            Self::Note { .. } => 0x05,
            Self::Channel { what, .. } => what.kind(),
            Self::File { .. } => 0x20,
            Self::Content { .. } => 0x21,
        }
    }

    /// Reads one frame and its distance in milliseconds from the one before.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<(u64, Self), Malformed> {
        let kind = reader.u8()?;
        let delta = reader.varint()?;
        if kind == 0x05 {
            let text = reader.text(MAX_TEXT)?;
            return Ok((delta, Self::Note { text }));
        }
        let channel = reader.varint_u32()?;
        let frame = match kind {
            0x01 => Self::stdout(channel, reader.bytes(MAX_DATA)?),
            0x02 => Self::stderr(channel, reader.bytes(MAX_DATA)?),
            0x03 => Self::input(channel, reader.bytes(MAX_DATA)?),
            0x04 => Self::Resize {
                channel,
                cols: reader.varint_u32()?,
                rows: reader.varint_u32()?,
            },
            0x20 => Self::File {
                channel,
                operation: Box::new(FileOperation::decode(reader)?),
            },
            0x21 => Self::Content {
                channel,
                file: reader.varint()?,
                to_node: match reader.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(Malformed("a direction is neither 0 nor 1")),
                },
                offset: reader.varint()?,
                data: reader.bytes(MAX_DATA)?,
            },
            _ => Self::Channel {
                channel,
                what: ChannelEvent::decode(kind, reader)?,
            },
        };
        Ok((delta, frame))
    }
}

impl ChannelEvent {
    fn kind(&self) -> u8 {
        match self {
            Self::Opened { .. } => 0x10,
            Self::Pty { .. } => 0x11,
            Self::Shell => 0x12,
            Self::Exec { .. } => 0x13,
            Self::Subsystem { .. } => 0x14,
            Self::Env { .. } => 0x15,
            Self::Exit { .. } => 0x16,
            Self::Signal { .. } => 0x17,
            Self::Eof => 0x18,
            Self::Closed => 0x19,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Shell | Self::Eof | Self::Closed => {}
            Self::Opened { kind: text }
            | Self::Subsystem { name: text }
            | Self::Signal { name: text } => put_text(text, out),
            Self::Exec { command } => put_bytes(command, MAX_TEXT, out),
            Self::Exit { status } => put_varint((*status).into(), out),
            Self::Pty { term, cols, rows } => {
                put_text(term, out);
                put_varint((*cols).into(), out);
                put_varint((*rows).into(), out);
            }
            Self::Env { name, value } => {
                put_text(name, out);
                put_bytes(value, MAX_TEXT, out);
            }
        }
    }

    fn decode(kind: u8, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match kind {
            0x10 => Self::Opened {
                kind: reader.text(MAX_TEXT)?,
            },
            0x11 => Self::Pty {
                term: reader.text(MAX_TEXT)?,
                cols: reader.varint_u32()?,
                rows: reader.varint_u32()?,
            },
            0x12 => Self::Shell,
            0x13 => Self::Exec {
                command: reader.bytes(MAX_TEXT)?,
            },
            0x14 => Self::Subsystem {
                name: reader.text(MAX_TEXT)?,
            },
            0x15 => Self::Env {
                name: reader.text(MAX_TEXT)?,
                value: reader.bytes(MAX_TEXT)?,
            },
            0x16 => Self::Exit {
                status: reader.varint_u32()?,
            },
            0x17 => Self::Signal {
                name: reader.text(MAX_TEXT)?,
            },
            0x18 => Self::Eof,
            0x19 => Self::Closed,
            _ => return Err(Malformed("a frame of a kind this version does not know")),
        })
    }
}

/// Text, cut at a character border when it is longer than [`MAX_TEXT`].
pub(crate) fn put_text(text: &str, out: &mut Vec<u8>) {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let (kept, _) = text.split_at(end);
    put_bytes(kept.as_bytes(), MAX_TEXT, out);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::file::tests::any_operation;
    use proptest::prelude::*;

    /// Any frame that can be written and read back unchanged.
    pub(crate) fn any_frame() -> impl Strategy<Value = Frame> {
        let data = || prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        let text = || "\\PC{0,20}";
        let event =
            prop_oneof![
                text().prop_map(|kind| ChannelEvent::Opened { kind }),
                (text(), any::<u32>(), any::<u32>())
                    .prop_map(|(term, cols, rows)| ChannelEvent::Pty { term, cols, rows }),
                Just(ChannelEvent::Shell),
                data().prop_map(|command| ChannelEvent::Exec { command }),
                text().prop_map(|name| ChannelEvent::Subsystem { name }),
                (text(), data()).prop_map(|(name, value)| ChannelEvent::Env { name, value }),
                any::<u32>().prop_map(|status| ChannelEvent::Exit { status }),
                text().prop_map(|name| ChannelEvent::Signal { name }),
                Just(ChannelEvent::Eof),
                Just(ChannelEvent::Closed),
            ];
        prop_oneof![
            (any::<u32>(), data()).prop_map(|(channel, data)| Frame::stdout(channel, data)),
            (any::<u32>(), data()).prop_map(|(channel, data)| Frame::stderr(channel, data)),
            (any::<u32>(), data()).prop_map(|(channel, data)| Frame::input(channel, data)),
            (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(channel, cols, rows)| {
                Frame::Resize {
                    channel,
                    cols,
                    rows,
                }
            }),
            (any::<u32>(), event).prop_map(|(channel, what)| Frame::channel(channel, what)),
            text().prop_map(Frame::note),
            (any::<u32>(), any_operation()).prop_map(|(channel, operation)| Frame::File {
                channel,
                operation: Box::new(operation),
            }),
            (any::<u32>(), any::<(u64, u64, bool)>(), data()).prop_map(
                |(channel, (file, offset, to_node), data)| Frame::Content {
                    channel,
                    file,
                    to_node,
                    offset,
                    data,
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn frames_round_trip(frame in any_frame(), delta in any::<u64>()) {
            let mut bytes = Vec::new();
            frame.encode(delta, &mut bytes);
            let bulk = matches!(&frame, Frame::Output { .. } | Frame::Input { .. } | Frame::Content { .. });
            prop_assert!(!bulk || bytes.len() <= frame.size_hint(), "one allocation");
            let shared = Bytes::from(bytes);
            let mut reader = Reader::new(&shared);
            prop_assert_eq!(Frame::decode(&mut reader), Ok((delta, frame)));
            prop_assert!(reader.taken() == shared.len());
        }

        #[test]
        fn garbage_is_refused_or_read_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let shared = Bytes::from(bytes);
            let mut reader = Reader::new(&shared);
            while reader.taken() < shared.len() && Frame::decode(&mut reader).is_ok() {}
        }
    }

    #[test]
    fn long_text_is_cut_at_a_character_border() {
        let mut bytes = Vec::new();
        Frame::note("é".repeat(MAX_TEXT)).encode(0, &mut bytes);
        let shared = Bytes::from(bytes);
        let (_, frame) = Frame::decode(&mut Reader::new(&shared)).unwrap();
        assert_eq!(frame, Frame::note("é".repeat(MAX_TEXT / 2)));
    }

    #[test]
    fn long_data_splits_without_loss() {
        let mut first = Frame::stdout(1, vec![7; MAX_DATA + 1]);
        assert_eq!(first.split(), Some(Frame::stdout(1, vec![7])));
        assert_eq!(first, Frame::stdout(1, vec![7; MAX_DATA]));
        assert_eq!(first.split(), None);
        let content = |offset, data: Vec<u8>| Frame::Content {
            channel: 1,
            file: 2,
            to_node: true,
            offset,
            data: data.into(),
        };
        let mut first = content(5, vec![7; MAX_DATA + 1]);
        let rest = content(5 + u64::try_from(MAX_DATA).unwrap(), vec![7]);
        assert_eq!(first.split(), Some(rest));
        assert_eq!(first, content(5, vec![7; MAX_DATA]));
    }
}
