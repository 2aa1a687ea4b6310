//! Text from outside: escaped so that no screen or line is broken by it, cut so that no event is too long.
//!
//! Text without odd characters is kept as it is. Otherwise `\` becomes `\\` and each odd character becomes `\n`, `\r`,
//! `\t` or `\u{…}`, and a field `<name>_escaped` says so: what was sent can be told exactly in every case.

use std::fmt::Write;

/// Most bytes of a text, escapes included.
pub const TEXT_BYTES: usize = 1024;

/// Most bytes of a command, of an explanation, of a document.
pub const LONG_TEXT_BYTES: usize = 16 * 1024;

/// Text that is fit for an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fit {
    pub(super) text: String,
    pub(super) escaped: bool,
    /// The length in bytes of the whole, where only its beginning fits.
    pub(super) full_bytes: Option<usize>,
}

/// Escapes what is odd, then keeps as many whole characters (and whole escapes) as fit into `limit` bytes.
pub(super) fn fit(text: &str, limit: usize) -> Fit {
    // Whatever lies beyond the limit is cut away in any case; looking at it would only cost time.
    let escaped = text
        .char_indices()
        .take_while(|(at, _)| *at < limit)
        .any(|(_, character)| odd(character));
    keep(text, limit, escaped, |character, out| {
        if escaped {
            escape(character, out);
        } else {
            out.push(character);
        }
    })
}

/// The same for JSON text, which has an escape of its own (RFC 8259 section 7) and needs no flag: odd characters
/// can only stand in its strings, except for white space between its tokens.
pub(super) fn fit_json(json: &str, limit: usize) -> Fit {
    keep(json, limit, false, |character, out| {
        if character.is_ascii_control() && character != '\u{7f}' {
            out.push(' ');
        } else if odd(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    })
}

/// The whole of a field's text as the event would hold it if it were not too long: with odd characters escaped, and whether any
/// was, so that `<field>_escaped` is to be `true`.
#[must_use]
pub fn whole(field: &str, text: &str) -> (String, bool) {
    let fit = match field {
        "command" => fit(text, usize::MAX),
        _ => fit_json(text, usize::MAX),
    };
    (fit.text, fit.escaped)
}

fn keep(text: &str, limit: usize, escaped: bool, put: impl Fn(char, &mut String)) -> Fit {
    let mut kept = String::with_capacity(text.len().min(limit).min(LONG_TEXT_BYTES));
    for character in text.chars() {
        let before = kept.len();
        put(character, &mut kept);
        if kept.len() > limit {
            kept.truncate(before);
            return Fit {
                text: kept,
                escaped,
                full_bytes: Some(text.len()),
            };
        }
    }
    Fit {
        text: kept,
        escaped,
        full_bytes: None,
    }
}

fn escape(character: char, out: &mut String) {
    match character {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        odd_one if odd(odd_one) => {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(odd_one));
        }
        plain => out.push(plain),
    }
}

/// Characters that control a terminal, break a line, turn the reading direction or show nothing at all.
fn odd(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_text_is_kept_as_it_is() {
        let text = "ls -l \"C:\\tmp\" | grep größe 日本";
        let kept = fit(text, TEXT_BYTES);
        assert_eq!(
            (kept.text.as_str(), kept.escaped, kept.full_bytes),
            (text, false, None)
        );
    }

    #[test]
    fn attack_56_odd_characters_are_shown_not_obeyed() {
        let kept = fit("a\\b\n\u{1b}[2J\u{202e}gpj.exe\u{9b}", TEXT_BYTES);
        assert_eq!(kept.text, "a\\\\b\\n\\u{1b}[2J\\u{202e}gpj.exe\\u{9b}");
        assert!(kept.escaped);
    }

    #[test]
    fn attack_56_ten_megabytes_are_cut_and_counted() {
        let kept = fit(&"ä".repeat(5 * 1024 * 1024), 1023);
        assert_eq!(
            (kept.text.len(), kept.full_bytes),
            (1022, Some(10 * 1024 * 1024))
        );
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({"rule": "a\u{202e}b\u{e0001}c", "text": "two\nlines\u{7f}"});
        let kept = fit_json(
            &serde_json::to_string_pretty(&value).unwrap(),
            LONG_TEXT_BYTES,
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&kept.text).unwrap(),
            value
        );
        assert!(!kept.text.chars().any(odd));
    }

    /// Undoes the escapes: the test's own reading of the rule above.
    fn unescape(text: &str) -> String {
        let mut out = String::new();
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            if character != '\\' {
                out.push(character);
                continue;
            }
            match rest.next().unwrap() {
                '\\' => out.push('\\'),
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                'u' => {
                    let hex: String = rest
                        .by_ref()
                        .skip(1)
                        .take_while(|digit| *digit != '}')
                        .collect();
                    out.push(char::from_u32(u32::from_str_radix(&hex, 16).unwrap()).unwrap());
                }
                other => panic!("no escape begins with {other}"),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn what_was_sent_can_be_told_exactly(text in any::<String>(), limit in 0_usize..80) {
            let kept = fit(&text, limit);
            prop_assert!(kept.text.len() <= limit);
            prop_assert!(!kept.text.chars().any(odd));
            let told = if kept.escaped { unescape(&kept.text) } else { kept.text.clone() };
            prop_assert!(text.starts_with(&told));
            prop_assert_eq!(kept.full_bytes, (told != text).then_some(text.len()));
        }
    }
}
