//! asciicast v2, what `asciinema play` and its web player read: a JSON header line, then one JSON array an event.

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

/// The size of a terminal that nobody told.
const DEFAULT_SIZE: (u32, u32) = (80, 24);

/// Writes one channel as asciicast v2: output as `o`, sizes as `r`. Output without a PTY gets carriage returns, bytes
/// that are not UTF-8 become U+FFFD.
///
/// # Errors
/// [`ExportError`].
pub fn asciicast_v2(
    header: &Header,
    frames: impl IntoIterator<Item = Result<Timed, ReadError>>,
    options: Options,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let filter = (!options.verbatim).then(Filter::new);
    let mut screen = Screen::new(options.channel, filter);
    let mut begun = false;
    let mut end = Span::default();
    for timed in frames {
        let timed = timed?;
        end = timed.at;
        if let Some((at, shown)) = screen.push(&timed) {
            begin(&mut begun, header, &screen, out)?;
            event(at, &shown, out)?;
        }
    }
    begin(&mut begun, header, &screen, out)?;
    if let Some(rest) = screen.finish() {
        event(end, &rest, out)?;
    }
    Ok(out.flush()?)
}

#[derive(Serialize)]
struct Head<'a> {
    version: u8,
    width: u32,
    height: u32,
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    title: String,
    env: BTreeMap<&'static str, &'a str>,
}

/// Writes the header before the first event: by then size, terminal and command are known.
fn begin(
    begun: &mut bool,
    header: &Header,
    screen: &Screen,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    if std::mem::replace(begun, true) {
        return Ok(());
    }
    let (width, height) = screen.size.unwrap_or(DEFAULT_SIZE);
    let term = screen.term.as_deref().map(|term| ("TERM", term));
    let head = Head {
        version: 2,
        width,
        height,
        timestamp: header.started.as_secs(),
        command: screen.command.as_deref(),
        title: format!("{} as {}@{}", header.user, header.login, header.node),
        env: term.into_iter().collect(),
    };
    line(&head, out)
}

fn event(at: Span, shown: &Shown, out: &mut impl Write) -> Result<(), ExportError> {
    let (code, data) = match shown {
        Shown::Text(text) => ("o", text.clone()),
        Shown::Resize { cols, rows } => ("r", format!("{cols}x{rows}")),
    };
    let data = serde_json::to_string(&data).map_err(std::io::Error::from)?;
    let (secs, millis) = (at.as_secs(), at.as_millis() % 1000);
    Ok(writeln!(out, "[{secs}.{millis:03}, \"{code}\", {data}]")?)
}

fn line(value: &impl Serialize, out: &mut impl Write) -> Result<(), ExportError> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}
