//! The interception CA: made once in a directory, or for one process alone with its key only in memory.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::rand::SecureRandom;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::trust;
use crate::policy::Host;

/// How long a CA that is kept on disk is valid.
const CA_VALIDITY: Duration = Duration::days(3650);
/// How long a leaf is valid: short enough for every client's limit, long enough for a long run (≤ 7 days).
pub const LEAF_VALIDITY: Duration = Duration::days(6);
/// Clocks of containers and virtual machines disagree: certificates begin this long ago.
const CLOCK_SKEW: Duration = Duration::hours(1);

/// Why there is no CA.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The directory or a file in it cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// One of the two files is missing, or is not what it should be.
    #[error("{}: {reason}; remove ca.pem and ca-key.pem to have a new CA made", path.display())]
    Unusable {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key can be read by others.
    #[error("{}: others can read this key; run: chmod 600 {}", path.display(), path.display())]
    KeyExposed {
        /// The path.
        path: PathBuf,
    },
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Minting(#[from] rcgen::Error),
    /// A key cannot be used.
    #[error("a key cannot be used: {0}")]
    Key(#[from] rustls::Error),
    /// The system gives no random numbers.
    #[error("no random numbers can be had")]
    Random,
}

/// The one TLS provider.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

/// The CA and the key that all its leaves share.
pub struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    leaf_key: KeyPair,
    leaf_signer: Arc<dyn SigningKey>,
}

impl Authority {
    /// A CA whose key is nowhere but in this process.
    pub fn ephemeral() -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let params = ca_params(CA_VALIDITY)?;
        let certificate = params.self_signed(&key)?;
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self::assemble(der, pem, Issuer::new(params, key))
    }

    /// The CA in a directory, made if both of its files are missing. `bundle.pem` is written anew.
    pub fn load_or_create(dir: &Path) -> Result<Self, AuthorityError> {
        let (certificate_path, key_path) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
        let authority = match (certificate_path.exists(), key_path.exists()) {
            (true, true) => Self::load(&certificate_path, &key_path)?,
            (false, false) => Self::create(dir, &certificate_path, &key_path)?,
            (true, false) => return Err(unusable(&key_path, "the key is missing")),
            (false, true) => return Err(unusable(&certificate_path, "the certificate is missing")),
        };
        replace(&dir.join("bundle.pem"), authority.bundle().as_bytes(), 0o644)?;
        Ok(authority)
    }

    fn create(dir: &Path, certificate_path: &Path, key_path: &Path) -> Result<Self, AuthorityError> {
        fs::create_dir_all(dir).map_err(|source| AuthorityError::File { path: dir.to_owned(), source })?;
        let key = KeyPair::generate()?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        let params = ca_params(CA_VALIDITY)?;
        let certificate = params.self_signed(&key)?;
        replace(key_path, key_pem.as_bytes(), 0o600)?;
        replace(certificate_path, certificate.pem().as_bytes(), 0o644)?;
        tracing::info!(path = %certificate_path.display(), "made a new interception CA");
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self::assemble(der, pem, Issuer::new(params, key))
    }

    fn load(certificate_path: &Path, key_path: &Path) -> Result<Self, AuthorityError> {
        use std::os::unix::fs::PermissionsExt as _;
        let read_error = |source| AuthorityError::File { path: key_path.to_owned(), source };
        if fs::metadata(key_path).map_err(read_error)?.permissions().mode() & 0o077 != 0 {
            return Err(AuthorityError::KeyExposed { path: key_path.to_owned() });
        }
        let key_pem = Zeroizing::new(fs::read_to_string(key_path).map_err(read_error)?);
        let key = KeyPair::from_pem(&key_pem).map_err(|error| unusable(key_path, &error.to_string()))?;
        let certificate = trust::pem_certificates(certificate_path)
            .map_err(|error| unusable(certificate_path, &error.to_string()))?
            .swap_remove(0);
        check_pair(&certificate, &key, certificate_path)?;
        let pem = fs::read_to_string(certificate_path)
            .map_err(|source| AuthorityError::File { path: certificate_path.to_owned(), source })?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Self::assemble(certificate, pem, issuer)
    }

    fn assemble(
        certificate: CertificateDer<'static>,
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    ) -> Result<Self, AuthorityError> {
        let leaf_key = KeyPair::generate()?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let leaf_signer = provider().key_provider.load_private_key(der)?;
        Ok(Self { certificate, pem, issuer, leaf_key, leaf_signer })
    }

    /// The CA's certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The machine's roots and the CA, PEM: an exclusive bundle would break hosts that are only tunnelled.
    pub fn bundle(&self) -> String {
        let mut bundle = String::new();
        for root in trust::system_roots() {
            bundle.push_str(&pem_block(&root));
        }
        bundle.push_str(&self.pem);
        bundle
    }

    /// Mints a leaf: subject alternative name only, short-lived, for servers (RFC 5280 §4.2.1.6, §4.2.1.12).
    pub fn mint(&self, host: &Host) -> Result<CertifiedKey, AuthorityError> {
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + LEAF_VALIDITY;
        params.serial_number = Some(serial()?);
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![match host {
            Host::Name(name) => SanType::DnsName(name.to_string().try_into()?),
            Host::Ip(address) => SanType::IpAddress(IpAddr::to_canonical(address)),
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&self.leaf_key, &self.issuer)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        Ok(CertifiedKey::new(chain, self.leaf_signer.clone()))
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn ca_params(validity: Duration) -> Result<CertificateParams, AuthorityError> {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    // Older than any leaf, whose notBefore reaches back by CLOCK_SKEW.
    params.not_before = now - Duration::days(1);
    params.not_after = now + validity;
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "credgate interception CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// 16 random octets, positive (RFC 5280 §4.1.2.2).
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut octets = [0; 16];
    aws_lc_rs::rand::SystemRandom::new().fill(&mut octets).map_err(|_| AuthorityError::Random)?;
    octets[0] = octets[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&octets))
}

fn check_pair(certificate: &CertificateDer<'_>, key: &KeyPair, path: &Path) -> Result<(), AuthorityError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| unusable(path, &format!("it is not an X.509 certificate: {error}")))?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(unusable(path, "it does not belong to the key in ca-key.pem"));
    }
    if !parsed.is_ca() {
        return Err(unusable(path, "it is not the certificate of a CA"));
    }
    if !parsed.validity().is_valid() {
        return Err(unusable(path, "it has expired or is not valid yet"));
    }
    Ok(())
}

fn unusable(path: &Path, reason: &str) -> AuthorityError {
    AuthorityError::Unusable { path: path.to_owned(), reason: reason.to_owned() }
}

/// Writes a file so that no reader sees half of it and nobody can read a key in between.
fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        AuthorityError::File { path: path.to_owned(), source }
    })
}

