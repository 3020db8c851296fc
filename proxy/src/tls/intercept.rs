//! The TLS handshake with the client: the name it asks for is compared before a leaf is shown.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::leaf_cache::LeafCache;
use crate::policy::{Destination, Host, Refusal};

/// A client whose TLS ends here.
pub struct Accepted<IO> {
    /// The decrypted stream.
    pub stream: TlsStream<IO>,
    /// Set when the client asked for another name than its destination: every request is to be answered with it.
    pub refusal: Option<Refusal>,
}

/// Accepts TLS from a client, for a destination that is known.
///
/// A client that asks for another name gets a leaf for that name, so that it can read the refusal; nothing is ever
/// forwarded from such a connection.
pub async fn accept<IO>(
    leaves: &LeafCache,
    destination: &Destination,
    stream: IO,
    limit: Duration,
) -> io::Result<Accepted<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = async {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let asked = start.client_hello().server_name().map(str::to_owned);
        let (config, refusal) = choose(leaves, destination, asked.as_deref())?;
        Ok(Accepted { stream: start.into_stream(config).await?, refusal })
    };
    timeout(limit, handshake).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn choose(
    leaves: &LeafCache,
    destination: &Destination,
    asked: Option<&str>,
) -> io::Result<(Arc<ServerConfig>, Option<Refusal>)> {
    let refusal = asked.and_then(|asked| disagreement(destination, asked));
    let other = refusal.as_ref().and(asked).and_then(|asked| Host::parse(asked).ok());
    let config = leaves.config(other.as_ref().unwrap_or(destination.host())).map_err(io::Error::other)?;
    Ok((config, refusal))
}

/// The refusal when a TLS server name is not that of the destination. No server name agrees with anything: IP
/// literals have none (RFC 6066 §3), and old clients send none.
pub fn disagreement(destination: &Destination, server_name: &str) -> Option<Refusal> {
    let same = Host::parse(server_name).is_ok_and(|host| host == *destination.host());
    (!same).then(|| {
        Refusal::misdirected(destination, "the TLS server name (SNI)", server_name.escape_debug().to_string())
    })
}
