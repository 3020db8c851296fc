//! One request: check → hop-by-hop → inject → forward → answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{AUTHORIZATION, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::body::{Body, Ended};
use super::head_timer::InFlight;
use super::{hop_by_hop, refuse, target};
use crate::app::Generation;
use crate::policy::{
    Decision, Destination, HostRule, Injection, Mode, Refusal, RequestFacts, UpstreamFailure, Verdict,
};
use crate::session::{Arrival, Entry, Outcome, Session};
use crate::tunnel;
use crate::upstream::connections::{Connections, Endpoint, Taken};

/// A client connection on which requests are judged one by one.
pub struct Exchanges {
    session: Arc<Session>,
    connections: Connections<Body>,
}

/// A request on its way, after it has been judged.
struct Judged {
    generation: Arc<Generation>,
    endpoint: Endpoint,
    injection: Option<Injection>,
    entry: Entry,
}

impl Exchanges {
    /// For a new client connection.
    pub fn new(session: Arc<Session>) -> Self {
        Self { session, connections: Connections::default() }
    }

    /// The connection whose requests these are.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The connections to origins.
    pub fn connections(&self) -> &Connections<Body> {
        &self.connections
    }

    /// Serves a request in absolute-form.
    pub async fn absolute(&self, request: Request<Incoming>) -> Response<Body> {
        let target = target::check_framing(request.headers()).and_then(|()| target::absolute(&request));
        match target {
            Ok((destination, secure)) => {
                self.judge_and_forward(request, Arrival::Absolute, Endpoint { destination, secure }).await
            }
            Err(refusal) => self.refuse_unplaced(&request, Arrival::Absolute, &refusal),
        }
    }

    /// Serves a request on a connection whose destination is settled.
    pub async fn inside(&self, request: Request<Incoming>, endpoint: &Endpoint) -> Response<Body> {
        let agreed = target::check_framing(request.headers())
            .and_then(|()| target::agree(&request, &endpoint.destination, endpoint.secure));
        match agreed {
            Ok(()) => self.judge_and_forward(request, Arrival::Request, endpoint.clone()).await,
            Err(refusal) => {
                let mut entry = self.entry(&request, Arrival::Request, &self.session.generation());
                entry.destination = Some(endpoint.destination.clone());
                refuse::account(entry, &refusal);
                refuse::response(&refusal, request.headers())
            }
        }
    }

    /// Serves a plain HTTP request of a captured connection, to the host that its Host field names.
    pub async fn by_host_field(&self, request: Request<Incoming>, port: u16) -> Response<Body> {
        let target =
            target::check_framing(request.headers()).and_then(|()| target::named_by_host(&request, port));
        match target {
            Ok(destination) => self.inside(request, &Endpoint { destination, secure: false }).await,
            Err(refusal) => self.refuse_unplaced(&request, Arrival::Captured, &refusal),
        }
    }

    /// Refuses a request that names no destination.
    pub fn refuse_unplaced<B>(
        &self,
        request: &Request<B>,
        arrival: Arrival,
        refusal: &Refusal,
    ) -> Response<Body> {
        refuse::account(self.entry(request, arrival, &self.session.generation()), refusal);
        refuse::response(refusal, request.headers())
    }

    fn entry<B>(&self, request: &Request<B>, arrival: Arrival, generation: &Generation) -> Entry {
        let mut entry = Entry::begin(&self.session, generation, arrival);
        entry.method = Some(request.method().clone());
        entry.path = Some(request.uri().path().to_owned());
        entry
    }

    async fn judge_and_forward(
        &self,
        request: Request<Incoming>,
        arrival: Arrival,
        endpoint: Endpoint,
    ) -> Response<Body> {
        let mut generation = self.session.generation();
        let mut entry = self.entry(&request, arrival, &generation);
        entry.destination = Some(endpoint.destination.clone());
        let mut verdict = judge(&generation, &request, &endpoint, &mut entry);
        if let Verdict::Forward(Some(injection)) = &verdict
            && generation
                .credential(injection.credential().id)
                .is_some_and(crate::secret::LoadedCredential::is_stale)
        {
            generation = self.session.app.fresh(generation).await;
            verdict = judge(&generation, &request, &endpoint, &mut entry);
        }
        let headers = request.headers().get(http::header::ACCEPT).cloned();
        let outcome = match verdict {
            Verdict::Forward(injection) => {
                self.forward(request, Judged { generation, endpoint, injection, entry: entry.clone() }).await
            }
            Verdict::Refuse(refusal) => Err(refusal),
        };
        outcome.unwrap_or_else(|refusal| {
            refuse::account(entry, &refusal);
            let accept = headers.map(|accept| (http::header::ACCEPT, accept));
            refuse::response(&refusal, &HeaderMap::from_iter(accept))
        })
    }

    /// Sends a judged request and returns the answer as it comes.
    async fn forward(
        &self,
        mut request: Request<Incoming>,
        judged: Judged,
    ) -> Result<Response<Body>, Refusal> {
        let Judged { generation, endpoint, injection, mut entry } = judged;
        let client_upgrade =
            hop_by_hop::strip(request.headers_mut()).map(|_| hyper::upgrade::on(&mut request));
        entry.credential = injection.as_ref().map(|injection| injection.credential().name.clone());
        if let Some(injection) = &injection {
            inject(request.headers_mut(), &generation, injection);
        }
        address(&mut request, &endpoint);
        let up = Arc::new(AtomicU64::new(0));
        let in_flight = request.extensions_mut().remove::<InFlight>();
        let request = request.map(|body| {
            let body = Body::counted(body, up.clone(), None);
            match in_flight {
                Some(in_flight) => body.holding(in_flight),
                None => body,
            }
        });
        let response = self.send(&generation, &endpoint, request).await?;
        entry.status = Some(response.status().as_u16());
        Ok(answer(response, client_upgrade, entry, up))
    }

