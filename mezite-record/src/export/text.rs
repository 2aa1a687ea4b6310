//! A plain transcript for reading: what stood on the screen, line by line, one mark a channel event, output indented so
//! that no output can pose as a mark.

use std::io::Write;

use mezite_core::Span;

use super::{ExportError, Options};
use crate::format::Header;
use crate::frame::{ChannelEvent, Frame, Timed};
use crate::read::ReadError;
use crate::reading::{ReadLine, Readings, Source};
use crate::screen::one_line;

/// Writes a transcript of all channels, or of one, as a person saw it: a terminal emulator draws the screen, and lines
/// are written when they leave it. What was painted over at once nobody saw; [`json`](super::json()) has it. Input is
/// marked `<`, standard error `!`.
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
    transcript.finish(out)?;
    Ok(out.flush()?)
}

fn channel_of(frame: &Frame) -> Option<u32> {
    match frame {
        Frame::Output { channel, .. }
        | Frame::Input { channel, .. }
        | Frame::Resize { channel, .. }
        | Frame::File { channel, .. }
        | Frame::Content { channel, .. }
        | Frame::Channel { channel, .. } => Some(*channel),
        Frame::Note { .. } => None,
    }
}

#[derive(Default)]
struct Transcript {
    readings: Readings,
    subsystems: Vec<u32>,
}

impl Transcript {
    fn frame(&mut self, timed: &Timed, out: &mut impl Write) -> Result<(), ExportError> {
        let (at, frame) = (timed.at, &timed.frame);
        let mut lines = Vec::new();
        self.readings.push(timed, &mut lines);
        for line in lines {
            if !self.subsystems.contains(&line.channel) {
                self.line(&line, out)?;
            }
        }
        match frame {
            Frame::Output { .. } | Frame::Input { .. } | Frame::Content { .. } => Ok(()),
            Frame::File { channel, operation } => {
                self.mark(at, Some(*channel), &operation.to_string(), out)
            }
            Frame::Resize {
                channel,
                cols,
                rows,
            } => self.mark(
                at,
                Some(*channel),
                &format!("resized to {cols}x{rows}"),
                out,
            ),
            Frame::Channel { channel, what } => {
                if matches!(what, ChannelEvent::Subsystem { .. }) {
                    self.subsystems.push(*channel);
                }
                self.mark(at, Some(*channel), &describe(what), out)
            }
            Frame::Note { text } => self.mark(at, None, &one_line(text), out),
        }
    }

    fn finish(&mut self, out: &mut impl Write) -> Result<(), ExportError> {
        for line in self.readings.finish() {
            if !self.subsystems.contains(&line.channel) {
                self.line(&line, out)?;
            }
        }
        Ok(())
    }

    fn line(&self, line: &ReadLine, out: &mut impl Write) -> Result<(), ExportError> {
        let mark = match line.source {
            Source::Output => ' ',
            Source::Error => '!',
            Source::Input => '<',
        };
        Ok(writeln!(out, "  {mark} {}", line.text)?)
    }

    fn mark(
        &self,
        at: Span,
        channel: Option<u32>,
        what: &str,
        out: &mut impl Write,
    ) -> Result<(), ExportError> {
        let secs = at.as_secs();
        let (hours, minutes, secs) = (secs / 3600, secs / 60 % 60, secs % 60);
        let millis = at.as_millis() % 1000;
        write!(out, "{hours:02}:{minutes:02}:{secs:02}.{millis:03} ")?;
        if let Some(channel) = channel {
            write!(out, "channel {channel}: ")?;
        }
        Ok(writeln!(out, "{what}")?)
    }
}

fn describe(what: &ChannelEvent) -> String {
    match what {
        ChannelEvent::Opened { kind } => format!("opened as {}", one_line(kind)),
        ChannelEvent::Pty { term, cols, rows } => {
            format!("terminal `{}` of {cols}x{rows}", one_line(term))
        }
        ChannelEvent::Shell => "shell".to_owned(),
        ChannelEvent::Exec { command } => {
            format!("exec `{}`", one_line(&String::from_utf8_lossy(command)))
        }
        ChannelEvent::Subsystem { name } => format!("subsystem `{}`", one_line(name)),
        ChannelEvent::Env { name, value } => {
            let value = one_line(&String::from_utf8_lossy(value));
            format!("environment `{}={value}`", one_line(name))
        }
        ChannelEvent::Exit { status } => format!("exit status {status}"),
        ChannelEvent::Signal { name } => format!("ended by signal `{}`", one_line(name)),
        ChannelEvent::Eof => "end of output".to_owned(),
        ChannelEvent::Closed => "closed".to_owned(),
    }
}
