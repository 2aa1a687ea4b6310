//! What a recording may do to the terminal of whoever watches it: paint, and nothing else.
//!
//! A recorded program could address the watcher's terminal: write the clipboard (OSC 52), disguise a link (OSC 8), set
//! a title and have it typed back, start a download, or ask questions whose answers the terminal types into the
//! watcher's shell (DA, DSR, DECRQSS…). So sequences are let through by a list of what only paints; all else is dropped.
//! Control sequences as in ECMA-48 and the xterm control sequence reference.

/// Longest control sequence that is let through.
const MAX_SEQUENCE: usize = 64;
/// Characters after which an unfinished control string counts as text again.
const MAX_STRING: usize = 64 * 1024;
/// Largest number in a control sequence: no terminal has more cells, and none shall be kept busy.
const MAX_NUMBER: u32 = 9999;

/// Lets through what paints. Sequences may be cut between calls.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    state: State,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Ground,
    /// After ESC, with the intermediate characters so far.
    Escape(String),
    /// After ESC [, with everything so far.
    Control(String),
    /// In a string that is dropped; counts its characters. True after ESC.
    Dropped(usize, bool),
}

impl Filter {
    /// A filter at the beginning of an output.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The harmless part of `text`.
    #[must_use]
    pub fn push(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for character in text.chars() {
            self.step(character, &mut out);
        }
        out
    }

    fn step(&mut self, character: char, out: &mut String) {
        self.state = match std::mem::take(&mut self.state) {
            State::Ground => ground(character, out),
            State::Dropped(length, escaped) => dropped(length, escaped, character, out),
            // In a sequence ESC begins anew, CAN and SUB break off, other controls act at once.
            State::Escape(_) | State::Control(_) if character == '\u{1b}' => {
                State::Escape(String::new())
            }
            State::Escape(_) | State::Control(_) if matches!(character, '\u{18}' | '\u{1a}') => {
                State::Ground
            }
            state @ (State::Escape(_) | State::Control(_)) if character.is_ascii_control() => {
                ground(character, out);
                state
            }
            State::Escape(sequence) => escape(sequence, character, out),
            State::Control(sequence) => control(sequence, character, out),
        };
    }
}

fn ground(character: char, out: &mut String) -> State {
    match character {
        '\u{1b}' => State::Escape(String::new()),
        // C1 controls: some terminals obey them in UTF-8 too.
        '\u{9b}' => State::Control(String::new()),
        '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => State::Dropped(0, false),
        '\u{07}'..='\u{0f}' => {
            out.push(character);
            State::Ground
        }
        // Among the rest: ENQ, which makes a terminal answer.
        _ if character.is_control() => State::Ground,
        _ => {
            out.push(character);
            State::Ground
        }
    }
}

fn escape(mut sequence: String, character: char, out: &mut String) -> State {
    match (sequence.as_str(), character) {
        ("", '[') => State::Control(sequence),
        // DCS, SOS, OSC, PM, APC, and the title string of screen.
        ("", 'P' | 'X' | ']' | '^' | '_' | 'k') => State::Dropped(0, false),
        (_, ' '..='/') if sequence.len() < MAX_SEQUENCE => {
            sequence.push(character);
            State::Escape(sequence)
        }
        ("", '7' | '8' | 'D' | 'E' | 'H' | 'M' | '=' | '>' | 'c')
        | ("(" | ")" | "*" | "+", 'A' | 'B' | '0')
        | ("#", '8') => {
            out.push('\u{1b}');
            out.push_str(&sequence);
            out.push(character);
            State::Ground
        }
        _ => State::Ground,
    }
}

fn control(mut sequence: String, character: char, out: &mut String) -> State {
    match character {
        '@'..='~' => {
            if paints(&sequence, character) {
                out.push_str("\u{1b}[");
                out.push_str(&sequence);
                out.push(character);
            }
            State::Ground
        }
        // One character longer than what is let through is kept, so that a long sequence is known as too long.
        ' '..='?' => {
            if sequence.len() <= MAX_SEQUENCE {
                sequence.push(character);
            }
            State::Control(sequence)
        }
        _ => ground(character, out),
    }
}

