//! HTTP/1.1 towards the client: limits on heads, and an answer to what is not HTTP.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::body::Body;
use super::head_timer::{HeadTimer, Heads};
use super::refuse;
use crate::policy::Refusal;

/// Largest request head: request line and all fields, octets.
pub const MAX_HEAD: usize = 64 * 1024;
/// Most fields in a head.
const MAX_FIELDS: usize = 256;
/// How long a client gets to take the answer to a head that came too late.
const PARTING: Duration = Duration::from_secs(1);

/// How a connection ended that did not end well.
#[derive(Debug)]
pub enum Ending {
    /// It is not HTTP: the client was told so.
    Malformed(String),
    /// A head did not arrive in time: the client was told so.
    HeadTimeout,
    /// The client went away, or had nothing more to say.
    Gone,
}

/// Resolves when open connections are to end after the request they serve.
pub type Drain = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves requests on one connection until it ends or is upgraded.
pub async fn serve<IO, F, R>(io: IO, header_timeout: Duration, drain: Drain, answer: F) -> Ending
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<Body>>,
{
    let heads = Heads::new(header_timeout);
    let service = service_fn(|mut request: Request<Incoming>| {
        let in_flight = heads.request_began();
        request.extensions_mut().insert(in_flight.clone());
        let answering = answer(request);
        async move { Ok::<_, Infallible>(answering.await.map(|body| body.holding(in_flight))) }
    });
    let io = TokioIo::new(HeadTimer::new(io, heads.clone()));
    let mut connection = Builder::new()
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .half_close(true)
        // Ours distinguishes a slow head from an idle connection.
        .header_read_timeout(None)
        .serve_connection(io, service)
        .with_upgrades();
    let outcome = {
        let mut drain = drain;
        tokio::select! {
            outcome = &mut connection => outcome,
            () = &mut drain => {
                Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        }
    };
    match outcome {
        Ok(()) => Ending::Gone,
        Err(error) if heads.timed_out() => {
            tracing::debug!(%error, "a request head did not arrive in time");
            if let Some(parts) = connection.into_parts() {
                let answer = refuse::raw_response(&Refusal::HeadTimeout(header_timeout));
                let mut stream = parts.io.into_inner().into_inner();
                let telling = async {
                    stream.write_all(answer.as_bytes()).await?;
                    stream.shutdown().await
                };
                let _ = tokio::time::timeout(PARTING, telling).await;
            }
            Ending::HeadTimeout
        }
        Err(error) if error.is_parse() => Ending::Malformed(error.to_string()),
        Err(error) => {
            tracing::debug!(%error, "client connection ended");
            Ending::Gone
        }
    }
}
