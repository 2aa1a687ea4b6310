//! A session as lines of text that a person read, channel by channel. Transcripts and the search index share it.

use std::collections::BTreeMap;

use mezite_core::Span;

use crate::frame::{ChannelEvent, Frame, Stream, Timed};
use crate::play::Filter;
use crate::screen::{Shown, resize, with_returns};
use crate::terminal::{DEFAULT_SIZE, Emulator};
use crate::utf8::Utf8;

/// A screen that does not change for this long was read.
const REST: u64 = 250;

/// Where a line stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// Standard output; with a PTY everything the terminal shows.
    Output,
    /// Standard error without a PTY.
    Error,
    /// What was typed or piped in.
    Input,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadLine {
    pub(crate) at: Span,
    pub(crate) channel: u32,
    pub(crate) source: Source,
    pub(crate) text: String,
}

/// Reads all channels of a session at once.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    open: BTreeMap<(u32, Source), Reading>,
    terminals: BTreeMap<u32, (u32, u32)>,
}

#[derive(Debug)]
struct Reading {
    emulator: Emulator,
    utf8: Utf8,
    filter: Filter,
    /// Without a PTY: whether a carriage return came last.
    returns: Option<bool>,
    last: Span,
}

impl Readings {
    /// Adds to `out` the lines that the frame completes.
    pub(crate) fn push(&mut self, timed: &Timed, out: &mut Vec<ReadLine>) {
        let at = timed.at;
        match &timed.frame {
            Frame::Output {
                channel,
                stream,
                data,
            } => {
                let source = match stream {
                    Stream::Stderr if !self.terminals.contains_key(channel) => Source::Error,
                    Stream::Stdout | Stream::Stderr => Source::Output,
                };
                self.data(at, *channel, source, data, out);
            }
            Frame::Input { channel, data } => self.data(at, *channel, Source::Input, data, out),
            Frame::Resize {
                channel,
                cols,
                rows,
            } => self.size(at, *channel, *cols, *rows, out),
            Frame::Channel { channel, what } => match what {
                ChannelEvent::Pty { cols, rows, .. } => {
                    self.terminals.insert(*channel, DEFAULT_SIZE);
                    self.size(at, *channel, *cols, *rows, out);
                }
                ChannelEvent::Exit { .. }
                | ChannelEvent::Signal { .. }
                | ChannelEvent::Eof
                | ChannelEvent::Closed => self.end(at, *channel, out),
                ChannelEvent::Opened { .. }
                | ChannelEvent::Shell
                | ChannelEvent::Exec { .. }
                | ChannelEvent::Subsystem { .. }
                | ChannelEvent::Env { .. } => {}
            },
            Frame::File { .. } | Frame::Content { .. } | Frame::Note { .. } => {}
        }
    }

    /// What is left on all screens.
    pub(crate) fn finish(&mut self) -> Vec<ReadLine> {
        let mut out = Vec::new();
        let channels: Vec<u32> = self.open.keys().map(|(channel, _)| *channel).collect();
        let last = self
            .open
            .values()
            .map(|it| it.last)
            .max()
            .unwrap_or_default();
        for channel in channels {
            self.end(last, channel, &mut out);
        }
        out
    }

    fn data(
        &mut self,
        at: Span,
        channel: u32,
        source: Source,
        data: &[u8],
        out: &mut Vec<ReadLine>,
    ) {
        let terminal = self
            .terminals
            .get(&channel)
            .filter(|_| source == Source::Output);
        let reading = self
            .open
            .entry((channel, source))
            .or_insert_with(|| Reading {
                emulator: terminal.map_or_else(Emulator::paper, |size| Emulator::new(*size)),
                utf8: Utf8::default(),
                filter: Filter::new(),
                returns: terminal.is_none().then_some(false),
                last: at,
            });
        let rested = at.as_millis().saturating_sub(reading.last.as_millis()) >= REST;
        let mut lines = if rested {
            reading.emulator.rest()
        } else {
            Vec::new()
        };
        reading.last = at;
        let mut text = reading.utf8.push(data);
        if source == Source::Input {
            // Enter is a carriage return.
            text = text.replace('\r', "\n");
        }
        if let Some(after_return) = &mut reading.returns {
            text = with_returns(&text, after_return);
        }
        lines.extend(reading.emulator.push(&reading.filter.push(&text)));
        put(at, channel, source, lines, out);
    }