fn dropped(length: usize, escaped: bool, character: char, out: &mut String) -> State {
    match character {
        '\\' if escaped => State::Ground,
        // ESC ends the string and begins a sequence, as terminals have it.
        _ if escaped => {
            let mut filter = Filter {
                state: State::Escape(String::new()),
            };
            filter.step(character, out);
            filter.state
        }
        '\u{07}' | '\u{18}' | '\u{1a}' | '\u{9c}' => State::Ground,
        _ if length >= MAX_STRING => ground(character, out),
        _ => State::Dropped(length + 1, character == '\u{1b}'),
    }
}

/// Whether the control sequence with these parameters and intermediates, ending in `last`, only paints.
fn paints(sequence: &str, last: char) -> bool {
    if sequence.len() > MAX_SEQUENCE {
        return false;
    }
    let numbers = |text: &str| {
        text.split([';', ':']).all(|number| {
            number.is_empty() || number.parse::<u32>().is_ok_and(|it| it <= MAX_NUMBER)
        })
    };
    match last {
        'h' | 'l' => modes(sequence),
        // DECSCUSR, the shape of the cursor.
        'q' => sequence.strip_suffix(' ').is_some_and(numbers),
        // DECSTR, soft reset.
        'p' => sequence == "!",
        'J' | 'K' => numbers(sequence.strip_prefix('?').unwrap_or(sequence)),
        'A'..='I'
        | 'L'
        | 'M'
        | 'P'
        | 'S'
        | 'T'
        | 'X'
        | 'Z'
        | '@'
        | '`'
        | 'a'
        | 'b'
        | 'd'
        | 'e'
        | 'f'
        | 'g'
        | 'm'
        | 'r'
        | 's'
        | 'u' => numbers(sequence),
        _ => false,
    }
}

