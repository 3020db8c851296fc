//! What every connection shares: the current generation of the policy, the CA and the account.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use hyper::client::conn::http1::SendRequest;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::audit::Audit;
use crate::config::Compiled;
use crate::config::settings::Settings;
use crate::policy::{CredentialId, Destination, Policy, Refusal, UpstreamFailure};
use crate::reload::Reloader;
use crate::secret::{Environment, LoadedCredential, SecretError};
use crate::tls::leaf_cache::LeafCache;
use crate::tls::trust::{self, TrustError};
use crate::upstream::connections::{Endpoint, open_http1};
use crate::upstream::dial;
use crate::upstream::resolve::{Resolver, ResolverError};
use crate::upstream::secure;

/// A policy with everything it needs, built whole: secrets, trust, resolver.
pub struct Generation {
    /// Counts from 1.
    pub number: u64,
    /// What may leave.
    pub policy: Policy,
    /// Limits and places.
    pub settings: Settings,
    credentials: Vec<LoadedCredential>,
    secret_variables: Vec<String>,
    resolver: Resolver,
    tls: Arc<ClientConfig>,
}

/// Why a configuration that compiles does not become a generation.
#[derive(Debug, Error)]
pub enum GenerationError {
    /// A secret is missing or unusable.
    #[error("credential {name:?}: {source}")]
    Secret {
        /// The credential.
        name: String,
        /// What is wrong with its source.
        source: SecretError,
    },
    /// A file of `ca_files`.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No resolver.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
}

impl Generation {
    /// Loads secrets and trust for a compiled configuration. Blocks on files.
    pub fn build(
        number: u64,
        compiled: Compiled,
        environment: &Environment<'_>,
    ) -> Result<Self, GenerationError> {
        let load = |spec: &crate::secret::CredentialSpec| {
            spec.load(environment)
                .map_err(|source| GenerationError::Secret { name: spec.name.to_string(), source })
        };
        let credentials = compiled.credentials.iter().map(load).collect::<Result<_, _>>()?;
        let variables = compiled.credentials.iter().filter_map(crate::secret::CredentialSpec::env_variable);
        let secret_variables = variables.map(str::to_owned).collect();
        let tls = trust::client_config(&compiled.settings.upstream.ca_files)?;
        let resolver = Resolver::new(&compiled.settings.upstream)?;
        let Compiled { policy, settings, .. } = compiled;
        Ok(Self { number, policy, settings, credentials, secret_variables, resolver, tls })
    }

    /// The secret that a rule's credential stands for.
    pub fn credential(&self, id: CredentialId) -> Option<&LoadedCredential> {
        self.credentials.get(id.0)
    }

    /// Variables that hold secrets: no program may inherit them.
    pub fn secret_variables(&self) -> Vec<String> {
        self.secret_variables.clone()
    }

    /// Resolves and dials, within `connect_timeout`.
    pub async fn reach(&self, destination: &Destination) -> Result<TcpStream, Refusal> {
        dial::reach(&self.resolver, destination, self.settings.proxy.connect_timeout).await
    }

    /// Speaks HTTP over a connection that was dialled; over verified TLS when the endpoint is secure.
    pub async fn speak<B>(&self, endpoint: &Endpoint, stream: TcpStream) -> Result<SendRequest<B>, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let destination = &endpoint.destination;
        if !endpoint.secure {
            return open_http1(destination, stream).await;
        }
        let limit = self.settings.proxy.connect_timeout;
        let handshake = secure::handshake(self.tls.clone(), destination, stream);
        let verified = timeout(limit, handshake).await.unwrap_or_else(|_| {
            let failure = UpstreamFailure::ConnectTimeout(limit);
            Err(Refusal::Upstream { destination: destination.clone(), failure })
        })?;
        open_http1(destination, verified).await
    }
}

/// The process.
pub struct App {
    generation: ArcSwap<Generation>,
    /// Leaves for interception.
    pub leaves: LeafCache,
    /// The account.
    pub audit: Audit,
    /// Builds the next generation.
    pub reloader: Reloader,
    sessions: AtomicU64,
}

impl App {
    /// Starts with a first generation.
    pub fn new(first: Generation, leaves: LeafCache, audit: Audit, reloader: Reloader) -> Self {
        let generation = ArcSwap::from_pointee(first);
        Self { generation, leaves, audit, reloader, sessions: AtomicU64::new(0) }
    }

    /// The generation in force.
    pub fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// Puts another generation in force.
    pub fn swap(&self, next: Generation) {
        self.generation.store(Arc::new(next));
    }

    /// Numbers a connection.
    pub fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed) + 1
    }
}
