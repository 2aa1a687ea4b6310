//! Addresses that a forward must not reach by accident: link-local ones, and those at which clouds hand out the
//! credentials of their machines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address stands for: the IPv4 address inside an IPv6 one, however it is wrapped, or itself.
///
/// Mapped (`::ffff:0:0/96`) and compatible (`::/96`) forms (RFC 4291 section 2.5.5), NAT64 (`64:ff9b::/96`, RFC 6052) and
/// 6to4 (`2002::/16`, RFC 3056). `::` and `::1` are themselves.
#[must_use]
pub fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else {
        return address;
    };
    match six.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            four(high, low)
        }
        [0x2002, high, low, ..] => four(high, low),
        _ => address,
    }
}

fn four(high: u16, low: u16) -> IpAddr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into()
}

/// Metadata services outside of the link-local ranges.
const METADATA: [IpAddr; 6] = [
    // Alibaba, Azure, Oracle.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    // Amazon: metadata and names; Google.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether `address`, in whatever form, is link-local or a metadata service.
#[must_use]
pub fn is_guarded(address: IpAddr) -> bool {
    let address = embedded(address);
    let link_local = match address {
        IpAddr::V4(four) => four.is_link_local(),
        IpAddr::V6(six) => six.is_unicast_link_local(),
    };
    link_local || METADATA.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guarded_addresses_are_known_in_every_form() {
        for guarded in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "febf:ffff::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "::ffff:100.100.100.200",
            "168.63.129.16",
        ] {
            assert!(is_guarded(guarded.parse().unwrap()), "{guarded}");
        }
        for plain in [
            "127.0.0.1",
            "10.0.0.1",
            "169.253.169.254",
            "100.100.100.201",
            "::",
            "::1",
            "fec0::1",
            "fd00:ec2::1",
            "2001:db8::a9fe:a9fe",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_guarded(plain.parse().unwrap()), "{plain}");
        }
        assert_eq!(
            embedded("::ffff:10.0.0.1".parse().unwrap()),
            IpAddr::from([10, 0, 0, 1])
        );
    }
}