/// Modes that change how things look. Not among them: mouse, focus and paste reports, which make a terminal type.
fn modes(sequence: &str) -> bool {
    match sequence.strip_prefix('?') {
        Some(private) => private.split(';').all(|mode| {
            matches!(
                mode,
                "5" | "6" | "7" | "12" | "25" | "45" | "47" | "1047" | "1048" | "1049" | "2026"
            )
        }),
        None => matches!(sequence, "4" | "20"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filtered(text: &str) -> String {
        Filter::new().push(text)
    }

    #[test]
    fn painting_passes_unchanged() {
        for text in [
            "plain ünïcode 漢字\r\n\ttab\u{8}\u{7}",
            "\u{1b}[1;38;5;200mcolour\u{1b}[0m",
            "\u{1b}[38:2::1:2:3m",
            "\u{1b}[?1049h\u{1b}[2J\u{1b}[H\u{1b}[12;40r\u{1b}[?25l",
            "\u{1b}(0lqk\u{1b}(B\u{1b}7\u{1b}8\u{1b}M",
            "\u{1b}[4 q\u{1b}[!p\u{1b}[?2J\u{1b}[52P",
        ] {
            assert_eq!(filtered(text), text);
        }
    }

    #[test]
    fn attack_50_clipboard_links_titles_and_files_are_dropped() {
        for text in [
            "\u{1b}]52;c;cm0gLXJmIH4=\u{7}",
            "\u{1b}]52;c;cm0gLXJmIH4=\u{1b}\\",
            "\u{1b}]0;title\u{7}",
            "\u{1b}]2;title\u{9c}",
            "\u{1b}]1337;File=name=eA==:eA==\u{7}",
            "\u{1b}]777;notify;a;b\u{7}",
            "\u{1b}ktitle\u{1b}\\",
            "\u{9d}52;c;eA==\u{7}",
            "\u{1b}]4;1;?\u{7}",
            "\u{1b}[22;0t\u{1b}[21t",
            "\u{1b}[5i\u{1b}[4i",
        ] {
            assert_eq!(filtered(text), "", "{text:?}");
        }
        let link = "\u{1b}]8;;https://evil.example/\u{1b}\\click\u{1b}]8;;\u{1b}\\";
        assert_eq!(filtered(link), "click");
    }

    #[test]
    fn attack_50_questions_that_a_terminal_answers_are_dropped() {
        for text in [
            "\u{5}",
            "\u{1b}Z",
            "\u{1b}[c\u{1b}[>c\u{1b}[=c\u{1b}[0c",
            "\u{1b}[5n\u{1b}[6n\u{1b}[?6n\u{9b}6n",
            "\u{1b}[x\u{1b}[?25$p\u{1b}[>q\u{1b}[1$u\u{1b}[?u\u{1b}[>1u\u{1b}[?4m",
            "\u{1b}P$qm\u{1b}\\\u{1b}P+q544e\u{1b}\\\u{90}$qm\u{9c}",
            "\u{1b}_Gi=1,a=q;AAAA\u{1b}\\\u{1b}^private\u{1b}\\\u{1b}Xstart\u{1b}\\",
            "\u{1b}[?1000h\u{1b}[?1003;1006h\u{1b}[?1004h\u{1b}[?2004h\u{1b}[>4;2m",
        ] {
            assert_eq!(filtered(text), "", "{text:?}");
        }
    }

    #[test]
    fn attack_50_a_sequence_inside_a_sequence_gains_nothing() {
        assert_eq!(filtered("\u{1b}[\u{1b}]52;c;eA==\u{7}x"), "x");
        assert_eq!(filtered("\u{1b}]0;\u{1b}[6n"), "");
        assert_eq!(filtered("\u{1b}]0;a\u{1b}]52;c;eA==\u{7}x"), "x");
        assert_eq!(filtered("\u{1b}[6\u{5}n\u{1b}[3\n1m"), "\n\u{1b}[31m");
        assert_eq!(filtered("\u{1b}\u{18}[6n"), "[6n");
        assert_eq!(filtered("\u{1b}[\u{9d}52;c;eA==\u{7}"), "");
    }

    #[test]
    fn attack_47_bombs_are_bounded() {
        assert_eq!(filtered("\u{1b}[999999999b\u{1b}[4294967296S"), "");
        let long = format!("\u{1b}[{}m", "1;".repeat(100_000));
        assert_eq!(filtered(&long), "");
        let mut filter = Filter::new();
        let endless = filter.push(&format!("\u{1b}]0;{}", "x".repeat(MAX_STRING + 10)));
        assert!(
            endless.len() < 20,
            "an unfinished string hides no more than its bound"
        );
        assert_eq!(filter.push("y"), "y");
    }

    proptest! {
        #[test]
        fn attack_50_nothing_outside_the_list_comes_out(pieces in prop::collection::vec(
            prop_oneof![Just("\u{1b}"), Just("["), Just("]"), Just("P"), Just("52"), Just(";"), Just("?"), Just("6"),
                Just("n"), Just("c"), Just("\u{7}"), Just("\\"), Just("\u{9b}"), Just("\u{9d}"), Just("m"), Just("x"),
                Just("\u{18}"), Just("$"), Just("q"), Just("h")], 0..30), cut in 0_usize..30) {
            let (front, back) = pieces.split_at(cut.min(pieces.len()));
            let mut filter = Filter::new();
            let out = filter.push(&front.concat()) + &filter.push(&back.concat());
            prop_assert_eq!(&out, &filtered(&pieces.concat()), "cuts change nothing");
            prop_assert_eq!(&out, &filtered(&out), "what passed once passes again");
            for sequence in out.split('\u{1b}').skip(1) {
                // Of what can be built here only these paint: reset, delete characters, colours, origin mode.
                let last = sequence.chars().skip(1).find(|it| ('@'..='~').contains(it));
                let control = sequence.starts_with('[') && matches!(last, Some('P' | 'm' | 'h'));
                prop_assert!(sequence.starts_with('c') || control, "{:?}", out);
                prop_assert!(last != Some('h') || sequence.starts_with("[?6") || !control, "{:?}", out);
            }
            prop_assert!(!out.contains(['\u{9b}', '\u{9d}', '\u{18}']), "a bare control");
        }
    }
}
