//! The byte-level words of the format: big-endian integers, LEB128 varints, counted byte strings.

use bytes::Bytes;

/// What was wrong with the bytes, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Takes values off the front of shared bytes, checking every length first.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    source: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a Bytes) -> Self {
        Self { source, at: 0 }
    }

    /// Bytes taken so far.
    pub(crate) fn taken(&self) -> usize {
        self.at
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        let byte = self.source.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        byte.ok_or(Malformed("a value is cut off"))
    }

    /// Unsigned LEB128 of at most 64 bits, in its shortest form only.
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 || shift > 0 && byte == 0 {
                return Err(Malformed("a number is not in its shortest form"));
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    pub(crate) fn varint_u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed("a number exceeds 32 bits"))
    }

    /// A counted byte string of at most `limit` bytes, shared and not copied.
    pub(crate) fn bytes(&mut self, limit: usize) -> Result<Bytes, Malformed> {
        let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if length > limit {
            return Err(Malformed("a byte string exceeds its bound"));
        }
        if length > self.source.len() - self.at {
            return Err(Malformed("a byte string is cut off"));
        }
        let from = self.at;
        self.at += length;
        Ok(self.source.slice(from..self.at))
    }

    /// As many bytes as the type says.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let rest = self.source.get(self.at..).unwrap_or_default();
        let array = rest.first_chunk::<N>().copied();
        self.at += if array.is_some() { N } else { 0 };
        array.ok_or(Malformed("a value is cut off"))
    }

    pub(crate) fn text(&mut self, limit: usize) -> Result<String, Malformed> {
        String::from_utf8(self.bytes(limit)?.into()).map_err(|_| Malformed("a text is not UTF-8"))
    }
}

/// Writes unsigned LEB128.
pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}

/// Writes a counted byte string, cut at `limit`.
pub(crate) fn put_bytes(bytes: &[u8], limit: usize, out: &mut Vec<u8>) {
    let kept = bytes.get(..limit).unwrap_or(bytes);
    put_varint(length(kept), out);
    out.extend_from_slice(kept);
}

/// A length as the format's 64-bit numbers; memory is never larger.
pub(crate) fn length(bytes: &[u8]) -> u64 {
    count(bytes.len())
}

/// A number of things in memory, likewise.
pub(crate) fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip(value in any::<u64>()) {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            let shared = Bytes::from(out);
            let mut reader = Reader::new(&shared);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert!(reader.taken() == shared.len());
        }
    }

    #[test]
    fn varints_have_one_form() {
        for bad in [&[0x80, 0][..], &[0xff; 10], &[0xff; 9], &[]] {
            assert!(
                Reader::new(&Bytes::copy_from_slice(bad)).varint().is_err(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_claimed_length_is_checked_before_anything_is_taken() {
        let mut out = Vec::new();
        put_varint(u64::MAX, &mut out);
        assert!(Reader::new(&Bytes::from(out)).bytes(10).is_err());
        assert!(
            Reader::new(&Bytes::from_static(&[5, 1, 2]))
                .bytes(10)
                .is_err()
        );
    }
}
