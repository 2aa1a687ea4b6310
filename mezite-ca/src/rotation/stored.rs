//! A rotation at rest: JSON, read back only if it is a state that the machine can be in.

use data_encoding::BASE64;
use mezite_core::UnixTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Generation, Phase, Rotation, RotationError, check_generation, side};
use crate::kind::KeyKind;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    kind: KeyKind,
    phase: Phase,
    old: StoredGeneration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new: Option<StoredGeneration>,
    since: UnixTime,
    switched: UnixTime,
    highest: u64,
}

/// Bytes as base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredGeneration {
    number: u64,
    public_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
}

impl From<&Generation> for StoredGeneration {
    fn from(generation: &Generation) -> Self {
        Self {
            number: generation.number,
            public_key: BASE64.encode(&generation.public_key),
            certificate: generation
                .certificate
                .as_ref()
                .map(|der| BASE64.encode(der)),
        }
    }
}

impl TryFrom<StoredGeneration> for Generation {
    type Error = RotationError;

    fn try_from(stored: StoredGeneration) -> Result<Self, RotationError> {
        let bytes = |text: &str| {
            BASE64
                .decode(text.as_bytes())
                .map_err(|_| RotationError::Stored("a key is not base64"))
        };
        Ok(Self {
            number: stored.number,
            public_key: bytes(&stored.public_key)?
                .try_into()
                .map_err(|_| RotationError::Stored("a key has not 32 bytes"))?,
            certificate: stored.certificate.as_deref().map(bytes).transpose()?,
        })
    }
}

impl TryFrom<Stored> for Rotation {
    type Error = RotationError;

    fn try_from(stored: Stored) -> Result<Self, RotationError> {
        let rotation = Self {
            kind: stored.kind,
            phase: stored.phase,
            old: stored.old.try_into()?,
            new: stored.new.map(TryInto::try_into).transpose()?,
            since: stored.since,
            switched: stored.switched,
            highest: stored.highest,
        };
        side(rotation.kind)?;
        check_generation(rotation.kind, &rotation.old)?;
        let old = &rotation.old;
        let sound = match &rotation.new {
            None => rotation.phase == Phase::Standby && old.number <= rotation.highest,
            Some(new) => {
                check_generation(rotation.kind, new)?;
                rotation.phase != Phase::Standby
                    && old.number < new.number
                    && new.number == rotation.highest
                    && old.public_key != new.public_key
            }
        };
        if sound {
            Ok(rotation)
        } else {
            Err(RotationError::Stored(
                "its phase and its generations do not fit",
            ))
        }
    }
}

impl Serialize for Rotation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored {
            kind: self.kind,
            phase: self.phase,
            old: (&self.old).into(),
            new: self.new.as_ref().map(Into::into),
            since: self.since,
            switched: self.switched,
            highest: self.highest,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Rotation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        stored.try_into().map_err(de::Error::custom)
    }
}
