//! The only dialler: connects to the addresses of a [`Vetted`] destination and to nothing else.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::resolve::{Resolver, Vetted};
use crate::policy::{Destination, Refusal, UpstreamFailure};

/// Head start of each address over the next (RFC 8305 §5: 250 ms).
const STAGGER: Duration = Duration::from_millis(250);

/// Resolves and connects within `connect_timeout`.
pub async fn reach(
    resolver: &Resolver,
    destination: &Destination,
    connect_timeout: Duration,
) -> Result<TcpStream, Refusal> {
    let attempt = async { dial(&resolver.resolve(destination).await?).await };
    timeout(connect_timeout, attempt).await.unwrap_or_else(|_| {
        Err(Refusal::Upstream {
            destination: destination.clone(),
            failure: UpstreamFailure::ConnectTimeout(connect_timeout),
        })
    })
}

/// Connects to the first address that answers. TCP_NODELAY is set: without it small messages wait 40 ms for an
/// acknowledgement.
pub async fn dial(vetted: &Vetted) -> Result<TcpStream, Refusal> {
    let mut waiting = vetted.addresses();
    let mut attempts = FuturesUnordered::new();
    let mut failure = None;
    loop {
        let Some(next) = waiting.next() else { break };
        attempts.push(connect(next));
        match select(attempts.next(), Box::pin(sleep(STAGGER))).await {
            Either::Left((Some(Ok(stream)), _)) => return Ok(stream),
            Either::Left((Some(Err(error)), _)) => failure = Some(error),
            Either::Left((None, _)) | Either::Right(_) => {}
        }
    }
    while let Some(outcome) = attempts.next().await {
        match outcome {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(error),
        }
    }
    let failure = failure.map_or_else(|| "there is no address to dial".to_owned(), |error| reason(&error));
    Err(Refusal::Upstream {
        destination: vetted.destination().clone(),
        failure: UpstreamFailure::ConnectFailed(failure),
    })
}

#[expect(clippy::disallowed_methods, reason = "the one place that dials")]
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The system's words without its error number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::HostUnreachable => "host unreachable".into(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        io::ErrorKind::TimedOut => "connection timed out".into(),
        _ => error.to_string(),
    }
}
