//! What stood on a terminal: an emulator (`avt`) behind bounds, because programs that are watched may be hostile.
//!
//! It takes text that [`Filter`](crate::play::Filter) let through, so sequences are whole, numbers small, and nothing
//! resizes it from inside.

use std::collections::BTreeSet;
use std::mem;

use avt::observer::Observation;
use avt::parser::{Function, Parser};
use avt::{Line, Observer, Operation, ScreenKind, Terminal};

/// The size of a terminal that nobody told.
pub(crate) const DEFAULT_SIZE: (u32, u32) = (80, 24);
/// Columns for output without a terminal; longer lines wrap and are joined again.
const PAPER: (u32, u32) = (200, 1);
/// Longest line that is joined; one without an end is given out in pieces.
const MAX_LINE: usize = 16 * 1024;
/// Cells that may be touched however little was written.
const FREE_CELLS: u64 = 200_000_000;
/// Cells that may be touched per byte written. `vi` and `top` stay far below.
const CELLS_PER_BYTE: u64 = 64;
/// Lines of an alternate screen that are remembered so as not to be given out twice.
const MAX_SEEN: usize = 20_000;

/// One terminal and the lines that leave it.
pub(crate) struct Emulator {
    terminal: Option<Terminal>,
    parser: Parser,
    lines: Lines,
    budget: Budget,
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator").finish_non_exhaustive()
    }
}

impl Emulator {
    /// A terminal of this size; zero counts as one.
    pub(crate) fn new((cols, rows): (u32, u32)) -> Self {
        let side = |side: u32| usize::try_from(side.clamp(1, crate::screen::MAX_SIDE)).unwrap_or(1);
        Self {
            terminal: Terminal::new(side(cols), side(rows)).ok(),
            parser: Parser::new(),
            lines: Lines::default(),
            budget: Budget::default(),
        }
    }

    /// Output that no terminal shows: every line feed ends a line.
    pub(crate) fn paper() -> Self {
        Self::new(PAPER)
    }

    /// Takes `text` in and gives the lines that scrolled off the screen.
    pub(crate) fn push(&mut self, text: &str) -> Vec<String> {
        let mut characters = text.chars();
        let Self {
            terminal,
            parser,
            lines,
            budget,
        } = self;
        if let (Some(terminal), false) = (terminal.as_mut(), budget.spent) {
            let area = area(terminal);
            budget.earn(text.len());
            let functions = characters
                .by_ref()
                .filter_map(|it| parser.feed(it))
                .take_while(|function| budget.spend(function, area));
            terminal.execute_with(functions, &mut *lines);
        }
        if budget.spent {
            lines.plain(characters.as_str());
        }
        mem::take(&mut lines.ready)
    }

    /// A new size.
    pub(crate) fn resize(&mut self, (cols, rows): (u32, u32)) -> Vec<String> {
        let side = |side: u32| usize::try_from(side.clamp(1, crate::screen::MAX_SIDE)).unwrap_or(1);
        if let Some(terminal) = &mut self.terminal {
            let (cols, rows) = (side(cols), side(rows));
            if self.budget.take(area(terminal) + cells(cols, rows)) {
                terminal.resize_with(cols, rows, &mut self.lines);
            }
        }
        mem::take(&mut self.lines.ready)
    }

    /// What newly stands on a full-screen program's screen. To be asked when nothing moved for a while: a person could
    /// read it then.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        if let Some(terminal) = &self.terminal {
            self.lines.alternate(terminal);
        }
        mem::take(&mut self.lines.ready)
    }

    /// What is left on the screen at the end. The terminal is blank afterwards.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        if let Some(terminal) = &mut self.terminal {
            self.lines.alternate(terminal);
            self.lines.rest_of(terminal);
            let (cols, rows) = terminal.size();
            self.terminal = Terminal::new(cols, rows).ok();
            self.parser = Parser::new();
        }
        self.lines.end_line();
        mem::take(&mut self.lines.ready)
    }

    /// What paints the present screen on a cleared terminal of the same size; `None` if the recording had the emulator
    /// do more than it is ready to.
    pub(crate) fn dump(&self) -> Option<String> {
        let terminal = self.terminal.as_ref()?;
        // The library writes control sequences that not every terminal knows: CSI as one character, and the alternate screen
        // without saving the cursor.
        let portable = |dump: String| {
            dump.replace('\u{9b}', "\u{1b}[")
                .replace("\u{1b}[?1047", "\u{1b}[?1049")
        };
        (!self.budget.spent).then(|| portable(terminal.dump()))
    }
}

fn cells(cols: usize, rows: usize) -> u64 {
    u64::try_from(cols.saturating_mul(rows)).unwrap_or(u64::MAX)
}

fn area(terminal: &Terminal) -> u64 {
    let (cols, rows) = terminal.size();
    cells(cols, rows)
}

/// A few bytes can clear a million cells, so work is counted. When more is asked for than any honest program needs, the
/// rest is read without a terminal.
#[derive(Debug)]
struct Budget {
    left: u64,
    spent: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            left: FREE_CELLS,
            spent: false,
        }
    }
}

impl Budget {
    fn earn(&mut self, bytes: usize) {
        let earned = u64::try_from(bytes)
            .unwrap_or(u64::MAX)
            .saturating_mul(CELLS_PER_BYTE);
        self.left = self.left.saturating_add(earned);
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is not known to be cheap costs the whole screen"
    )]
    fn spend(&mut self, function: &Function, area: u64) -> bool {
        let cost = match function {
            Function::Print(_)
            | Function::Sgr(_)
            | Function::Cr
            | Function::Bs
            | Function::Cup(..)
            | Function::Cuf(_)
            | Function::Cub(_)
            | Function::Cuu(_)
            | Function::Cud(_)
            | Function::Ht => 1,
            // A line feed makes a new line at most.
            Function::Lf | Function::Nel => 1 + area.isqrt(),
            Function::Rep(count) => u64::from(*count),
            _ => area,
        };
        self.take(cost)
    }

    fn take(&mut self, cost: u64) -> bool {
        match self.left.checked_sub(cost) {
            Some(left) if !self.spent => {
                self.left = left;
                true
            }
            _ => {
                self.spent = true;
                false
            }
        }
    }
}

