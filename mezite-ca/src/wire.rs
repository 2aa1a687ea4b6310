//! The data types of SSH (RFC 4251 section 5), read without believing a length and written for our own formats.

/// What is wrong with bytes that were read; the field is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Too short, or not what the field may hold.
    Malformed(&'static str),
    /// Longer than its content.
    Trailing(&'static str),
}

/// What of the input is not yet read.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Fault> {
        let (value, rest) = self.0.split_first().ok_or(Fault::Malformed(field))?;
        self.0 = rest;
        Ok(*value)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Fault> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, Fault> {
        self.array(field).map(u64::from_be_bytes)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Fault> {
        let (value, rest) = self.0.split_first_chunk().ok_or(Fault::Malformed(field))?;
        self.0 = rest;
        Ok(*value)
    }

    pub(crate) fn string(&mut self, field: &'static str) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(self.u32(field)?).map_err(|_| Fault::Malformed(field))?;
        let (value, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Fault::Malformed(field))?;
        self.0 = rest;
        Ok(value)
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, Fault> {
        std::str::from_utf8(self.string(field)?).map_err(|_| Fault::Malformed(field))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) const fn finish(&self, field: &'static str) -> Result<(), Fault> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Fault::Trailing(field))
        }
    }
}

/// Bytes that are being written.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    /// A string. What is longer than a length can say is cut: every writer bounds its fields far below.
    pub(crate) fn string(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.u32(length);
        let kept = usize::try_from(length).unwrap_or(usize::MAX);
        self.0.extend(bytes.iter().take(kept));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attack_14_a_length_is_checked_against_what_is_there() {
        for bytes in [&[0, 0, 0][..], &[0, 0, 0, 1], &[0xff; 8], &[0x80, 0, 0, 0]] {
            assert_eq!(Reader(bytes).string("x"), Err(Fault::Malformed("x")));
        }
        let mut reader = Reader(&[0, 0, 0, 0, 9]);
        assert_eq!(reader.string("x"), Ok(&[][..]));
        assert_eq!(reader.finish("x"), Err(Fault::Trailing("x")));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(byte: u8, half: u32, whole: u64, text in ".{0,40}") {
            let mut writer = Writer::default();
            writer.u8(byte);
            writer.string(text.as_bytes());
            writer.u32(half);
            writer.u64(whole);
            let mut reader = Reader(&writer.0);
            prop_assert_eq!(reader.u8("x"), Ok(byte));
            prop_assert_eq!(reader.text("x"), Ok(text.as_str()));
            prop_assert_eq!(reader.u32("x"), Ok(half));
            prop_assert_eq!(reader.u64("x"), Ok(whole));
            prop_assert!(reader.is_empty());
        }
    }
}
