//! Keys while playing: those of asciinema's players, and what people who know `less` try.

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Pause,
    Step,
    Back,
    Forward,
    PreviousMark,
    NextMark,
    Slower,
    Faster,
    /// To so many tenths.
    Tenth(u8),
    Start,
    End,
    Idle,
    Help,
    Quit,
}

/// The keys in what a terminal in raw mode sent. What means nothing is left out.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while let Some((first, rest)) = bytes.split_first() {
        bytes = rest;
        if *first == 0x1b {
            let (key, rest) = sequence(rest);
            keys.extend(key);
            bytes = rest;
            continue;
        }
        keys.extend(match first {
            b' ' | b'p' => Some(Key::Pause),
            b'.' => Some(Key::Step),
            b'h' => Some(Key::Back),
            b'l' => Some(Key::Forward),
            b'[' | b'N' => Some(Key::PreviousMark),
            b']' | b'n' => Some(Key::NextMark),
            b'<' | b'-' => Some(Key::Slower),
            b'>' | b'+' | b'=' => Some(Key::Faster),
            digit @ b'0'..=b'9' => Some(Key::Tenth(digit - b'0')),
            b'g' => Some(Key::Start),
            b'G' => Some(Key::End),
            b'i' => Some(Key::Idle),
            b'?' | b'H' => Some(Key::Help),
            // Ctrl-C and Ctrl-D too: raw mode makes no signal of them.
            b'q' | b'Q' | 0x03 | 0x04 => Some(Key::Quit),
            _ => None,
        });
    }
    keys
}

/// After ESC: an arrow or a function key (ECMA-48, as xterm sends them), or nothing.
fn sequence(bytes: &[u8]) -> (Option<Key>, &[u8]) {
    let Some((b'[' | b'O', rest)) = bytes.split_first() else {
        return (None, bytes);
    };
    let end = rest.iter().position(|it| (0x40..=0x7e).contains(it));
    let Some((sequence, rest)) = end.and_then(|end| rest.split_at_checked(end + 1)) else {
        return (None, &[]);
    };
    let key = match sequence {
        [.., b'D'] => Some(Key::Back),
        [.., b'C'] => Some(Key::Forward),
        [b'5', b'~'] => Some(Key::PreviousMark),
        [b'6', b'~'] => Some(Key::NextMark),
        [b'H'] | [b'1', b'~'] => Some(Key::Start),
        [b'F'] | [b'4', b'~'] => Some(Key::End),
        _ => None,
    };
    (key, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_people_know() {
        use Key::*;
        assert_eq!(parse(b" .]["), [Pause, Step, NextMark, PreviousMark]);
        assert_eq!(parse(b"\x1b[D\x1b[C\x1bOC"), [Back, Forward, Forward]);
        assert_eq!(
            parse(b"\x1b[5~\x1b[6~\x1b[1;5C"),
            [PreviousMark, NextMark, Forward]
        );
        assert_eq!(parse(b"05<>"), [Tenth(0), Tenth(5), Slower, Faster]);
        assert_eq!(parse(b"\x03"), [Quit]);
    }

    #[test]
    fn what_means_nothing_does_nothing() {
        assert!(parse(b"\x1b").is_empty());
        assert!(parse(b"\x1b[").is_empty());
        assert!(parse(b"\x1b[1;2").is_empty());
        assert!(parse(b"zx\xff\0").is_empty());
        assert_eq!(parse(b"\x1b\x1b[Cq"), [Key::Forward, Key::Quit]);
    }
}
