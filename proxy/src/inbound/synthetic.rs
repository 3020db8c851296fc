//! Names and the synthetic addresses that stand for them inside a sandbox.
//!
//! A program that ignores proxies resolves a name and dials the answer. The answer is an address that exists
//! nowhere: it carries the name back to the proxy, which resolves the name itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::{Ipv4Net, Ipv6Net};

/// 198.18.0.0/15: set aside for benchmarks (RFC 2544), so that no real destination is ever shadowed.
const PREFIX_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);
/// A unique local prefix (RFC 4193) of our own; the number stands in the last 32 bits.
const PREFIX_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfdc4, 0xed6a, 0x7e00, 0, 0, 0, 0, 0), 96);
/// Names that get addresses in one run. Under a wildcard a program can ask for as many as it likes; this bounds what
/// it can make the proxy remember to some 20 MB.
const MOST: u32 = 65_536;

/// The table of one run.
#[derive(Debug, Default)]
pub struct SyntheticNames {
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    numbers: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
}

/// The two addresses of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For A.
    pub v4: Ipv4Addr,
    /// For AAAA.
    pub v6: Ipv6Addr,
}

impl SyntheticNames {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The addresses of a canonical name, the same each time. `None`: the table is full.
    pub fn addresses_of(&self, name: &str) -> Option<Addresses> {
        let known = self.table.read().unwrap_or_else(PoisonError::into_inner).numbers.get(name).copied();
        if let Some(number) = known {
            return Some(addresses(number));
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let number = u32::try_from(table.names.len()).ok().filter(|number| *number < MOST)?;
        if number + 1 == MOST {
            tracing::warn!("{MOST} names have been resolved inside the sandbox; no more get an address");
        }
        let name: Arc<str> = name.into();
        let number = *table.numbers.entry(name.clone()).or_insert(number);
        if number as usize == table.names.len() {
            table.names.push(name);
        }
        Some(addresses(number))
    }

    /// The name that an address was given to.
    pub fn name_of(&self, address: IpAddr) -> Option<Arc<str>> {
        let number = match address.to_canonical() {
            IpAddr::V4(v4) if PREFIX_V4.contains(&v4) => v4.to_bits() - PREFIX_V4.network().to_bits(),
            IpAddr::V6(v6) if PREFIX_V6.contains(&v6) => {
                u32::try_from(v6.to_bits() - PREFIX_V6.network().to_bits()).ok()?
            }
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        // Numbers begin at 1: the first address of a prefix is the network itself.
        table.names.get(usize::try_from(number.checked_sub(1)?).ok()?).cloned()
    }

    /// Whether an address is one of ours, given to a name or not.
    pub fn is_synthetic(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => PREFIX_V4.contains(&v4),
            IpAddr::V6(v6) => PREFIX_V6.contains(&v6),
        }
    }
}

fn addresses(number: u32) -> Addresses {
    Addresses {
        v4: Ipv4Addr::from_bits(PREFIX_V4.network().to_bits() + number + 1),
        v6: Ipv6Addr::from_bits(PREFIX_V6.network().to_bits() + u128::from(number) + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_addresses_and_they_lead_back() {
        let names = SyntheticNames::new();
        let first = names.addresses_of("a.test").unwrap();
        let second = names.addresses_of("b.test").unwrap();
        assert_ne!(first, second);
        assert_eq!(names.addresses_of("a.test"), Some(first));
        assert_eq!(first.v4, Ipv4Addr::new(198, 18, 0, 1));
        for (address, name) in [
            (IpAddr::V4(first.v4), "a.test"),
            (IpAddr::V6(first.v6), "a.test"),
            (IpAddr::V6(second.v4.to_ipv6_mapped()), "b.test"),
        ] {
            assert_eq!(names.name_of(address).as_deref(), Some(name), "{address}");
            assert!(names.is_synthetic(address));
        }
    }

    #[test]
    fn addresses_that_were_not_given_lead_nowhere() {
        let names = SyntheticNames::new();
        names.addresses_of("a.test").unwrap();
        for (address, synthetic) in [
            ("198.18.0.0", true),
            ("198.18.0.2", true),
            ("198.19.255.255", true),
            ("198.20.0.1", false),
            ("127.0.0.1", false),
            ("fdc4:ed6a:7e00::", true),
            ("fdc4:ed6a:7e00::2", true),
            ("fdc4:ed6a:7e01::1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(names.name_of(address), None, "{address}");
            assert_eq!(names.is_synthetic(address), synthetic, "{address}");
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let names = SyntheticNames::new();
        for number in 0..MOST {
            assert!(names.addresses_of(&format!("h{number}.test")).is_some());
        }
        assert_eq!(names.addresses_of("one-more.test"), None);
        assert!(names.addresses_of("h7.test").is_some());
    }
}
