//! The only resolver: turns a permitted destination into the addresses that may be dialled.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::read_system_conf;
use thiserror::Error;

use crate::config::settings::UpstreamSettings;
use crate::policy::{AddressPolicy, Destination, Host, Refusal, UpstreamFailure};

/// How long one nameserver may take for one query; the second try and the next server come after it.
const QUERY_TIMEOUT: Duration = Duration::from_secs(3);

/// Names to addresses, checked.
#[derive(Clone)]
pub struct Resolver {
    fixed: HashMap<Arc<str>, Vec<IpAddr>>,
    addresses: AddressPolicy,
    dns: TokioResolver,
}

/// Why there is no resolver.
#[derive(Debug, Error)]
pub enum ResolverError {
    /// resolv.conf cannot be read.
    #[error(
        "the machine's resolver configuration cannot be read: {0}; name servers in [upstream.dns] servers"
    )]
    SystemConfiguration(#[source] NetError),
    /// The resolver does not start.
    #[error("the resolver does not start: {0}")]
    Start(#[source] NetError),
}

/// A destination with the addresses that it resolved to and that may be dialled. Never empty.
#[derive(Clone, Debug)]
pub struct Vetted {
    destination: Destination,
    addresses: Vec<IpAddr>,
}

impl Vetted {
    /// What was resolved.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Socket addresses to dial, IPv6 and IPv4 in turn, beginning with the family that came first (RFC 8305 §4).
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let port = self.destination.port();
        let first_is_v6 = self.addresses.first().is_some_and(IpAddr::is_ipv6);
        let (first, second): (Vec<IpAddr>, Vec<IpAddr>) =
            self.addresses.iter().partition(|address| address.is_ipv6() == first_is_v6);
        let turns = first.len().max(second.len());
        (0..turns)
            .flat_map(move |turn| [first.get(turn).copied(), second.get(turn).copied()])
            .flatten()
            .map(move |address| SocketAddr::new(address, port))
    }
}

impl Resolver {
    /// Builds the resolver of one generation.
    pub fn new(settings: &UpstreamSettings) -> Result<Self, ResolverError> {
        let dns = if settings.dns_servers.is_empty() { system()? } else { fixed(&settings.dns_servers)? };
        Ok(Self { fixed: settings.resolve.clone(), addresses: settings.addresses.clone(), dns })
    }

    /// Resolves a destination that the policy has permitted, and checks every address.
    ///
    /// Addresses in ranges that are not allowed are left out; when none remains, the first of them is the refusal.
    pub async fn resolve(&self, destination: &Destination) -> Result<Vetted, Refusal> {
        let candidates = match destination.host() {
            Host::Ip(address) => vec![*address],
            Host::Name(name) => match self.fixed.get(name) {
                Some(addresses) => addresses.clone(),
                None => self
                    .look_up(name)
                    .await
                    .map_err(|failure| Refusal::Upstream { destination: destination.clone(), failure })?,
            },
        };
        let mut refused = None;
        let mut addresses = Vec::with_capacity(candidates.len());
        for address in candidates {
            match self.addresses.check(address) {
                Ok(()) => addresses.push(address),
                Err(range) => refused = refused.or(Some((address, range))),
            }
        }
        match refused {
            Some((address, range)) if addresses.is_empty() => {
                Err(Refusal::AddressNotAllowed { destination: destination.clone(), address, range })
            }
            Some(_) | None => Ok(Vetted { destination: destination.clone(), addresses }),
        }
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, UpstreamFailure> {
        // The trailing dot keeps the machine's search list out of it.
        match self.dns.lookup_ip(format!("{name}.")).await {
            Ok(answer) => {
                let addresses: Vec<IpAddr> = answer.iter().collect();
                if addresses.is_empty() {
                    return Err(UpstreamFailure::NoAddress("it has no address".into()));
                }
                Ok(addresses)
            }
            Err(error) if error.is_nx_domain() => {
                Err(UpstreamFailure::NoAddress("there is no such name".into()))
            }
            Err(error) if error.is_no_records_found() => {
                Err(UpstreamFailure::NoAddress("it has no address".into()))
            }
            Err(error) => Err(UpstreamFailure::ResolverFailed(error.to_string())),
        }
    }
}

fn system() -> Result<TokioResolver, ResolverError> {
    let (config, options) = read_system_conf().map_err(ResolverError::SystemConfiguration)?;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.options_mut().timeout = QUERY_TIMEOUT;
    builder.build().map_err(ResolverError::Start)
}

fn fixed(servers: &[SocketAddr]) -> Result<TokioResolver, ResolverError> {
    let servers = servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().timeout = QUERY_TIMEOUT;
    builder.build().map_err(ResolverError::Start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_dialled_in_turn() {
        let addresses = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2"];
        let vetted = Vetted {
            destination: Destination::parse("a.test:443", None).unwrap(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        };
        let order: Vec<String> = vetted.addresses().map(|address| address.ip().to_string()).collect();
        assert_eq!(order, ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"]);
    }
}
