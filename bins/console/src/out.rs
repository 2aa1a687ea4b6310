//! What goes to the terminal: lines, tables, documents. Nothing else in the
//! programs writes to standard output or error.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::Value;

use crate::fail::Failure;

/// How lists are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[expect(
    clippy::exhaustive_enums,
    reason = "only the command lines of this house use it"
)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs; stable.
    Json,
    /// For files.
    Yaml,
}

/// Columns for people. Cells are made harmless for the terminal.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these titles.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        let head = head.iter().map(|&cell| cell.to_owned()).collect();
        Self { rows: vec![head] }
    }

    /// Adds a row of known length.
    pub fn row<const N: usize>(&mut self, cells: &[String; N]) {
        self.cells(cells.iter().cloned());
    }

    /// Adds a row.
    pub fn cells(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|cell| plain(&cell)).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (cell, &width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Shows `value`, or the table that says the same to people.
///
/// # Errors
/// [`Failure::output`].
pub fn show(format: Format, value: &Value, table: impl FnOnce() -> Table) -> Result<(), Failure> {
    match format {
        Format::Table => line(table()),
        Format::Json => json(value),
        Format::Yaml => yaml(value),
    }
}

/// One JSON document to standard output.
///
/// # Errors
/// [`Failure::output`].
pub fn json(value: &Value) -> Result<(), Failure> {
    line(serde_json::to_string_pretty(value).map_err(Failure::failed)?)
}

/// One YAML document to standard output.
///
/// # Errors
/// [`Failure::output`].
pub fn yaml(value: &Value) -> Result<(), Failure> {
    let text = serde_saphyr::to_string(value).map_err(Failure::failed)?;
    line(text.trim_end())
}

/// One line, or several, to standard output.
///
/// # Errors
/// [`Failure::output`].
pub fn line(text: impl fmt::Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}

/// Text of several lines from elsewhere, made harmless line by line.
///
/// # Errors
/// [`Failure::output`].
pub fn lines(text: &str) -> Result<(), Failure> {
    text.lines().try_for_each(|one| line(plain(one)))
}

/// Exact bytes to standard output.
///
/// # Errors
/// [`Failure::output`].
pub fn bytes(data: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(data)
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}

/// A line for whoever sits there, beside the output.
#[expect(clippy::print_stderr, reason = "a program for people and scripts")]
pub fn note(text: impl fmt::Display) {
    eprintln!("{}: {text}", program());
}

/// How this program was called, for messages.
pub(crate) fn program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from);
    let name = called.as_deref().and_then(Path::file_name);
    plain(&name.unwrap_or_default().to_string_lossy())
}

/// The text with everything escaped that a terminal would obey or that would change the order of what is read.
#[must_use]
pub fn plain(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if harmful(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NODE", "LOGINS", "STATUS"]);
        table.row(&["web".into(), "alice,root".into(), "online".into()]);
        table.row(&["database-1".into(), String::new(), "offline".into()]);
        assert_eq!(
            table.to_string(),
            "NODE        LOGINS      STATUS\n\
             web         alice,root  online\n\
             database-1              offline"
        );
    }

    #[test]
    fn attack_50_cells_cannot_move_the_cursor() {
        let mut table = Table::new(&["LABELS"]);
        table.row(&["a=\u{1b}]52;c;eA==\u{7}\n\u{202e}b\u{9b}".into()]);
        assert_eq!(
            table.to_string(),
            "LABELS\na=\\u{1b}]52;c;eA==\\u{7}\\n\\u{202e}b\\u{9b}"
        );
    }
}
