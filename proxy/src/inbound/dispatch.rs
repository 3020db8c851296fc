//! From a destination to an outcome: decide, dial, then tunnel or intercept. The same for every arrival.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONNECTION;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::rewind::Rewind;
use super::sniff::{Look, Spoken, look, sniff};
use crate::app::Generation;
use crate::http::exchange::Exchanges;
use crate::http::{refuse, server};
use crate::policy::{Decision, Destination, HostRule, Refusal};
use crate::session::{Arrival, Entry, Outcome, Session};
use crate::tls::intercept;
use crate::tunnel;
use crate::upstream::connections::Endpoint;

/// A connection that the policy has let pass.
pub struct Passage {
    session: Arc<Session>,
    generation: Arc<Generation>,
    destination: Destination,
    intercepted: bool,
    entry: Entry,
}

/// Decides on a destination and dials it. A refusal is accounted for.
pub async fn open(
    session: &Arc<Session>,
    arrival: Arrival,
    destination: Destination,
) -> Result<(Passage, TcpStream), Refusal> {
    let generation = session.generation();
    let mut entry = Entry::begin(session, &generation, arrival);
    entry.destination = Some(destination.clone());
    let decided: Result<(Option<&Arc<HostRule>>, bool), Refusal> =
        match generation.policy.decide(&destination) {
            Decision::Refuse(refusal) => Err(refusal),
            Decision::Tunnel(rule) => Ok((rule, false)),
            Decision::Intercept(rule) => Ok((Some(rule), true)),
        };
    let outcome = match decided {
        Ok((rule, intercepted)) => {
            entry.rule = rule.cloned();
            generation.reach(&destination).await.map(|upstream| (intercepted, upstream))
        }
        Err(refusal) => Err(refusal),
    };
    match outcome {
        Ok((intercepted, upstream)) => {
            let session = session.clone();
            Ok((Passage { session, generation, destination, intercepted, entry }, upstream))
        }
        Err(refusal) => {
            refuse::account(entry, &refusal);
            Err(refusal)
        }
    }
}

/// Serves a connection that was let pass until it ends.
pub async fn carry(passage: Passage, client: TcpStream, early: Bytes, upstream: TcpStream) {
    if passage.intercepted {
        intercept(passage, client, early, upstream).await;
    } else {
        tunnel(passage, client, early, upstream).await;
    }
}

/// How a tunnel began.
enum Beginning {
    /// The client's first bytes are in order, or there are none.
    Agreed,
    /// It speaks TLS to another name.
    Misdirected(Refusal),
    /// One side failed, or the client stopped in the middle of its ClientHello.
    Failed(String),
}

async fn tunnel(mut passage: Passage, mut client: TcpStream, early: Bytes, mut upstream: TcpStream) {
    let mut first = BytesMut::from(early);
    let limit = passage.generation.settings.proxy.header_timeout;
    let mut down = 0;
    let beginning =
        begin(&passage.destination, (&mut client, &mut first), (&mut upstream, &mut down), limit).await;
    match beginning {
        Beginning::Agreed => {
            let idle = passage.generation.settings.proxy.idle_timeout;
            let transfer = tunnel::splice(client, upstream, first.freeze(), idle).await;
            passage.entry.failure = transfer.failure();
            passage.entry.end(Outcome::Tunnel, transfer.up, transfer.down + down);
        }
        Beginning::Misdirected(refusal) => {
            drop(upstream);
            refuse::account(passage.entry, &refusal);
            let stream = Rewind::new(first.freeze(), client);
            refuse_over_tls(&passage.session, &passage.destination, stream, refusal).await;
        }
        Beginning::Failed(reason) => {
            passage.entry.failure = Some(reason);
            passage.entry.end(Outcome::Tunnel, first.len() as u64, down);
        }
    }
}

/// Waits for the client's first bytes and checks the TLS server name in them. What the server says meanwhile is
/// passed on: SSH, SMTP and MySQL servers speak first.
async fn begin(
    destination: &Destination,
    (client, first): (&mut TcpStream, &mut BytesMut),
    (upstream, down): (&mut TcpStream, &mut u64),
    limit: Duration,
) -> Beginning {
    let mut greeting = BytesMut::new();
    loop {
        match look(first) {
            Look::Known(Spoken::Tls(Some(name))) => {
                return match intercept::disagreement(destination, &name) {
                    Some(refusal) => Beginning::Misdirected(refusal),
                    None => Beginning::Agreed,
                };
            }
            Look::Known(Spoken::Tls(None) | Spoken::Http | Spoken::Other) => return Beginning::Agreed,
            Look::More => {}
        }
        let begun = !first.is_empty();
        tokio::select! {
            read = client.read_buf(first) => match read {
                Ok(0) => return Beginning::Agreed,
                Ok(_) => {}
                Err(error) => return Beginning::Failed(format!("client: {error}")),
            },
            read = upstream.read_buf(&mut greeting) => match read {
                Ok(0) => return Beginning::Agreed,
                Ok(octets) => {
                    *down += octets as u64;
                    if let Err(error) = client.write_all(&greeting).await {
                        return Beginning::Failed(format!("client: {error}"));
                    }
                    greeting.clear();
                }
                Err(error) => return Beginning::Failed(format!("upstream: {error}")),
            },
            () = sleep(limit), if begun => {
                return Beginning::Failed("the client stopped in the middle of its first message".into());
            }
        }
    }
}

