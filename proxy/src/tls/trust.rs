//! What is trusted upstream: the machine's roots and the configured files, nothing the client says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;

/// Why the trust store cannot be built.
#[derive(Debug, Error)]
pub enum TrustError {
    /// A file of `[upstream] ca_files` cannot be read or is not PEM.
    #[error("{}: no PEM certificates can be read from it: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A certificate in it is not one.
    #[error("{}: it holds a certificate that cannot be used: {source}", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The provider lacks the default protocol versions.
    #[error("TLS cannot be configured: {0}")]
    Configuration(#[from] rustls::Error),
}

/// The roots of this machine; the Mozilla roots where it has none.
pub fn system_roots() -> Vec<CertificateDer<'static>> {
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "some system root certificates cannot be read");
    }
    native.certs
}

/// Certificates of a PEM file.
pub fn pem_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let unreadable = |reason: String| TrustError::Unreadable { path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unreadable("it holds none".into()));
    }
    Ok(certificates)
}

/// The client configuration for upstream connections.
pub fn client_config(ca_files: &[PathBuf]) -> Result<Arc<ClientConfig>, TrustError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system_roots());
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for path in ca_files {
        for certificate in pem_certificates(path)? {
            let bad = |source| TrustError::BadCertificate { path: path.clone(), source };
            roots.add(certificate).map_err(bad)?;
        }
    }
    let mut config = ClientConfig::builder_with_provider(super::authority::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
