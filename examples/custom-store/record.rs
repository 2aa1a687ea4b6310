//! One commit as the file holds it: length and checksum, then numbers and byte strings, all little-endian.

use mezite_core::store::{Key, StoreError};

/// What a commit did.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The counters after it.
    pub(crate) revision: u64,
    pub(crate) sequence: u64,
    pub(crate) pruned: Vec<(u64, u64)>,
    pub(crate) events: Vec<(u64, Vec<u8>)>,
    /// Key, revision, and the value unless the key was removed.
    pub(crate) entries: Vec<(Key, u64, Option<Vec<u8>>)>,
}

/// Bytes before a record: its length and checksum.
pub(crate) const HEAD: usize = 16;

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let number = |body: &mut Vec<u8>, number: u64| body.extend(number.to_le_bytes());
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        number(&mut body, self.revision);
        number(&mut body, self.sequence);
        number(&mut body, count(self.pruned.len()));
        for (low, high) in &self.pruned {
            number(&mut body, *low);
            number(&mut body, *high);
        }
        number(&mut body, count(self.events.len()));
        for (sequence, event) in &self.events {
            number(&mut body, *sequence);
            number(&mut body, count(event.len()));
            body.extend(event);
        }
        number(&mut body, count(self.entries.len()));
        for (key, revision, value) in &self.entries {
            number(&mut body, *revision);
            number(&mut body, count(key.as_str().len()));
            body.extend(key.as_str().as_bytes());
            // One more than the length, so that 0 is no value.
            number(
                &mut body,
                value.as_ref().map_or(0, |value| count(value.len()) + 1),
            );
            body.extend(value.as_deref().unwrap_or_default());
        }
        let mut record = count(body.len()).to_le_bytes().to_vec();
        record.extend(checksum(&body).to_le_bytes());
        record.extend(body);
        record
    }

    /// Takes the first record off `bytes`; `None` if they end before it does.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Result<Option<Self>, StoreError> {
        let mut rest = Reader(bytes);
        let (Some(length), Some(sum)) = (rest.number(), rest.number()) else {
            return Ok(None);
        };
        let Some(body) = usize::try_from(length)
            .ok()
            .and_then(|length| rest.bytes(length))
        else {
            return Ok(None);
        };
        if checksum(body) != sum {
            return Err(damaged("a checksum is wrong"));
        }
        let record = Reader(body).record()?;
        *bytes = rest.0;
        Ok(Some(record))
    }
}

pub(crate) fn damaged(why: &str) -> StoreError {
    StoreError::Corrupt(format!("the file is damaged: {why}"))
}

/// FNV-1a: finds what a disk does by accident, nothing that somebody does on purpose.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let bytes = self.bytes(8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.number()?).ok()?;
        self.bytes(length).map(<[u8]>::to_vec)
    }

    fn record(mut self) -> Result<Record, StoreError> {
        self.fields()
            .ok_or_else(|| damaged("a record does not end where it says"))
    }

    fn fields(&mut self) -> Option<Record> {
        let mut record = Record {
            revision: self.number()?,
            sequence: self.number()?,
            ..Record::default()
        };
        for _ in 0..self.number()? {
            record.pruned.push((self.number()?, self.number()?));
        }
        for _ in 0..self.number()? {
            record.events.push((self.number()?, self.text()?));
        }
        for _ in 0..self.number()? {
            let revision = self.number()?;
            let key = Key::new(String::from_utf8(self.text()?).ok()?).ok()?;
            let value = match self.number()?.checked_sub(1) {
                None => None,
                Some(length) => Some(self.bytes(usize::try_from(length).ok()?)?.to_vec()),
            };
            record.entries.push((key, revision, value));
        }
        self.0.is_empty().then_some(record)
    }
}