async fn intercept(mut passage: Passage, mut client: TcpStream, early: Bytes, upstream: TcpStream) {
    let limit = passage.generation.settings.proxy.header_timeout;
    let sniffed = timeout(limit, sniff(&mut client, early)).await;
    passage.entry.failure = match sniffed {
        Ok(Ok((Spoken::Tls(_), early))) => {
            intercept_tls(&passage, Rewind::new(early, client), upstream, limit).await
        }
        Ok(Ok((Spoken::Http, early))) => {
            let endpoint = Endpoint { destination: passage.destination.clone(), secure: false };
            serve_inside(&passage, Rewind::new(early, client), endpoint, upstream).await;
            None
        }
        Ok(Ok((Spoken::Other, early))) if early.is_empty() => None,
        Ok(Ok((Spoken::Other, _))) => {
            Some("the client speaks neither TLS nor HTTP; use action = \"tunnel\" for other protocols".into())
        }
        Ok(Err(error)) => Some(format!("client: {error}")),
        Err(_) => Some("the client sent nothing in time".into()),
    };
    if let Some(failure) = &passage.entry.failure {
        tracing::warn!("{}: {failure}", passage.destination);
    }
    passage.entry.end(Outcome::Intercept, 0, 0);
}

/// Handshakes with the client and the origin side by side. Returns why it failed.
async fn intercept_tls(
    passage: &Passage,
    client: Rewind<TcpStream>,
    upstream: TcpStream,
    limit: Duration,
) -> Option<String> {
    let endpoint = Endpoint { destination: passage.destination.clone(), secure: true };
    let leaves = &passage.session.app.leaves;
    let (generation, ahead) = (passage.generation.clone(), endpoint.clone());
    let opening = tokio::spawn(async move { generation.speak(&ahead, upstream).await });
    match intercept::accept(leaves, &passage.destination, client, limit).await {
        Ok(accepted) => match accepted.refusal {
            None => {
                let exchanges = Exchanges::new(passage.session.clone());
                exchanges.connections().expect(endpoint.clone(), opening);
                serve_requests(passage, exchanges, accepted.stream, endpoint).await;
                None
            }
            Some(refusal) => {
                opening.abort();
                refuse::account(passage.entry.clone(), &refusal);
                serve_refusal(&passage.session, accepted.stream, &refusal).await;
                Some(refusal.to_string())
            }
        },
        Err(error) => {
            opening.abort();
            Some(format!("TLS with the client failed: {error}; does it trust the interception CA?"))
        }
    }
}

async fn serve_inside(passage: &Passage, client: Rewind<TcpStream>, endpoint: Endpoint, upstream: TcpStream) {
    let exchanges = Exchanges::new(passage.session.clone());
    let (generation, ahead) = (passage.generation.clone(), endpoint.clone());
    let opening = tokio::spawn(async move { generation.speak(&ahead, upstream).await });
    exchanges.connections().expect(endpoint.clone(), opening);
    serve_requests(passage, exchanges, client, endpoint).await;
}

async fn serve_requests<IO>(passage: &Passage, exchanges: Exchanges, client: IO, endpoint: Endpoint)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let header_timeout = passage.generation.settings.proxy.header_timeout;
    let (exchanges, endpoint) = (Arc::new(exchanges), Arc::new(endpoint));
    let drain = Box::pin(passage.session.drained());
    let answer = |request: Request<Incoming>| {
        let (exchanges, endpoint) = (exchanges.clone(), endpoint.clone());
        async move { exchanges.inside(request, &endpoint).await }
    };
    let ending = server::serve(client, header_timeout, drain, answer).await;
    super::explicit::account_ending(&passage.session, Arrival::Request, ending);
}

/// Ends TLS only to say why the connection is refused. Nothing of it goes anywhere.
pub async fn refuse_over_tls<IO>(
    session: &Arc<Session>,
    destination: &Destination,
    client: IO,
    refusal: Refusal,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limit = session.generation().settings.proxy.header_timeout;
    match intercept::accept(&session.app.leaves, destination, client, limit).await {
        Ok(accepted) => serve_refusal(session, accepted.stream, &refusal).await,
        Err(error) => tracing::debug!(%error, "the refused client did not stay for the reason"),
    }
}

/// Answers every request with a refusal that is accounted for already, and closes.
pub async fn serve_refusal<IO>(session: &Arc<Session>, client: IO, refusal: &Refusal)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let header_timeout = session.generation().settings.proxy.header_timeout;
    let drain = Box::pin(session.drained());
    let answer = |request: Request<Incoming>| async move {
        let mut response = refuse::response(refusal, request.headers());
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    };
    server::serve(client, header_timeout, drain, answer).await;
}
