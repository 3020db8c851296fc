//! Certificates for servers of the demo and the tests: a CA of its own, and leaves that are in order or are not.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use crate::tls::authority::provider;

/// Why there are no certificates.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Minting(#[from] rcgen::Error),
    /// It cannot be served.
    #[error("a certificate cannot be served: {0}")]
    Serving(#[from] rustls::Error),
    /// Its file cannot be written.
    #[error("the CA's file cannot be written: {0}")]
    File(#[from] io::Error),
}

/// A CA for servers.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    ca_file: PathBuf,
}

/// When a leaf is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Current,
    /// Until yesterday.
    Expired,
}

impl Pki {
    /// Makes a CA and writes its certificate to `test-ca.pem` in a directory.
    pub fn new(dir: &Path) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.not_before = OffsetDateTime::now_utc() - Duration::days(30);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(30);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?;
        let ca_file = dir.join("test-ca.pem");
        fs::write(&ca_file, certificate.pem())?;
        let certificate = certificate.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), certificate, ca_file })
    }

    /// PEM file of the CA's certificate.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// DER of the CA's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A TLS server for one host, which offers these protocols by ALPN.
    pub fn server(
        &self,
        host: &str,
        validity: Validity,
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let now = OffsetDateTime::now_utc();
        params.not_before = now - Duration::days(10);
        params.not_after = match validity {
            Validity::Current => now + Duration::days(10),
            Validity::Expired => now - Duration::days(1),
        };
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.to_owned().try_into()?),
        }];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}
