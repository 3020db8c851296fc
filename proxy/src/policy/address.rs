//! Which addresses may be dialled: special-purpose ranges are refused unless the policy lists them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// IANA IPv4 Special-Purpose Address Registry (RFC 6890 and updates), the blocks that are not globally reachable,
/// and multicast (RFC 5771). The few globally reachable exceptions inside 192.0.0.0/24 are of no use to a client.
const SPECIAL_V4: [(Ipv4Net, &str); 16] = [
    (v4(0, 0, 0, 0, 8), "\"this network\""),
    (v4(10, 0, 0, 0, 8), "private-use"),
    (v4(100, 64, 0, 0, 10), "shared address space"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private-use"),
    (v4(192, 0, 0, 0, 24), "IETF protocol assignments"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 88, 99, 0, 24), "6to4 relay anycast"),
    (v4(192, 168, 0, 0, 16), "private-use"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(255, 255, 255, 255, 32), "limited broadcast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// The well-known NAT64 prefix (RFC 6052 §2.1): reaches the IPv4 address in its last 32 bits.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
/// IPv4-mapped addresses (RFC 4291 §2.5.5.2).
const MAPPED: Ipv6Net = v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96);

/// IANA IPv6 Special-Purpose Address Registry and multicast. 6to4 and Teredo carry an IPv4 address that some relay
/// would reach; both are obsolete (RFC 7526, RFC 8215 §1), so they are refused whole.
const SPECIAL_V6: [(Ipv6Net, &str); 18] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), "IPv4-compatible"),
    (v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96), "IPv4-translated"),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "local-use NAT64"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "discard-only"),
    (v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64), "dummy prefix"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "Teredo"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "IETF protocol assignments"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "6to4"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation"),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), "segment routing"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "unique-local"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "site-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 8), "reserved"),
];

/// The special-purpose range an address is in, by name; none for a globally reachable unicast address.
///
/// IPv4 addresses carried inside mapped and NAT64 addresses are judged as what they reach.
pub fn special_purpose(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            SPECIAL_V4.iter().find(|(net, _)| net.contains(&address)).map(|(_, name)| *name)
        }
        IpAddr::V6(address) if MAPPED.contains(&address) || NAT64.contains(&address) => {
            let [.., a, b, c, d] = address.octets();
            special_purpose(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        IpAddr::V6(address) => {
            SPECIAL_V6.iter().find(|(net, _)| net.contains(&address)).map(|(_, name)| *name)
        }
    }
}

/// `[upstream] allow_addresses`.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    allowed: Vec<IpNet>,
}

impl AddressPolicy {
    /// Permits these ranges besides everything globally reachable.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Permits an address, or names the special-purpose range that it is in.
    pub fn check(&self, address: IpAddr) -> Result<(), &'static str> {
        let canonical = address.to_canonical();
        match special_purpose(canonical) {
            Some(range) if !self.allowed.iter().any(|net| net.contains(&canonical)) => Err(range),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_purpose_ranges_are_known() {
        for (address, expected) in [
            ("8.8.8.8", None),
            ("127.0.0.1", Some("loopback")),
            ("10.1.2.3", Some("private-use")),
            ("172.15.255.255", None),
            ("172.16.0.0", Some("private-use")),
            ("172.32.0.0", None),
            ("169.254.169.254", Some("link-local")),
            ("100.100.100.200", Some("shared address space")),
            ("0.0.0.0", Some("\"this network\"")),
            ("198.18.0.1", Some("benchmarking")),
            ("224.0.0.1", Some("multicast")),
            ("255.255.255.255", Some("limited broadcast")),
            ("250.1.1.1", Some("reserved")),
            ("2606:4700::1", None),
            ("::", Some("unspecified")),
            ("::1", Some("loopback")),
            ("::127.0.0.1", Some("IPv4-compatible")),
            ("::ffff:127.0.0.1", Some("loopback")),
            ("::ffff:8.8.8.8", None),
            ("::ffff:0:127.0.0.1", Some("IPv4-translated")),
            ("64:ff9b::8.8.8.8", None),
            ("64:ff9b::127.0.0.1", Some("loopback")),
            ("64:ff9b::a9fe:a9fe", Some("link-local")),
            ("64:ff9b:1::1", Some("local-use NAT64")),
            ("2002:7f00:1::", Some("6to4")),
            ("2001:0:1::", Some("Teredo")),
            ("2001:20::1", Some("IETF protocol assignments")),
            ("2001:db8::1", Some("documentation")),
            ("fd00::1", Some("unique-local")),
            ("fe80::1", Some("link-local")),
            ("ff02::1", Some("multicast")),
            ("fec0::1", Some("site-local")),
            ("100::1", Some("discard-only")),
        ] {
            assert_eq!(special_purpose(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn listed_ranges_are_permitted_in_every_spelling() {
        let policy = AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for (address, expected) in [
            ("127.0.0.1", Ok(())),
            ("::ffff:127.0.0.1", Ok(())),
            ("fd00::1", Ok(())),
            ("::1", Err("loopback")),
            ("10.0.0.1", Err("private-use")),
            // Reaches 127.0.0.1 of a translator, not of this machine.
            ("64:ff9b::127.0.0.1", Err("loopback")),
            ("1.1.1.1", Ok(())),
        ] {
            assert_eq!(policy.check(address.parse().unwrap()), expected, "{address}");
        }
    }
}
