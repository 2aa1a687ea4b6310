//! The one place where this crate draws randomness: the operating system's generator, which keeps nothing in this process.
//! One that does would give a hub that is resumed twice from one snapshot the same keys, serials and nonces.

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use mezite_core::{EventId, NodeId, Secret, Serial, UnixTime};
use rand::Rng as _;
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;

/// The generator, for functions that take one. Without randomness drawing panics: what was to be made is not made.
pub(crate) fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rng().fill_bytes(&mut bytes);
    bytes
}

pub(crate) fn serial() -> Serial {
    Serial::new(bytes())
}

pub(crate) fn node_id() -> NodeId {
    NodeId::new(bytes())
}

/// A name for a lock or a token: sorts by time, tells nothing.
pub(crate) fn document_name(now: UnixTime) -> String {
    EventId::new(now, bytes()).to_string()
}

/// A password of 125 bits in groups that can be read aloud.
pub(crate) fn password() -> Secret<String> {
    let text = BASE32_NOPAD.encode(&bytes::<16>()).to_ascii_lowercase();
    let groups: Vec<String> = text
        .as_bytes()
        .chunks_exact(5)
        .map(|group| group.iter().copied().map(char::from).collect())
        .collect();
    Secret::new(groups.join("-"))
}

/// A join token of 160 bits.
pub(crate) fn token() -> Secret<String> {
    Secret::new(format!("mzt-{}", HEXLOWER.encode(&bytes::<20>())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_tokens_are_long_and_never_the_same() {
        let (one, two) = (password(), password());
        assert_eq!(one.expose().len(), 29, "{}", one.expose());
        assert_ne!(one.expose(), two.expose());
        assert_eq!(token().expose().len(), 44);
        assert_ne!(token().expose(), token().expose());
    }
}
