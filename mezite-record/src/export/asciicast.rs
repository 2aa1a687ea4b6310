//! asciicast, what `asciinema play` and its web player read: a JSON header line, then one JSON array an event. Version 2
//! (<https://docs.asciinema.org/manual/asciicast/v2/>) counts times from the start, version 3
//! (<https://docs.asciinema.org/manual/asciicast/v3/>) from the event before.

use std::collections::BTreeMap;
use std::io::Write;

use mezite_core::Span;
use serde::Serialize;

use super::{ExportError, Options};
use crate::format::Header;
use crate::frame::Timed;
use crate::play::Filter;
use crate::read::ReadError;
use crate::screen::{Screen, Shown};
use crate::terminal::DEFAULT_SIZE;

/// Writes one channel as asciicast v2: output as `o`, sizes as `r`, commands as markers `m`. Output without a PTY gets
/// carriage returns, bytes that are not UTF-8 become U+FFFD.
///
/// # Errors
/// [`ExportError`].
pub fn asciicast_v2(
    header: &Header,
    frames: impl IntoIterator<Item = Result<Timed, ReadError>>,
    options: Options,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    cast(Version::Two, header, frames, options, out)
}

/// Writes one channel as asciicast v3, for `asciinema` 3: as [`asciicast_v2`], and the exit status as `x`.
///
/// # Errors
/// [`ExportError`].
pub fn asciicast_v3(
    header: &Header,
    frames: impl IntoIterator<Item = Result<Timed, ReadError>>,
    options: Options,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    cast(Version::Three, header, frames, options, out)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Two,
    Three,
}

fn cast(
    version: Version,
    header: &Header,
    frames: impl IntoIterator<Item = Result<Timed, ReadError>>,
    options: Options,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let filter = (!options.verbatim).then(Filter::new);
    let mut screen = Screen::new(options.channel, filter);
    let mut writer = Writer {
        version,
        out,
        begun: false,
        before: Span::default(),
    };
    let mut changes = Vec::new();
    let mut end = Span::default();
    for timed in frames {
        let timed = timed?;
        end = timed.at;
        screen.push(&timed, &mut changes);
        // Marks wait for the first output: by then size, terminal and command are known, which the header tells.
        if writer.begun || changes.iter().any(|(_, it)| matches!(it, Shown::Text(_))) {
            writer.begin(header, &screen)?;
            for (at, shown) in changes.drain(..) {
                writer.event(at, &shown)?;
            }
        }
    }
    changes.extend(screen.finish().map(|rest| (end, rest)));
    writer.begin(header, &screen)?;
    for (at, shown) in changes {
        writer.event(at, &shown)?;
    }
    Ok(out.flush()?)
}

#[derive(Serialize)]
#[serde(untagged)]
enum Head<'a> {
    Two {
        version: u8,
        width: u32,
        height: u32,
        #[serde(flatten)]
        facts: Facts<'a>,
        env: BTreeMap<&'static str, &'a str>,
    },
    Three {
        version: u8,
        term: Term<'a>,
        #[serde(flatten)]
        facts: Facts<'a>,
    },
}

#[derive(Serialize)]
struct Facts<'a> {
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    title: String,
}

#[derive(Serialize)]
struct Term<'a> {
    cols: u32,
    rows: u32,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
}

struct Writer<'a, W> {
    version: Version,
    out: &'a mut W,
    begun: bool,
    before: Span,
}

impl<W: Write> Writer<'_, W> {
    fn begin(&mut self, header: &Header, screen: &Screen) -> Result<(), ExportError> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        let (cols, rows) = screen.size.unwrap_or(DEFAULT_SIZE);
        let kind = screen.term.as_deref();
        let facts = Facts {
            timestamp: header.started.as_secs(),
            command: screen.command.as_deref(),
            title: format!("{} as {}@{}", header.user, header.login, header.node),
        };
        let head = match self.version {
            Version::Two => Head::Two {
                version: 2,
                width: cols,
                height: rows,
                facts,
                env: kind.map(|term| ("TERM", term)).into_iter().collect(),
            },
            Version::Three => Head::Three {
                version: 3,
                term: Term { cols, rows, kind },
                facts,
            },
        };
        serde_json::to_writer(&mut *self.out, &head).map_err(std::io::Error::from)?;
        Ok(self.out.write_all(b"\n")?)
    }

    fn event(&mut self, at: Span, shown: &Shown) -> Result<(), ExportError> {
        let (code, data) = match shown {
            Shown::Text(text) => ("o", text.clone()),
            Shown::Resize { cols, rows } => ("r", format!("{cols}x{rows}")),
            Shown::Mark(label) => ("m", label.clone()),
            Shown::Exit(status) if self.version == Version::Three => ("x", status.to_string()),
            Shown::Exit(_) => return Ok(()),
        };
        let millis = match self.version {
            Version::Two => at.as_millis(),
            Version::Three => at.as_millis().saturating_sub(self.before.as_millis()),
        };
        self.before = at.max(self.before);
        let data = serde_json::to_string(&data).map_err(std::io::Error::from)?;
        let (secs, millis) = (millis / 1000, millis % 1000);
        Ok(writeln!(
            self.out,
            "[{secs}.{millis:03}, \"{code}\", {data}]"
        )?)
    }
}
