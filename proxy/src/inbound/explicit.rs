//! The explicit listener: CONNECT and absolute-form, for clients that know of the proxy.

use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::dispatch::{self, Passage};
use crate::http::body::Body;
use crate::http::exchange::Exchanges;
use crate::http::head_timer::HeadTimer;
use crate::http::server::{self, Ending};
use crate::http::{refuse, target};
use crate::policy::Refusal;
use crate::session::{Arrival, Entry, Outcome, Session};

/// Serves one connection of a client that knows it speaks to a proxy.
pub async fn serve(session: Arc<Session>, client: TcpStream) {
    let header_timeout = session.generation().settings.proxy.header_timeout;
    let drain = Box::pin(session.drained());
    let exchanges = Arc::new(Exchanges::new(session.clone()));
    let answer = |request: Request<Incoming>| {
        let exchanges = exchanges.clone();
        async move {
            if request.method() == Method::CONNECT {
                connect(&exchanges, request).await
            } else {
                exchanges.absolute(request).await
            }
        }
    };
    let ending = server::serve(client, header_timeout, drain, answer).await;
    account_ending(&session, Arrival::Absolute, ending);
}

/// Accounts for a connection on which no valid request came.
pub fn account_ending(session: &Arc<Session>, arrival: Arrival, ending: Ending) {
    let mut entry = Entry::begin(session, &session.generation(), arrival);
    match ending {
        Ending::Gone => {}
        Ending::Malformed(reason) => {
            entry.status = Some(http::StatusCode::BAD_REQUEST.as_u16());
            entry.failure = Some(format!("malformed request: {reason}"));
            entry.end(Outcome::Forward, 0, 0);
        }
        Ending::HeadTimeout => {
            let limit = session.generation().settings.proxy.header_timeout;
            refuse::account(entry, &Refusal::HeadTimeout(limit));
        }
    }
}

/// Dials first: a `200` means that the origin is connected.
async fn connect(exchanges: &Exchanges, mut request: Request<Incoming>) -> Response<Body> {
    let session = exchanges.session();
    let target = target::check_framing(request.headers()).and_then(|()| target::connect(&request));
    let destination = match target {
        Ok(destination) => destination,
        Err(refusal) => return exchanges.refuse_unplaced(&request, Arrival::Connect, &refusal),
    };
    match dispatch::open(session, Arrival::Connect, destination).await {
        Ok((passage, upstream)) => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                match upgrade.await {
                    Ok(upgraded) => carry(passage, upgraded, upstream).await,
                    Err(error) => tracing::debug!(%error, "the client left before its tunnel was open"),
                }
            });
            Response::new(Body::empty())
        }
        Err(refusal) => refuse::response(&refusal, request.headers()),
    }
}

async fn carry(passage: Passage, upgraded: Upgraded, upstream: TcpStream) {
    match upgraded.downcast::<TokioIo<HeadTimer<TcpStream>>>() {
        Ok(parts) => {
            let client = parts.io.into_inner().into_inner();
            dispatch::carry(passage, client, parts.read_buf, upstream).await;
        }
        Err(_) => tracing::error!("an upgraded connection is not the one that was accepted"),
    }
}