/// Collects lines as they leave the main screen, and what an alternate screen showed last.
#[derive(Default)]
struct Lines {
    pending: String,
    ready: Vec<String>,
    seen: BTreeSet<String>,
}

impl Lines {
    fn push(&mut self, line: &Line) {
        self.pending.extend(line.chars());
        if !line.is_wrapped() || self.pending.len() > MAX_LINE {
            self.end();
        }
    }

    fn end(&mut self) {
        self.pending.truncate(self.pending.trim_end().len());
        self.ready.push(mem::take(&mut self.pending));
    }

    fn end_line(&mut self) {
        if !self.pending.trim_end().is_empty() {
            self.end();
        }
        self.pending.clear();
    }

    /// Everything on the main screen down to its last line that holds something.
    fn rest_of(&mut self, terminal: &Terminal) {
        let before = self.ready.len();
        for line in terminal.primary_screen().all_lines() {
            self.push(line);
        }
        while self.ready.len() > before && self.ready.last().is_some_and(String::is_empty) {
            self.ready.pop();
        }
    }

    /// Lines of the alternate screen that were not given out since it was entered.
    fn alternate(&mut self, terminal: &Terminal) {
        if terminal.active_screen_kind() != ScreenKind::Alternate {
            return;
        }
        for line in terminal.screen().visible_lines() {
            let mut text = line.text();
            text.truncate(text.trim_end().len());
            if !text.is_empty() && !self.seen.contains(&text) {
                if self.seen.len() >= MAX_SEEN {
                    self.seen.clear();
                }
                self.seen.insert(text.clone());
                self.ready.push(text);
            }
        }
    }

    /// Text read without a terminal: controls other than line ends are left out, what they enclosed stays visible.
    fn plain(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '\n' => self.end(),
                '\t' => self.pending.push(' '),
                _ if character.is_control() => {}
                _ => self.pending.push(character),
            }
            if self.pending.len() > MAX_LINE {
                self.end();
            }
        }
    }
}

impl Observer for Lines {
    type Output = ();

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        match operation {
            Operation::Function(Function::Ris) => self.rest_of(context.terminal()),
            // Perhaps the end of the alternate screen: it is gone afterwards.
            Operation::Function(Function::Decrst(_)) => {
                self.alternate(context.terminal());
                self.seen.clear();
            }
            Operation::Function(_) | Operation::Resize { .. } => {}
        }
    }

    fn evicted(&mut self, _: &mut Observation<'_>, line: &Line) {
        self.push(line);
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut emulator: Emulator, pieces: &[&str]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in pieces {
            lines.extend(emulator.push(piece));
        }
        lines.extend(emulator.finish());
        lines
    }

    #[test]
    fn what_was_typed_over_reads_as_it_was_seen() {
        let typed = ["$ lss\u{8}\u{1b}[K -l\r\n", "total 0\r\n50%\r100%\r\n"];
        assert_eq!(
            all(Emulator::new((80, 24)), &typed),
            ["$ ls -l", "total 0", "100%"]
        );
    }

    #[test]
    fn wrapped_lines_are_one_line() {
        let long = "x".repeat(450);
        assert_eq!(
            all(Emulator::paper(), &[&long, "\r\ny"]),
            [long.as_str(), "y"]
        );
        assert_eq!(
            all(Emulator::new((10, 3)), &[&long, "\r\ny"]),
            [long.as_str(), "y"]
        );
    }

    #[test]
    fn a_full_screen_program_is_read_when_it_rests_and_when_it_ends() {
        let mut emulator = Emulator::new((20, 4));
        emulator.push("$ vi\r\n\u{1b}[?1049h\u{1b}[2J\u{1b}[Hfirst page");
        assert_eq!(emulator.rest(), ["first page"]);
        assert_eq!(emulator.rest(), Vec::<String>::new());
        let left = emulator.push("\u{1b}[2J\u{1b}[Hsecond page\u{1b}[?1049l");
        assert_eq!(left, ["second page"]);
        assert_eq!(emulator.finish(), ["$ vi"]);
    }

    #[test]
    fn attack_47_a_bomb_of_screen_commands_ends_the_emulation_and_loses_no_text() {
        let mut emulator = Emulator::new((1000, 1000));
        let mut lines = Vec::new();
        for _ in 0..200 {
            lines.extend(emulator.push(&"\u{1b}[2J\u{1b}[1;1H\u{1b}[9999b".repeat(1000)));
        }
        lines.extend(emulator.push("\r\nstill here\r\n"));
        assert!(lines.iter().any(|line| line == "still here"));
        let touched = FREE_CELLS + 5_000_000 * CELLS_PER_BYTE;
        assert!(
            touched < 1_000_000_000,
            "bounded by what was written: {touched}"
        );
        assert_eq!(emulator.dump(), None);
    }

    #[test]
    fn a_line_without_an_end_is_given_out_in_pieces() {
        let mut emulator = Emulator::paper();
        let mut given = 0;
        for _ in 0..100 {
            given += emulator
                .push(&"x".repeat(1000))
                .iter()
                .map(String::len)
                .sum::<usize>();
        }
        assert!(given > 80_000, "{given}");
    }
}
