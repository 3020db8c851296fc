//! TLS to the origin, verified against the name that was asked for.

use std::io;
use std::sync::Arc;

use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::policy::{Destination, Host, Refusal, UpstreamFailure};

/// A verified TLS connection: the only kind that an injection is applied to.
pub type Verified = TlsStream<TcpStream>;

/// Performs the handshake; the certificate must be valid for the destination's host.
pub async fn handshake(
    config: Arc<ClientConfig>,
    destination: &Destination,
    stream: TcpStream,
) -> Result<Verified, Refusal> {
    let failed = |failure| Refusal::Upstream { destination: destination.clone(), failure };
    let name = match destination.host() {
        Host::Name(name) => ServerName::try_from(name.to_string())
            .map_err(|_| failed(UpstreamFailure::Tls("the host is no valid TLS server name".into())))?,
        Host::Ip(address) => ServerName::IpAddress((*address).into()),
    };
    let connecting = TlsConnector::from(config).connect(name, stream).await;
    connecting.map_err(|error| failed(classify(&error)))
}

/// Tells a certificate that does not verify from TLS that fails otherwise, and says which check failed.
fn classify(error: &io::Error) -> UpstreamFailure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(cause)) => UpstreamFailure::Certificate(certificate(cause)),
        Some(other) => UpstreamFailure::Tls(other.to_string()),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            UpstreamFailure::Tls("it closed the connection during the handshake".into())
        }
        None => UpstreamFailure::Tls(error.to_string()),
    }
}

fn certificate(cause: &CertificateError) -> String {
    match cause {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".into()
        }
        CertificateError::UnknownIssuer => "its issuer is not trusted (unknown issuer)".into(),
        CertificateError::NotValidForName => "it is for another name".into(),
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("it is for another name: {}", presented.join(", "))
        }
        CertificateError::Revoked => "it is revoked".into(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for servers".into()
        }
        other => other.to_string(),
    }
}
