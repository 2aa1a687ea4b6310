//! Finds SSH inside SSH: an identification string (RFC 4253 section 4.2) near the beginning of a stream.
//!
//! A server may send other lines first, so every line is looked at, as far as a client would look. What is found is wider
//! than the RFC: OpenSSH reads the version with `sscanf("SSH-%d.%d-")`, which takes `SSH-02.0-` and `SSH- +2.0-`, too.

/// What OpenSSH's client reads before it gives up: so many lines of at most 8 KiB.
const LINES: usize = 1024;
const BYTES: usize = LINES * 8 * 1024;

/// Every identification begins so, followed by a number.
const MARK: &[u8] = b"SSH-";

/// Most bytes of an identification that are told.
const TOLD: usize = 64;

/// Looks at one direction of one stream, whatever the pieces it comes in.
#[derive(Debug)]
pub(super) struct Scanner {
    at: At,
    lines: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// So many bytes of the mark stand at the beginning of the line.
    Mark(usize),
    /// Behind the mark, where a number may follow.
    Number,
    /// In a line that is none.
    Elsewhere,
    /// Far enough, or found.
    Done,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            at: At::Mark(0),
            lines: LINES,
            bytes: BYTES,
        }
    }
}

impl Scanner {
    /// The identification that ends its mark in `piece`, escaped and cut.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Option<String> {
        for (index, byte) in piece.iter().enumerate() {
            if self.at == At::Done {
                return None;
            }
            if self.step(*byte) {
                self.at = At::Done;
                return Some(told(piece.get(index..).unwrap_or_default()));
            }
        }
        None
    }

    /// Whether `byte` completes an identification.
    fn step(&mut self, byte: u8) -> bool {
        self.bytes -= 1;
        self.at = match (self.at, byte) {
            (_, b'\n') => {
                self.lines -= 1;
                At::Mark(0)
            }
            (_, b'\r') => At::Mark(0),
            (At::Mark(seen), _) if MARK.get(seen) == Some(&byte) => match seen + 1 {
                whole if whole == MARK.len() => At::Number,
                part => At::Mark(part),
            },
            (At::Number, b'0'..=b'9') => return true,
            (At::Number, b' ' | b'\t' | 0x0b | 0x0c | b'+' | b'-') => At::Number,
            (At::Mark(_) | At::Number | At::Elsewhere | At::Done, _) => At::Elsewhere,
        };
        if self.bytes == 0 || self.lines == 0 {
            self.at = At::Done;
        }
        false
    }
}

/// The mark and what follows it on its line, as far as it came with it.
fn told(rest: &[u8]) -> String {
    let line = rest
        .iter()
        .take(TOLD)
        .take_while(|byte| !matches!(byte, b'\r' | b'\n'));
    let bytes: Vec<u8> = MARK.iter().chain(line).copied().collect();
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(stream: &[u8]) -> Option<String> {
        Scanner::default().feed(stream)
    }

    #[test]
    fn attack_46_an_identification_is_found_in_every_form() {
        for (stream, told) in [
            (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], "SSH-2.0-OpenSSH_9.2"),
            (b"SSH-1.99-x", "SSH-1.99-x"),
            (b"SSH-1.5-x", "SSH-1.5-x"),
            (b"hello\r\nSSH-2.0-x\r\n", "SSH-2.0-x"),
            (b"\nSSH-2.0-x", "SSH-2.0-x"),
            (b"a\rSSH-2.0-x", "SSH-2.0-x"),
            (b"\0\xff\nSSH-2.0-\xff", "SSH-2.0-\\xff"),
            // As `sscanf` reads numbers.
            (b"SSH-02.0-x", "SSH-02.0-x"),
            (b"SSH- +2.0-x", "SSH-2.0-x"),
        ] {
            assert_eq!(found(stream).as_deref(), Some(told), "{stream:?}");
        }
        let late = "x\n".repeat(LINES - 1) + "SSH-2.0-x";
        assert!(found(late.as_bytes()).is_some());
    }

    #[test]
    fn what_only_talks_of_ssh_passes() {
        for stream in [
            &b""[..],
            b"SSH",
            b"SSH-",
            b"SSH-keys are kept in",
            b"xSSH-2.0-x",
            b"the banner is SSH-2.0-x\n",
            b" SSH-2.0-x",
            b"ssh-2.0-x",
            b"SS\nH-2.0-x",
        ] {
            assert_eq!(found(stream), None, "{stream:?}");
        }
        let late = "x\n".repeat(LINES) + "SSH-2.0-x";
        assert_eq!(found(late.as_bytes()), None);
        let far = [vec![b'x'; BYTES - 1], b"\nSSH-2.0-x".to_vec()].concat();
        assert_eq!(found(&far), None);
    }

    /// Line by line, in other words than the scanner's.
    fn reference(stream: &[u8]) -> bool {
        stream
            .split(|byte| matches!(byte, b'\n' | b'\r'))
            .any(|line| {
                let rest = line.strip_prefix(b"SSH-").unwrap_or_default();
                let number = rest.iter().find(|byte| !b" \t\x0b\x0c+-".contains(byte));
                number.is_some_and(u8::is_ascii_digit)
            })
    }

    proptest! {
        /// However a stream is cut into packets, what is found is the same, and what the reference finds.
        #[test]
        fn attack_46_no_split_hides_an_identification(
            stream in "(S|SS|SSH|SSH-|2|\\.0-|1|x| |\\+|\r|\n){0,16}",
            cuts in proptest::collection::vec(1_usize..6, 1..40),
        ) {
            let stream = stream.as_bytes();
            let whole = reference(stream);
            prop_assert_eq!(found(stream).is_some(), whole);
            let (mut scanner, mut rest, mut hit) = (Scanner::default(), stream, false);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                hit |= scanner.feed(piece).is_some();
                rest = tail;
            }
            prop_assert_eq!(hit, whole);
        }
    }
}
