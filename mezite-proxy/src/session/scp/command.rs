//! Whether a command line is an scp server and nothing else, as far as its words tell.

/// What an scp server was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// `-f`: files come from the node. Otherwise, `-t`, they go there.
    pub from_node: bool,
    /// Where, as the shell reads it, several names with a space between.
    pub path: Vec<u8>,
}

/// Longest command line that is looked at.
const MAX_COMMAND: usize = 64 * 1024;

impl Command {
    /// Reads `scp [-dpqrv] -t|-f [--] PATH…`; `None` if a shell could make anything else of it.
    #[must_use]
    pub fn read(line: &[u8]) -> Option<Self> {
        let words = words(line.get(..=MAX_COMMAND).map_or(line, |_| &[]))?;
        let mut words = words.into_iter().peekable();
        if words.next()? != b"scp" {
            return None;
        }
        let (mut to, mut from) = (false, false);
        while let Some(option) = words.next_if(|word| word.starts_with(b"-")) {
            match option.as_slice() {
                b"--" => break,
                b"-" => return None,
                [_, letters @ ..] => {
                    for letter in letters {
                        match letter {
                            b't' => to = true,
                            b'f' => from = true,
                            b'd' | b'p' | b'q' | b'r' | b'v' => {}
                            _ => return None,
                        }
                    }
                }
                [] => return None,
            }
        }
        let paths: Vec<Vec<u8>> = words.collect();
        let one = paths.len() == 1 || from && !paths.is_empty();
        (to != from && one).then(|| Self {
            from_node: from,
            path: paths.join(&b' '),
        })
    }
}

/// The words of a line that has no shell syntax but quotes, `~` and patterns of file names.
fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' => words.extend(word.take()),
            b'\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next()? {
                        b'\'' => break,
                        b'\n' | 0 => return None,
                        quoted => word.push(quoted),
                    }
                }
            }
            b'"' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next()? {
                        b'"' => break,
                        b'$' | b'`' | b'\\' | b'!' | b'\n' | 0 => return None,
                        quoted => word.push(quoted),
                    }
                }
            }
            b'\\' => match bytes.next()? {
                b'\n' | 0 => return None,
                escaped => word.get_or_insert_default().push(escaped),
            },
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | 0x80.. => {
                word.get_or_insert_default().push(byte);
            }
            b'-' | b'_' | b'.' | b'/' | b'+' | b',' | b':' | b'@' | b'%' | b'=' | b'^' | b'*'
            | b'?' | b'[' | b']' | b'~' => word.get_or_insert_default().push(byte),
            // Everything else may mean something to some shell.
            _ => return None,
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stock_commands_are_read() {
        for (line, from_node, path) in [
            ("scp -t /tmp/x", false, "/tmp/x"),
            ("scp -r -p -d -t -- -odd", false, "-odd"),
            ("scp -v -f ~/a*", true, "~/a*"),
            ("scp -rpf a 'b c'", true, "a b c"),
            (r#"scp -t "two words""#, false, "two words"),
            (r"scp -t two\ words", false, "two words"),
            ("scp  -t\t''", false, ""),
            ("scp -t Straße", false, "Straße"),
        ] {
            let path = path.as_bytes().to_vec();
            let expected = Some(Command { from_node, path });
            assert_eq!(Command::read(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn attack_45_what_only_looks_like_scp_is_a_command() {
        for line in [
            "",
            "scp",
            "scp -t",
            "scp -t a b",
            "scp -t -f x",
            "scp x",
            "scp -S prog -t x",
            "scp -oProxyCommand=x -t x",
            "scp -t x; bash",
            "scp -t x;bash",
            "scp -t x && bash",
            "scp -t x | bash",
            "scp -t x & bash",
            "scp -t x\nbash",
            "scp -t $(bash)",
            "scp -t \"$(bash)\"",
            "scp -t `bash`",
            "scp -t \"`bash`\"",
            "scp -t <(bash)",
            "scp -t x > y",
            "scp -t {a,b}",
            "scp -t x #",
            "scp -t 'x",
            "scp -t x\\",
            "scp -t 'a\nb'",
            "scp -t x\0",
            "scp() { bash; }; scp -t x",
            "A=b scp -t x",
            "/tmp/scp -t x",
            "'scp' -T -t x",
            "exec scp -t x",
            "\\scp - -t x",
        ] {
            assert_eq!(Command::read(line.as_bytes()), None, "{line:?}");
        }
        let long = format!("scp -t {}", "x".repeat(MAX_COMMAND));
        assert_eq!(Command::read(long.as_bytes()), None);
    }

    proptest! {
        /// Whatever is read as scp has no byte outside of quotes that ends a command or starts another.
        #[test]
        fn no_syntax_passes(rest in "[ -~\n]{0,20}") {
            let line = format!("scp -t {rest}");
            let quoted = rest.contains(['\'', '"', '\\']);
            if Command::read(line.as_bytes()).is_some() && !quoted {
                let syntax = rest.contains(|it| ";&|<>(){}$`\n#!".contains(it));
                prop_assert!(!syntax, "{:?}", rest);
            }
        }
    }
}
