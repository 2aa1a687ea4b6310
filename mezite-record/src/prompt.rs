//! Where commands begin on a terminal. Nobody tells: what is typed is not recorded by default. But shells of today mark
//! the moment a line is accepted, and the line stands on the screen by then.

use crate::play::Filter;
use crate::terminal::Emulator;

/// What `readline`, zsh and fish write when a line is accepted: paste is no longer bracketed.
const PASTE_OFF: &str = "\u{1b}[?2004l";
/// Semantic prompts (OSC 133, as in FinalTerm): the command's output begins.
const EXECUTED: &str = "\u{1b}]133;C";
/// Longest line that is kept.
const MAX_LINE: usize = 4096;

/// Follows the output of one terminal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompts {
    /// What was written since the last line feed.
    line: String,
    /// The line before, for shells that end the line first and then mark it.
    before: String,
}

impl Prompts {
    /// Takes output in, unfiltered; gives the lines that were accepted in it, prompt and all.
    pub(crate) fn push(&mut self, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for character in text.chars() {
            if character == '\n' {
                self.before = std::mem::take(&mut self.line);
                continue;
            }
            if self.line.len() < MAX_LINE {
                self.line.push(character);
            }
            let marked = (character == 'l' && self.line.ends_with(PASTE_OFF))
                || (character == 'C' && self.line.ends_with(EXECUTED));
            if marked {
                found.extend(self.accepted());
            }
        }
        found
    }

    /// The line that stands there is accepted: somebody pressed Enter.
    pub(crate) fn accepted(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let before = std::mem::take(&mut self.before);
        [line, before].iter().find_map(|it| readable(it))
    }
}

/// The line as a person read it.
fn readable(line: &str) -> Option<String> {
    let mut emulator = Emulator::paper();
    let mut lines = emulator.push(&Filter::new().push(line));
    lines.extend(emulator.finish());
    let line = lines.pop()?;
    let line = line.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pieces: &[&str]) -> Vec<String> {
        let mut prompts = Prompts::default();
        pieces.iter().flat_map(|it| prompts.push(it)).collect()
    }

    #[test]
    fn commands_are_found_as_shells_mark_them() {
        let bash = [
            "\u{1b}[?2004halice@web:~$ ",
            "lx\u{8}\u{1b}[Ks -l\r\n\u{1b}[?20",
            "04l\rtotal 0\r\n",
        ];
        assert_eq!(found(&bash), ["alice@web:~$ ls -l"]);
        let zsh = ["web% ", "l", "s", "\u{1b}[?2004l\r\r\nfile\r\n"];
        assert_eq!(found(&zsh), ["web% ls"]);
        let marked = ["\u{1b}]133;A\u{7}$ \u{1b}]133;B\u{7}id\u{1b}]133;C\u{7}\r\nuid=0\r\n"];
        assert_eq!(found(&marked), ["$ id"]);
    }

    #[test]
    fn an_empty_line_is_no_command_and_a_long_one_is_cut() {
        assert_eq!(found(&["\r\n\u{1b}[?2004l\r"]), Vec::<String>::new());
        let long = "x".repeat(100_000);
        assert!(found(&[&long, "\r\n\u{1b}[?2004l"])[0].len() <= MAX_LINE);
    }
}
