//! Which sockets are bound inside the namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Port of DNS (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

/// The sockets of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where the explicit proxy listens: loopback of both families, one port.
    pub explicit: Vec<SocketAddr>,
    /// Ports on which a connection to any address is captured.
    pub captured_ports: Vec<u16>,
    /// Whether port 53 is a resolver's.
    pub dns: bool,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Port 0 cannot be dialled.
    #[error("port 0 cannot be captured")]
    PortZero,
    /// The resolver has it.
    #[error("port 53 cannot be captured: the stub resolver listens there")]
    DnsPort,
    /// Every port is captured.
    #[error("no port is left for the proxy itself")]
    NoPortLeft,
}

impl Plan {
    /// Plans the explicit listener on the first port from `explicit_port` that nothing else needs.
    pub fn new(
        explicit_port: u16,
        captured_ports: impl IntoIterator<Item = u16>,
        dns: bool,
    ) -> Result<Self, PlanError> {
        let mut captured_ports: Vec<u16> = captured_ports.into_iter().collect();
        captured_ports.sort_unstable();
        captured_ports.dedup();
        if captured_ports.contains(&0) {
            return Err(PlanError::PortZero);
        }
        if dns && captured_ports.contains(&DNS_PORT) {
            return Err(PlanError::DnsPort);
        }
        let free = |port: &u16| *port != DNS_PORT && captured_ports.binary_search(port).is_err();
        let port = (explicit_port.max(1)..=u16::MAX).find(free).ok_or(PlanError::NoPortLeft)?;
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let explicit = loopback.map(|address| SocketAddr::new(address, port)).into();
        Ok(Self { explicit, captured_ports, dns })
    }

    /// The port of the resolver, where there is one.
    pub fn dns_port(&self) -> Option<u16> {
        self.dns.then_some(DNS_PORT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_explicit_port_makes_way_for_captured_ones() {
        for (explicit, captured, expected) in [
            (3128, &[443, 80, 443][..], Ok((3128, vec![80, 443]))),
            (3128, &[3128, 3129], Ok((3130, vec![3128, 3129]))),
            (53, &[], Ok((54, vec![]))),
            (0, &[], Ok((1, vec![]))),
            (65535, &[65535], Err(PlanError::NoPortLeft)),
            (3128, &[0], Err(PlanError::PortZero)),
            (3128, &[53], Err(PlanError::DnsPort)),
        ] {
            let plan = Plan::new(explicit, captured.iter().copied(), true);
            let plan = plan.map(|plan| (plan.explicit[0].port(), plan.captured_ports));
            assert_eq!(plan, expected, "{explicit} {captured:?}");
        }
    }
}
