//! The captured listener: connections of clients that know nothing of a proxy, by the address that they dialled.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::dispatch;
use super::explicit::account_ending;
use super::rewind::Rewind;
use super::sniff::{Spoken, sniff};
use super::synthetic::SyntheticNames;
use crate::http::exchange::Exchanges;
use crate::http::server;
use crate::policy::{Destination, Host, Refusal};
use crate::session::{Arrival, Session};

/// Serves one captured connection. `getsockname(2)` gives the address that was dialled: a synthetic one stands for
/// a name; any other says nothing that is trusted, and the client's first bytes must name the host.
pub async fn serve(session: Arc<Session>, client: TcpStream, names: &SyntheticNames) {
    let dialled = match client.local_addr() {
        Ok(dialled) => SocketAddr::new(dialled.ip().to_canonical(), dialled.port()),
        Err(error) => {
            tracing::debug!(%error, "a captured connection ended at once");
            return;
        }
    };
    if names.is_synthetic(dialled.ip()) {
        match names.name_of(dialled.ip()) {
            Some(name) => by_name(&session, client, Host::Name(name), dialled.port()).await,
            None => tracing::warn!("refused: {dialled}: no name was ever answered with this address"),
        }
    } else {
        by_first_bytes(&session, client, dialled).await;
    }
}

/// The name is known: decided and dialled before the client has said anything.
async fn by_name(session: &Arc<Session>, client: TcpStream, host: Host, port: u16) {
    let Ok(destination) = Destination::new(host, port) else { return };
    pass(session, client, Bytes::new(), destination).await;
}

async fn by_first_bytes(session: &Arc<Session>, mut client: TcpStream, dialled: SocketAddr) {
    let limit = session.generation().settings.proxy.header_timeout;
    let (spoken, early) = match timeout(limit, sniff(&mut client, Bytes::new())).await {
        Ok(Ok(sniffed)) => sniffed,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a captured connection failed before it spoke");
            return;
        }
        // Waits for the server to speak first.
        Err(_) => (Spoken::Other, Bytes::new()),
    };
    let host = match spoken {
        Spoken::Http => return by_host_field(session, Rewind::new(early, client), dialled.port()).await,
        Spoken::Tls(Some(name)) => match Host::parse(&name) {
            Ok(host) => host,
            Err(error) => {
                tracing::warn!("refused: {dialled}: the TLS server name is no host: {error}");
                return;
            }
        },
        Spoken::Tls(None) | Spoken::Other => Host::from(IpAddr::to_canonical(&dialled.ip())),
    };
    let Ok(destination) = Destination::new(host, dialled.port()) else { return };
    pass(session, client, early, destination).await;
}

/// Plain HTTP: every request names its host and is judged by it. No credential ever leaves this way.
async fn by_host_field(session: &Arc<Session>, client: Rewind<TcpStream>, port: u16) {
    let header_timeout = session.generation().settings.proxy.header_timeout;
    let exchanges = Arc::new(Exchanges::new(session.clone()));
    let drain = Box::pin(session.drained());
    let answer = |request: Request<Incoming>| {
        let exchanges = exchanges.clone();
        async move { exchanges.by_host_field(request, port).await }
    };
    let ending = server::serve(client, header_timeout, drain, answer).await;
    account_ending(session, Arrival::Captured, ending);
}

async fn pass(session: &Arc<Session>, mut client: TcpStream, early: Bytes, destination: Destination) {
    match dispatch::open(session, Arrival::Captured, destination.clone()).await {
        Ok((passage, upstream)) => dispatch::carry(passage, client, early, upstream).await,
        Err(refusal) => {
            let limit = session.generation().settings.proxy.header_timeout;
            if let Ok(Ok((spoken, early))) = timeout(limit, sniff(&mut client, early)).await {
                explain(session, client, early, (&destination, &spoken), refusal).await;
            }
        }
    }
}

/// Tells the client why, in the protocol that it speaks. There is no CONNECT to answer.
async fn explain(
    session: &Arc<Session>,
    client: TcpStream,
    early: Bytes,
    (destination, spoken): (&Destination, &Spoken),
    refusal: Refusal,
) {
    let client = Rewind::new(early, client);
    match spoken {
        Spoken::Tls(_) => dispatch::refuse_over_tls(session, destination, client, refusal).await,
        Spoken::Http => dispatch::serve_refusal(session, client, &refusal).await,
        Spoken::Other => {}
    }
}
