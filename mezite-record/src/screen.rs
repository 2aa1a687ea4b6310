//! What a watcher of one channel saw: its output as text, and its sizes. Replay and exports share it.

use mezite_core::Span;

use crate::frame::{ChannelEvent, Frame, Stream, Timed};
use crate::play::Filter;
use crate::utf8::Utf8;

/// Largest width and height that are passed on: a player must not be made to hold a screen of 65535 × 65535 cells.
const MAX_SIDE: u32 = 1000;

/// What changed on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shown {
    /// Output, as text for a terminal.
    Text(String),
    /// The screen has a new size, within 1 to 1000 each way.
    Resize {
        /// Columns.
        cols: u32,
        /// Rows.
        rows: u32,
    },
}

/// Follows one channel.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    channel: Option<u32>,
    filter: Option<Filter>,
    stdout: Utf8,
    stderr: Utf8,
    pty: bool,
    hidden: bool,
    after_return: bool,
    pub(crate) size: Option<(u32, u32)>,
    pub(crate) term: Option<String>,
    pub(crate) command: Option<String>,
}

impl Screen {
    /// Follows `channel`, or the first one that runs or shows something.
    pub(crate) fn new(channel: Option<u32>, filter: Option<Filter>) -> Self {
        Self {
            channel,
            filter,
            ..Self::default()
        }
    }

    pub(crate) fn push(&mut self, timed: &Timed) -> Option<(Span, Shown)> {
        let shown = match &timed.frame {
            Frame::Output {
                channel,
                stream,
                data,
            } => self.follows(*channel).then(|| self.output(*stream, data))?,
            Frame::Resize {
                channel,
                cols,
                rows,
            } => self.follows(*channel).then(|| resize(*cols, *rows))?,
            Frame::Channel { channel, what } => self.event(*channel, what),
            Frame::Input { .. } | Frame::Note { .. } => None,
        };
        shown.map(|shown| (timed.at, shown))
    }

    /// What was cut off at the end of the recording.
    pub(crate) fn finish(&mut self) -> Option<Shown> {
        let rest = [self.stdout.finish(), self.stderr.finish()].concat();
        (!rest.is_empty()).then_some(Shown::Text(rest))
    }

    fn follows(&mut self, channel: u32) -> bool {
        *self.channel.get_or_insert(channel) == channel
    }

    fn event(&mut self, channel: u32, what: &ChannelEvent) -> Option<Shown> {
        match what {
            ChannelEvent::Pty { term, cols, rows } if self.follows(channel) => {
                self.pty = true;
                self.term = Some(term.clone());
                let size = resize(*cols, *rows);
                if let (None, Some(Shown::Resize { cols, rows })) = (self.size, &size) {
                    self.size = Some((*cols, *rows));
                    return None;
                }
                size
            }
            ChannelEvent::Exec { command } if self.follows(channel) => {
                self.command = Some(String::from_utf8_lossy(command).into_owned());
                None
            }
            ChannelEvent::Subsystem { name } if self.follows(channel) => {
                self.hidden = true;
                let name: String = name.chars().flat_map(char::escape_default).collect();
                Some(Shown::Text(format!("[subsystem {name}: not shown]\r\n")))
            }
            ChannelEvent::Shell => {
                self.follows(channel);
                None
            }
            ChannelEvent::Pty { .. }
            | ChannelEvent::Exec { .. }
            | ChannelEvent::Subsystem { .. }
            | ChannelEvent::Opened { .. }
            | ChannelEvent::Env { .. }
            | ChannelEvent::Exit { .. }
            | ChannelEvent::Signal { .. }
            | ChannelEvent::Eof
            | ChannelEvent::Closed => None,
        }
    }

    fn output(&mut self, stream: Stream, data: &[u8]) -> Option<Shown> {
        if self.hidden {
            return None;
        }
        let utf8 = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut text = utf8.push(data);
        if !self.pty {
            text = self.with_returns(&text);
        }
        if let Some(filter) = &mut self.filter {
            text = filter.push(&text);
        }
        (!text.is_empty()).then_some(Shown::Text(text))
    }

    /// Without a PTY nobody put a carriage return before the line feed; a terminal needs one.
    fn with_returns(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 16);
        for character in text.chars() {
            if character == '\n' && !self.after_return {
                out.push('\r');
            }
            self.after_return = character == '\r';
            out.push(character);
        }
        out
    }
}

/// A size that a player can show. Zero means unknown (RFC 4254 section 6.2).
fn resize(cols: u32, rows: u32) -> Option<Shown> {
    (cols > 0 && rows > 0).then(|| Shown::Resize {
        cols: cols.min(MAX_SIDE),
        rows: rows.min(MAX_SIDE),
    })
}