    fn size(&mut self, at: Span, channel: u32, cols: u32, rows: u32, out: &mut Vec<ReadLine>) {
        let Some(size) = self.terminals.get_mut(&channel) else {
            return;
        };
        let Some(Shown::Resize { cols, rows }) = resize(cols, rows) else {
            return;
        };
        *size = (cols, rows);
        if let Some(reading) = self.open.get_mut(&(channel, Source::Output)) {
            let mut lines = reading.emulator.rest();
            lines.extend(reading.emulator.resize((cols, rows)));
            put(at, channel, Source::Output, lines, out);
        }
    }

    fn end(&mut self, at: Span, channel: u32, out: &mut Vec<ReadLine>) {
        for source in [Source::Output, Source::Error, Source::Input] {
            let Some(mut reading) = self.open.remove(&(channel, source)) else {
                continue;
            };
            let rest = reading.utf8.finish();
            let mut lines = reading.emulator.push(rest);
            lines.extend(reading.emulator.finish());
            put(at, channel, source, lines, out);
        }
    }
}

fn put(at: Span, channel: u32, source: Source, lines: Vec<String>, out: &mut Vec<ReadLine>) {
    out.extend(lines.into_iter().map(|text| ReadLine {
        at,
        channel,
        source,
        text,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64, frame: Frame) -> Timed {
        Timed {
            at: Span::from_millis(millis),
            frame,
        }
    }

    fn lines(frames: &[Timed]) -> Vec<(u64, char, String)> {
        let (mut readings, mut out) = (Readings::default(), Vec::new());
        for timed in frames {
            readings.push(timed, &mut out);
        }
        out.extend(readings.finish());
        let source = |source| match source {
            Source::Output => 'o',
            Source::Error => 'e',
            Source::Input => 'i',
        };
        out.into_iter()
            .map(|it| (it.at.as_millis(), source(it.source), it.text))
            .collect()
    }

    #[test]
    fn streams_without_a_terminal_are_told_apart() {
        let found = lines(&[
            at(1, Frame::input(0, "ls\nid\n")),
            at(2, Frame::stdout(0, "a\nb")),
            at(3, Frame::stderr(0, "oops\n")),
            at(4, Frame::stdout(0, "c\n")),
        ]);
        let expected = [
            (1, 'i', "ls"),
            (1, 'i', "id"),
            (2, 'o', "a"),
            (3, 'e', "oops"),
            (4, 'o', "bc"),
        ];
        assert_eq!(
            found,
            expected.map(|(at, source, text)| (at, source, text.to_owned()))
        );
    }

    #[test]
    fn a_terminal_is_read_when_it_rests_and_ends() {
        let pty = ChannelEvent::Pty {
            term: "xterm".into(),
            cols: 40,
            rows: 5,
        };
        let found = lines(&[
            at(0, Frame::channel(0, pty)),
            at(
                1,
                Frame::stdout(0, "$ less x\r\n\u{1b}[?1049h\u{1b}[Hpage one"),
            ),
            at(900, Frame::stdout(0, "\u{1b}[2J\u{1b}[Hpage two")),
            at(901, Frame::stdout(0, "\u{1b}[?1049l$ ")),
            at(950, Frame::channel(0, ChannelEvent::Exit { status: 0 })),
        ]);
        let expected = [
            (900, "page one"),
            (901, "page two"),
            (950, "$ less x"),
            (950, "$"),
        ];
        assert_eq!(found, expected.map(|(at, text)| (at, 'o', text.to_owned())));
    }
}
