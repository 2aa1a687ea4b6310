//! Identifiers that the system draws. Randomness is an argument.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::time::UnixTime;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{value}` is not a {kind}: expected {form}")]
pub struct IdError {
    kind: &'static str,
    value: String,
    form: &'static str,
}

impl IdError {
    fn new(kind: &'static str, form: &'static str, text: &str) -> Self {
        Self {
            kind,
            value: text
                .chars()
                .take(80)
                .flat_map(char::escape_default)
                .collect(),
            form,
        }
    }
}

/// Declares a 128-bit id written as a UUID version 7 (RFC 9562 section 5.7), so that ids sort by time.
macro_rules! timed_id {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type([u8; 16]);

        impl $type {
            /// An id of the moment `now`, made unique by 74 of the given random bits.
            #[must_use]
            pub fn new(now: UnixTime, random: [u8; 16]) -> Self {
                let mut bytes = random;
                let time = now.as_millis().to_be_bytes();
                for (byte, time) in bytes.iter_mut().zip(&time[2..]) {
                    *byte = *time;
                }
                bytes[6] = 0x70 | (bytes[6] & 0x0f);
                bytes[8] = 0x80 | (bytes[8] & 0x3f);
                Self(bytes)
            }

            /// The 16 bytes, as wire formats carry them.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// The id with exactly these bytes, as read back from a wire format.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for (index, byte) in self.0.iter().enumerate() {
                    if matches!(index, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = || IdError::new($kind, "a UUID such as 0190a5c4-7b3e-7cc0-8a52-3f1d2b4c5d6e", text);
                let hyphens_right = text.len() == 36
                    && text.bytes().enumerate().all(|(at, byte)| matches!(at, 8 | 13 | 18 | 23) == (byte == b'-'));
                if !hyphens_right {
                    return Err(error());
                }
                let bytes = HEXLOWER.decode(text.replace('-', "").as_bytes()).map_err(|_| error())?;
                Ok(Self(bytes.try_into().map_err(|_| error())?))
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> Self {
                id.to_string()
            }
        }
    };
}

timed_id!(
    /// One inner SSH connection of one subject to one node as one login.
    SessionId,
    "session id"
);

timed_id!(
    /// One audit record.
    EventId,
    "event id"
);

/// A node's identity, drawn when it joins: 128 random bits as 26 characters `a-z 2-7`, one DNS label.
///
/// Principals and host certificates name it, so a node's *name* can be reused without reusing trust.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(String);

impl NodeId {
    /// The id made of these random bits.
    #[must_use]
    pub fn new(random: [u8; 16]) -> Self {
        Self(BASE32_NOPAD.encode(&random).to_ascii_lowercase())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let canonical = !text.bytes().any(|byte| byte.is_ascii_uppercase())
            && BASE32_NOPAD
                .decode(text.to_ascii_uppercase().as_bytes())
                .is_ok_and(|bytes| bytes.len() == 16);
        if !canonical {
            return Err(IdError::new("node id", "26 characters of a-z 2-7", text));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for NodeId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The serial number of a certificate (PROTOCOL.certkeys `uint64 serial`). Drawn at random, so that two
/// hubs, or one hub after a restore, do not repeat one. Never zero: a KRL cannot name serial 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Serial(u64);

impl Serial {
    /// A serial from random bits. The top bit is cleared, so that databases with signed integers hold it.
    #[must_use]
    pub fn new(random: [u8; 8]) -> Self {
        Self((u64::from_be_bytes(random) >> 1).max(1))
    }

    /// The serial with this value, as read back.
    #[must_use]
    pub fn from_u64(value: u64) -> Self {
        Self(value)
    }

    /// The number.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timed_ids_are_uuid_7_sort_by_time_and_round_trip() {
        let early = SessionId::new(UnixTime::from_millis(1_700_000_000_000), [0xff; 16]);
        let late = SessionId::new(UnixTime::from_millis(1_700_000_000_001), [0; 16]);
        assert!(early < late);
        assert_eq!(early.to_string(), "018bcfe5-6800-7fff-bfff-ffffffffffff");
        assert_eq!(early.to_string().parse(), Ok(early));
    }

    #[test]
    fn ids_refuse_other_forms() {
        for bad in [
            "",
            "018bcfe568007fffbfffffffffffffff",
            "018bcfe5-6800-7fff-bfff-fffffffffffg",
            "../../../../etc/passwd-aaaa-aaaaaaaa",
        ] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad}");
        }
        let id = NodeId::new([7; 16]);
        assert_eq!(id.as_str().len(), 26);
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert!(id.as_str().to_ascii_uppercase().parse::<NodeId>().is_err());
        assert!("short".parse::<NodeId>().is_err());
    }

    #[test]
    fn serials_fit_signed_columns_and_are_never_zero() {
        assert_eq!(Serial::new([0; 8]).as_u64(), 1);
        assert!(i64::try_from(Serial::new([0xff; 8]).as_u64()).is_ok());
    }
}
