//! Bytes that arrive in pieces, as text: a character cut between two pieces is one character, and what is not UTF-8
//! becomes U+FFFD.

/// Joins pieces of UTF-8.
#[derive(Clone, Debug, Default)]
pub(crate) struct Utf8 {
    /// The beginning of a character, at most three bytes.
    pending: Vec<u8>,
}

impl Utf8 {
    /// The text of `bytes` as far as whole characters go.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.pending);
        all.extend_from_slice(bytes);
        let mut text = String::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && is_beginning(invalid) {
                self.pending = invalid.to_vec();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }

    /// What is left at the end: a character that was never completed.
    pub(crate) fn finish(&mut self) -> &'static str {
        if std::mem::take(&mut self.pending).is_empty() {
            ""
        } else {
            "\u{fffd}"
        }
    }
}

/// Whether more bytes could still make a character of these.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn invalid_bytes_become_one_replacement_each_maximal_part() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.push(b"a\xffb\xc3"), "a\u{fffd}b");
        assert_eq!(utf8.push(b"("), "\u{fffd}(");
        assert_eq!(utf8.push(b"\xe2\x82"), "");
        assert_eq!(utf8.finish(), "\u{fffd}");
        assert_eq!(utf8.finish(), "");
    }

    proptest! {
        #[test]
        fn attack_47_cuts_do_not_change_the_text(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "\\PC{0,20}",
            cut in 0_usize..80) {
            for whole in [bytes, text.into_bytes()] {
                let (front, back) = whole.split_at(cut.min(whole.len()));
                let mut utf8 = Utf8::default();
                let joined = utf8.push(front) + &utf8.push(back) + utf8.finish();
                prop_assert_eq!(joined, String::from_utf8_lossy(&whole));
            }
        }
    }
}
