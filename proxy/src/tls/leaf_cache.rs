//! Leaves by host: minted once, kept with the `ServerConfig` that presents them, bounded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::authority::{Authority, AuthorityError, provider};
use crate::policy::Host;

/// Hosts whose leaf is kept. A program that connects to more names than this pays a minting (tens of microseconds)
/// for the rest.
const CAPACITY: usize = 1024;
/// A leaf is used this long at most, so that it never expires in use (leaves are valid for six days).
const REUSE: Duration = Duration::from_secs(24 * 3600);

/// The leaves of one CA.
#[derive(Debug)]
pub struct LeafCache {
    authority: Authority,
    leaves: Cache<Host, Leaf>,
}

#[derive(Clone, Debug)]
struct Leaf {
    config: Arc<ServerConfig>,
    minted: Instant,
}

/// Presents one certificate whatever the client asks for: the name was compared before.
#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl ResolvesServerCert for Presents {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl LeafCache {
    /// An empty cache over a CA.
    pub fn new(authority: Authority) -> Self {
        Self { authority, leaves: Cache::new(CAPACITY) }
    }

    /// The CA.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The TLS configuration that presents a leaf for `host`.
    pub fn config(&self, host: &Host) -> Result<Arc<ServerConfig>, AuthorityError> {
        if let Some(leaf) = self.leaves.get(host).filter(|leaf| leaf.minted.elapsed() < REUSE) {
            return Ok(leaf.config);
        }
        let certified = self.authority.mint(host)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Presents(Arc::new(certified))));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        self.leaves.insert(host.clone(), Leaf { config: config.clone(), minted: Instant::now() });
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_minted_once_and_the_cache_is_bounded() {
        let cache = LeafCache::new(Authority::ephemeral().unwrap());
        let host = Host::parse("a.test").unwrap();
        let first = cache.config(&host).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.config(&host).unwrap()));
        for n in 0..CAPACITY + 200 {
            cache.config(&Host::parse(&format!("h{n}.test")).unwrap()).unwrap();
        }
        assert!(cache.leaves.len() <= CAPACITY, "{}", cache.leaves.len());
    }
}
