//! The critical option `source-address`: OpenSSH's list of addresses and CIDR blocks (sshd(8), ssh-keygen(1)).

use std::net::IpAddr;

use super::VerifyError;
use crate::kind::escaped;
use crate::ssh::MAX_SOURCES;

/// Refuses unless `source` is known and in the list. A malformed entry anywhere refuses all, whatever matched before.
pub(super) fn check(list: &str, source: Option<IpAddr>) -> Result<(), VerifyError> {
    let malformed = || VerifyError::SourceAddressForm(escaped(list));
    let entries: Option<Vec<Block>> = list.split(',').map(Block::parse).collect();
    let entries = entries
        .filter(|entries| entries.len() <= MAX_SOURCES)
        .ok_or_else(malformed)?;
    let source = source
        .ok_or_else(|| VerifyError::SourceUnknown(escaped(list)))?
        .to_canonical();
    if entries.iter().any(|entry| entry.contains(source)) {
        return Ok(());
    }
    Err(VerifyError::SourceAddress {
        source_address: source,
        allowed: escaped(list),
    })
}

/// An address block, its bits aligned left in 128.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    v4: bool,
    bits: u128,
    length: u32,
}

impl Block {
    /// No spaces, no negation, no host bits set. An IPv4-mapped block is refused: it would match nothing or too much.
    fn parse(entry: &str) -> Option<Self> {
        let (address, length) = match entry.split_once('/') {
            Some((address, length)) => (address, Some(parse_length(length)?)),
            None => (entry, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let mapped = address.to_canonical() != address;
        let (v4, bits) = aligned(address);
        let width = if v4 { 32 } else { 128 };
        let length = length.unwrap_or(width);
        let block = Self { v4, bits, length };
        let sound = !mapped && length <= width && bits & block.mask() == bits;
        sound.then_some(block)
    }

    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - self.length).unwrap_or(0)
    }

    fn contains(&self, address: IpAddr) -> bool {
        let (v4, bits) = aligned(address);
        v4 == self.v4 && bits & self.mask() == self.bits
    }
}

fn parse_length(text: &str) -> Option<u32> {
    let plain =
        !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn aligned(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => (true, u128::from(address.to_bits()) << 96),
        IpAddr::V6(address) => (false, address.to_bits()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_match_as_openssh_says() {
        for (list, source, allowed) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("192.0.2.1,2001:db8::/32", "2001:db8::7", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "203.0.113.9", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
        ] {
            let verdict = check(list, Some(source.parse().unwrap()));
            assert_eq!(verdict.is_ok(), allowed, "{list} {source} {verdict:?}");
        }
    }

    #[test]
    fn attack_08_what_is_not_understood_refuses() {
        for list in [
            "",
            ",",
            "10.0.0.1,",
            " 10.0.0.1",
            "10.0.0.1/",
            "10.0.0.1/33",
            "10.0.0.1/8",
            "!10.0.0.1",
            "10.0.0.*",
            "::ffff:10.0.0.0/104",
            "::ffff:10.0.0.1",
            "10.0.0.1/+8",
            "10.0.0.0/008x",
            "fe80::1%eth0",
            "host",
            "10.0.0.1\n",
            "10.0.0.1,nonsense",
            "::1/129",
        ] {
            let verdict = check(list, Some("10.0.0.1".parse().unwrap()));
            assert_eq!(
                verdict,
                Err(VerifyError::SourceAddressForm(escaped(list))),
                "{list:?}"
            );
        }
        let many = vec!["10.0.0.1"; MAX_SOURCES + 1].join(",");
        assert!(matches!(
            check(&many, Some("10.0.0.1".parse().unwrap())),
            Err(VerifyError::SourceAddressForm(_))
        ));
        assert_eq!(
            check("10.0.0.1", None),
            Err(VerifyError::SourceUnknown("10.0.0.1".to_owned()))
        );
    }

    proptest! {
        #[test]
        fn a_block_contains_exactly_what_shares_its_prefix(base: u32, other: u32, length in 0_u32..=32) {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            let list = format!("{}/{length}", std::net::Ipv4Addr::from(base & mask));
            let verdict = check(&list, Some(std::net::Ipv4Addr::from(other).into()));
            prop_assert_eq!(verdict.is_ok(), base & mask == other & mask);
        }
    }
}
