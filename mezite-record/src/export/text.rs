//! A plain transcript for reading and searching: no escape sequences, one mark a channel event, output indented so
//! that no output can pose as a mark.

use std::collections::BTreeMap;
use std::io::Write;

use mezite_core::Span;

use super::{ExportError, Options};
use crate::format::Header;
use crate::frame::{ChannelEvent, Frame, Stream, Timed};
use crate::play::Filter;
use crate::read::ReadError;
use crate::utf8::Utf8;

/// Writes a transcript of all channels, or of one. Input is marked `<`, standard error `!`.
///
/// # Errors
/// [`ExportError`].
pub fn text(
    header: &Header,
    frames: impl IntoIterator<Item = Result<Timed, ReadError>>,
    options: Options,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let Header {
        user, login, node, ..
    } = header;
    writeln!(
        out,
        "session {} of {user} as {login}@{node} from {}",
        header.session_id, header.started
    )?;
    let mut transcript = Transcript::default();
    for timed in frames {
        let timed = timed?;
        let channel = channel_of(&timed.frame);
        if options.channel.is_none() || channel.is_none() || channel == options.channel {
            transcript.frame(&timed, out)?;
        }
    }
    transcript.break_line(out)?;
    Ok(out.flush()?)
}

fn channel_of(frame: &Frame) -> Option<u32> {
    match frame {
        Frame::Output { channel, .. }
        | Frame::Input { channel, .. }
        | Frame::Resize { channel, .. }
        | Frame::Channel { channel, .. } => Some(*channel),
        Frame::Note { .. } => None,
    }
}

/// Whose line is being written.
type Source = (u32, char);

#[derive(Default)]
struct Transcript {
    plain: BTreeMap<Source, (Utf8, Filter, Strip)>,
    subsystems: Vec<u32>,
    line: Option<Source>,
}

impl Transcript {
    fn frame(&mut self, timed: &Timed, out: &mut impl Write) -> Result<(), ExportError> {
        match &timed.frame {
            Frame::Output {
                channel,
                stream,
                data,
            } => {
                let mark = match stream {
                    Stream::Stdout => ' ',
                    Stream::Stderr => '!',
                };
                self.data((*channel, mark), data, out)
            }
            Frame::Input { channel, data } => self.data((*channel, '<'), data, out),
            Frame::Resize {
                channel,
                cols,
                rows,
            } => {
                let what = format!("resized to {cols}x{rows}");
                self.mark(timed.at, Some(*channel), &what, out)
            }
            Frame::Channel { channel, what } => {
                if matches!(what, ChannelEvent::Subsystem { .. }) {
                    self.subsystems.push(*channel);
                }
                self.mark(timed.at, Some(*channel), &describe(what), out)
            }
            Frame::Note { text } => self.mark(timed.at, None, &escaped(text), out),
        }
    }

    fn data(
        &mut self,
        source: Source,
        data: &[u8],
        out: &mut impl Write,
    ) -> Result<(), ExportError> {
        let (channel, mark) = source;
        if self.subsystems.contains(&channel) {
            return Ok(());
        }
        let (utf8, filter, strip) = self.plain.entry(source).or_default();
        let plain = strip.push(&filter.push(&utf8.push(data)));
        for piece in plain.split_inclusive('\n') {
            if self.line != Some(source) {
                self.break_line(out)?;
                write!(out, "  {mark} ")?;
                self.line = Some(source);
            }
            out.write_all(piece.as_bytes())?;
            if piece.ends_with('\n') {
                self.line = None;
            }
        }
        Ok(())
    }

    fn mark(
        &mut self,
        at: Span,
        channel: Option<u32>,
        what: &str,
        out: &mut impl Write,
    ) -> Result<(), ExportError> {
        self.break_line(out)?;
        let secs = at.as_secs();
        let (hours, minutes, secs) = (secs / 3600, secs / 60 % 60, secs % 60);
        let millis = at.as_millis() % 1000;
        write!(out, "{hours:02}:{minutes:02}:{secs:02}.{millis:03} ")?;
        if let Some(channel) = channel {
            write!(out, "channel {channel}: ")?;
        }
        Ok(writeln!(out, "{what}")?)
    }

    fn break_line(&mut self, out: &mut impl Write) -> Result<(), ExportError> {
        if self.line.take().is_some() {
            writeln!(out)?;
        }
        Ok(())
    }
}

fn describe(what: &ChannelEvent) -> String {
    match what {
        ChannelEvent::Opened { kind } => format!("opened as {}", escaped(kind)),
        ChannelEvent::Pty { term, cols, rows } => {
            format!("terminal `{}` of {cols}x{rows}", escaped(term))
        }
        ChannelEvent::Shell => "shell".to_owned(),
        ChannelEvent::Exec { command } => {
            format!("exec `{}`", escaped(&String::from_utf8_lossy(command)))
        }
        ChannelEvent::Subsystem { name } => format!("subsystem `{}`, not shown", escaped(name)),
        ChannelEvent::Env { name, value } => {
            let value = escaped(&String::from_utf8_lossy(value));
            format!("environment `{}={value}`", escaped(name))
        }
        ChannelEvent::Exit { status } => format!("exit status {status}"),
        ChannelEvent::Signal { name } => format!("ended by signal `{}`", escaped(name)),
        ChannelEvent::Eof => "end of output".to_owned(),
        ChannelEvent::Closed => "closed".to_owned(),
    }
}

/// Text from outside on one line, control characters visible.
fn escaped(text: &str) -> String {
    let show = |it: char| -> String {
        if it.is_control() {
            it.escape_default().collect()
        } else {
            it.into()
        }
    };
    text.chars().map(show).collect()
}

/// Removes what [`Filter`] let through besides text: its sequences are whole and well-formed. A lone carriage return
/// begins a new line, so that what was painted over stays readable.
#[derive(Clone, Debug, Default)]
struct Strip {
    after_return: bool,
}

impl Strip {
    fn push(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character == '\u{1b}' {
                skip_sequence(&mut characters);
                continue;
            }
            if character == '\n' || std::mem::take(&mut self.after_return) {
                out.push('\n');
            }
            match character {
                '\r' => self.after_return = true,
                '\n' => self.after_return = false,
                '\t' => out.push('\t'),
                _ if character.is_control() => {}
                _ => out.push(character),
            }
        }
        out
    }
}

/// Skips the rest of a sequence that began with ESC.
fn skip_sequence(characters: &mut std::str::Chars<'_>) {
    let first = characters.find(|it| !(' '..='/').contains(it));
    if first == Some('[') {
        let _final_character = characters.find(|it| ('@'..='~').contains(it));
    }
}