fn pem_block(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut block = String::from("-----BEGIN CERTIFICATE-----\n");
    // 64 characters a line (RFC 7468 §2).
    for start in (0..encoded.len()).step_by(64) {
        block.push_str(&encoded[start..encoded.len().min(start + 64)]);
        block.push('\n');
    }
    block.push_str("-----END CERTIFICATE-----\n");
    block
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_leaf_is_for_one_host_short_lived_and_younger_than_its_ca() {
        let authority = Authority::ephemeral().unwrap();
        for host in ["git.example.test", "192.0.2.1", "2001:db8::1"] {
            let leaf = authority.mint(&Host::parse(host).unwrap()).unwrap();
            let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.cert[0]).unwrap();
            let (_, ca) = x509_parser::parse_x509_certificate(&leaf.cert[1]).unwrap();
            assert!(parsed.verify_signature(Some(ca.public_key())).is_ok());
            assert!(ca.validity().not_before < parsed.validity().not_before);
            let lifetime = parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp();
            assert!(lifetime <= 7 * 24 * 3600, "{lifetime} s");
            let names = parsed.subject_alternative_name().unwrap().unwrap();
            assert_eq!(names.value.general_names.len(), 1);
            assert!(parsed.extended_key_usage().unwrap().unwrap().value.server_auth);
            assert_eq!(parsed.subject().iter().count(), 0);
        }
    }

    #[test]
    fn serials_differ() {
        let authority = Authority::ephemeral().unwrap();
        let host = Host::parse("a.test").unwrap();
        let serials = [0, 1].map(|_| {
            let leaf = authority.mint(&host).unwrap();
            x509_parser::parse_x509_certificate(&leaf.cert[0]).unwrap().1.raw_serial().to_vec()
        });
        assert_ne!(serials[0], serials[1]);
    }

    #[test]
    fn a_kept_ca_is_the_same_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca");
        let first = Authority::load_or_create(&ca).unwrap();
        let second = Authority::load_or_create(&ca).unwrap();
        assert_eq!(first.pem(), second.pem());
        let mode = fs::metadata(ca.join("ca-key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(fs::read_to_string(ca.join("bundle.pem")).unwrap().ends_with(first.pem()));
    }

    #[test]
    fn a_damaged_or_exposed_ca_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path();
        Authority::load_or_create(ca).unwrap();
        let key = ca.join("ca-key.pem");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Authority::load_or_create(ca), Err(AuthorityError::KeyExposed { .. })));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let error = Authority::load_or_create(ca).unwrap_err().to_string();
        assert!(error.contains("does not belong to the key"), "{error}");
        fs::remove_file(&key).unwrap();
        let error = Authority::load_or_create(ca).unwrap_err().to_string();
        assert!(error.contains("the key is missing"), "{error}");
    }
}
