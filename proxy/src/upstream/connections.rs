//! The HTTP connections to origins that one client connection uses, kept for its next request.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use crate::policy::{Destination, Refusal, UpstreamFailure};

/// Idle connections that one client connection keeps: a browser-like client that walks over many hosts through one
/// absolute-form connection must not hold a socket for each.
const KEPT: usize = 4;

/// What a connection leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port.
    pub destination: Destination,
    /// Over verified TLS.
    pub secure: bool,
}

/// A connection being opened.
pub type Opening<B> = JoinHandle<Result<SendRequest<B>, Refusal>>;

enum Link<B> {
    Opening(Opening<B>),
    Idle(SendRequest<B>),
}

/// The connections of one client connection.
pub struct Connections<B> {
    links: Mutex<Vec<(Endpoint, Link<B>)>>,
}

/// A connection for one request.
pub struct Taken<B> {
    /// Sends the request.
    pub sender: SendRequest<B>,
    /// Whether it served a request before, so that the origin may have closed it meanwhile.
    pub reused: bool,
}

impl<B> Default for Connections<B> {
    fn default() -> Self {
        Self { links: Mutex::new(Vec::new()) }
    }
}

impl<B> Connections<B> {
    /// Keeps a connection that is being opened ahead of the first request.
    pub fn expect(&self, endpoint: Endpoint, opening: Opening<B>) {
        self.push(endpoint, Link::Opening(opening));
    }

    /// Takes the connection to an endpoint: the one that is being opened, or one that is idle and open.
    pub async fn take(&self, endpoint: &Endpoint) -> Option<Result<Taken<B>, Refusal>> {
        loop {
            let link = {
                let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
                let position = links.iter().position(|(kept, _)| kept == endpoint)?;
                links.swap_remove(position).1
            };
            match link {
                Link::Opening(opening) => {
                    let opened = opening.await.unwrap_or_else(|_| Err(closed(&endpoint.destination)));
                    return Some(opened.map(|sender| Taken { sender, reused: false }));
                }
                // Not ready: the answer before is still being read, or the origin has closed.
                Link::Idle(mut sender) => {
                    if sender.ready().await.is_ok() {
                        return Some(Ok(Taken { sender, reused: true }));
                    }
                }
            }
        }
    }

    /// Keeps a connection for the next request.
    pub fn keep(&self, endpoint: Endpoint, sender: SendRequest<B>) {
        if !sender.is_closed() {
            self.push(endpoint, Link::Idle(sender));
        }
    }

    fn push(&self, endpoint: Endpoint, link: Link<B>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.len() >= KEPT {
            links.remove(0);
        }
        links.push((endpoint, link));
    }
}

/// The refusal for an upstream that is gone.
pub fn closed(destination: &Destination) -> Refusal {
    Refusal::Upstream { destination: destination.clone(), failure: UpstreamFailure::Closed }
}

/// Speaks HTTP/1.1 on a connection. Its task ends when the sender is dropped or the origin closes.
pub async fn open_http1<B, IO>(destination: &Destination, io: IO) -> Result<SendRequest<B>, Refusal>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) =
        Builder::new().handshake(TokioIo::new(io)).await.map_err(|error| Refusal::Upstream {
            destination: destination.clone(),
            failure: UpstreamFailure::Protocol(error.to_string()),
        })?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}
