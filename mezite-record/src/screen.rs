//! What a watcher of one channel saw: its output as text, its sizes, and where commands began. Replay and exports share
//! it.

use mezite_core::Span;

use crate::frame::{ChannelEvent, Frame, Stream, Timed};
use crate::play::Filter;
use crate::prompt::Prompts;
use crate::utf8::Utf8;

/// Largest width and height that are passed on: a player must not be made to hold a screen of 65535 × 65535 cells.
pub(crate) const MAX_SIDE: u32 = 1000;

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
    /// Nothing on the screen: a command began, or the recorder remarked something. On one line, without controls.
    Mark(String),
    /// Nothing on the screen: the command ended with this status.
    Exit(u32),
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
    prompts: Prompts,
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

    /// Adds to `out` what the frame changed.
    pub(crate) fn push(&mut self, timed: &Timed, out: &mut Vec<(Span, Shown)>) {
        let mut put = |shown| out.push((timed.at, shown));
        match &timed.frame {
            Frame::Output {
                channel,
                stream,
                data,
            } => {
                if self.follows(*channel) {
                    self.output(*stream, data, &mut put);
                }
            }
            Frame::Resize {
                channel,
                cols,
                rows,
            } => {
                if let (true, Some(size)) = (self.follows(*channel), resize(*cols, *rows)) {
                    put(size);
                }
            }
            Frame::Channel { channel, what } => self.event(*channel, what, &mut put),
            Frame::Input { channel, data } => {
                let entered = self.pty && data.iter().any(|it| matches!(it, b'\r' | b'\n'));
                if entered && self.follows(*channel) {
                    self.prompts
                        .accepted()
                        .map(Shown::Mark)
                        .into_iter()
                        .for_each(put);
                }
            }
            Frame::File { channel, operation } => {
                if self.follows(*channel) {
                    put(Shown::Text(format!("[{operation}]\r\n")));
                }
            }
            Frame::Content { .. } => {}
            Frame::Note { text } => put(Shown::Mark(one_line(text))),
        }
    }

    /// What was cut off at the end of the recording.
    pub(crate) fn finish(&mut self) -> Option<Shown> {
        let rest = [self.stdout.finish(), self.stderr.finish()].concat();
        (!rest.is_empty()).then_some(Shown::Text(rest))
    }

    fn follows(&mut self, channel: u32) -> bool {
        *self.channel.get_or_insert(channel) == channel
    }

    fn event(&mut self, channel: u32, what: &ChannelEvent, put: &mut impl FnMut(Shown)) {
        let begins = matches!(
            what,
            ChannelEvent::Pty { .. }
                | ChannelEvent::Shell
                | ChannelEvent::Exec { .. }
                | ChannelEvent::Subsystem { .. }
        );
        if self.channel.is_none() && !begins || self.channel.is_some_and(|it| it != channel) {
            return;
        }
        self.channel = Some(channel);
        match what {
            ChannelEvent::Pty { term, cols, rows } => {
                self.pty = true;
                self.term = Some(term.clone());
                match (self.size, resize(*cols, *rows)) {
                    (None, Some(Shown::Resize { cols, rows })) => self.size = Some((cols, rows)),
                    (_, size) => size.into_iter().for_each(put),
                }
            }
            ChannelEvent::Exec { command } => {
                let command = String::from_utf8_lossy(command);
                put(Shown::Mark(one_line(&command)));
                self.command = Some(command.into_owned());
            }
            ChannelEvent::Subsystem { name } => {
                self.hidden = true;
                let name = one_line(name);
                put(Shown::Text(format!("[subsystem {name}]\r\n")));
            }
            ChannelEvent::Exit { status } => put(Shown::Exit(*status)),
            ChannelEvent::Shell
            | ChannelEvent::Opened { .. }
            | ChannelEvent::Env { .. }
            | ChannelEvent::Signal { .. }
            | ChannelEvent::Eof
            | ChannelEvent::Closed => {}
        }
    }

    fn output(&mut self, stream: Stream, data: &[u8], put: &mut impl FnMut(Shown)) {
        if self.hidden {
            return;
        }
        let utf8 = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut text = utf8.push(data);
        let mut commands = Vec::new();
        if self.pty {
            commands = self.prompts.push(&text);
        } else {
            text = with_returns(&text, &mut self.after_return);
        }
        if let Some(filter) = &mut self.filter {
            text = filter.push(&text);
        }
        commands.into_iter().map(Shown::Mark).for_each(&mut *put);
        if !text.is_empty() {
            put(Shown::Text(text));
        }
    }
}

/// Without a PTY nobody put a carriage return before the line feed; a terminal needs one. `after_return` remembers the
/// character before `text`.
pub(crate) fn with_returns(text: &str, after_return: &mut bool) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if character == '\n' && !*after_return {
            out.push('\r');
        }
        *after_return = character == '\r';
        out.push(character);
    }
    out
}

/// Text from outside on one line, control characters visible.
pub(crate) fn one_line(text: &str) -> String {
    let show = |it: char| -> String {
        if it.is_control() {
            it.escape_default().collect()
        } else {
            it.into()
        }
    };
    text.chars().map(show).collect()
}

/// A size that a player can show. Zero means unknown (RFC 4254 section 6.2).
pub(crate) fn resize(cols: u32, rows: u32) -> Option<Shown> {
    (cols > 0 && rows > 0).then(|| Shown::Resize {
        cols: cols.min(MAX_SIDE),
        rows: rows.min(MAX_SIDE),
    })
}