    /// Sends on a kept connection where there is one. A request that a closed connection never took is sent again
    /// on a new one; so is an idempotent one without a body that it took and left unanswered (RFC 9110 §9.2.2).
    async fn send(
        &self,
        generation: &Generation,
        endpoint: &Endpoint,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Refusal> {
        loop {
            let Taken { mut sender, reused } = match self.connections.take(endpoint).await {
                Some(taken) => taken?,
                None => {
                    let stream = generation.reach(&endpoint.destination).await?;
                    Taken { sender: generation.speak(endpoint, stream).await?, reused: false }
                }
            };
            let again = reused.then(|| replayable(&request)).flatten();
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.connections.keep(endpoint.clone(), sender);
                    return Ok(response);
                }
                Err(mut error) => match error.take_message().or(again) {
                    Some(unsent) if reused => request = unsent,
                    Some(_) | None => return Err(no_answer(&endpoint.destination, &error.into_error())),
                },
            }
        }
    }
}

/// What the policy says of a request now. A connection lives longer than the policy that let it in.
fn judge<B>(
    generation: &Generation,
    request: &Request<B>,
    endpoint: &Endpoint,
    entry: &mut Entry,
) -> Verdict {
    let facts =
        RequestFacts { method: request.method(), path: request.uri().path(), secure: endpoint.secure };
    let (rule, verdict): (Option<&Arc<HostRule>>, Verdict) =
        match generation.policy.decide(&endpoint.destination) {
            Decision::Refuse(refusal) => (None, Verdict::Refuse(refusal)),
            Decision::Tunnel(rule) => (rule, Verdict::Forward(None)),
            Decision::Intercept(rule) => (Some(rule), rule.check(facts)),
        };
    entry.rule = rule.cloned();
    verdict
}

/// Puts the credential in: whatever the client sent in that field is gone, and exactly one value leaves.
fn inject(headers: &mut HeaderMap, generation: &Generation, injection: &Injection) {
    let Some(credential) = generation.credential(injection.credential().id) else { return };
    match injection.credential().mode {
        Mode::Always => {}
        Mode::IfAbsent if headers.contains_key(&credential.field) => return,
        Mode::IfAbsent => {}
    }
    headers.insert(credential.field.clone(), credential.value.clone());
    debug_assert!(headers.get_all(AUTHORIZATION).iter().count() <= 1 || credential.field != AUTHORIZATION);
}

/// Origin-form target and the canonical Host: what is sent names what was judged (RFC 9112 §3.2.1).
fn address(request: &mut Request<Incoming>, endpoint: &Endpoint) {
    let path = request.uri().path_and_query().cloned();
    let path = path.filter(|p| !p.as_str().is_empty()).unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    let default_port = if endpoint.secure { target::HTTPS_PORT } else { target::HTTP_PORT };
    let host = if endpoint.destination.port() == default_port {
        endpoint.destination.host().to_string()
    } else {
        endpoint.destination.to_string()
    };
    if let Ok(host) = HeaderValue::try_from(host) {
        request.headers_mut().insert(HOST, host);
    }
}

/// A copy of a request that may be sent twice.
fn replayable(request: &Request<Body>) -> Option<Request<Body>> {
    let empty = http_body::Body::is_end_stream(request.body());
    if !empty || !request.method().is_idempotent() {
        return None;
    }
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

fn no_answer(destination: &Destination, error: &hyper::Error) -> Refusal {
    let failure = if error.is_parse() || error.is_parse_too_large() {
        UpstreamFailure::Protocol(error.to_string())
    } else {
        UpstreamFailure::Closed
    };
    Refusal::Upstream { destination: destination.clone(), failure }
}

/// The origin's answer as the client gets it; accounted for when its body has ended.
fn answer(
    mut response: Response<Incoming>,
    client_upgrade: Option<OnUpgrade>,
    entry: Entry,
    up: Arc<AtomicU64>,
) -> Response<Body> {
    *response.version_mut() = Version::HTTP_11;
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let origin_upgrade = switched.then(|| hyper::upgrade::on(&mut response));
    let protocol = hop_by_hop::strip(response.headers_mut());
    if !switched && protocol.is_some() {
        response.headers_mut().remove(http::header::CONNECTION);
        response.headers_mut().remove(http::header::UPGRADE);
    }
    if let (Some(client), Some(origin)) = (client_upgrade, origin_upgrade) {
        tokio::spawn(relay_upgraded(client, origin, entry));
        return response.map(|_| Body::empty());
    }
    let down = Arc::new(AtomicU64::new(0));
    let counted = down.clone();
    let ended = Ended::new(move || {
        entry.end(Outcome::Forward, up.load(Ordering::Relaxed), down.load(Ordering::Relaxed));
    });
    response.map(|body| Body::counted(body, counted, Some(ended)))
}

/// Joins the two sides of an upgraded connection until both are done.
async fn relay_upgraded(client: OnUpgrade, origin: OnUpgrade, mut entry: Entry) {
    match tokio::try_join!(client, origin) {
        Ok((client, origin)) => {
            // Idle for as long as they like: a WebSocket may be silent for hours.
            let transfer = tunnel::relay(TokioIo::new(client), TokioIo::new(origin)).await;
            entry.failure = transfer.failure();
            entry.end(Outcome::Forward, transfer.up, transfer.down);
        }
        Err(error) => {
            entry.failure = Some(error.to_string());
            entry.end(Outcome::Forward, 0, 0);
        }
    }
}
