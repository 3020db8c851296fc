//! One client connection: who it is, and what is written of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::app::{App, Generation};
use crate::audit::{self, Record};
use crate::policy::{Destination, HostRule, Refusal};

/// How a connection or request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// CONNECT to the explicit listener.
    Connect,
    /// A request in absolute-form.
    Absolute,
    /// A connection that knows nothing of a proxy.
    Captured,
    /// A request on a connection that is intercepted, or served as plain HTTP.
    Request,
}

impl Arrival {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Absolute => "absolute",
            Self::Captured => "captured",
            Self::Request => "request",
        }
    }
}

/// A client connection. It counts as open for as long as any of its tasks holds this.
pub struct Session {
    /// Number in this process.
    pub id: u64,
    /// The client's address.
    pub client: SocketAddr,
    /// What it shares with the others.
    pub app: Arc<App>,
    /// Its place among `max_connections`.
    _place: OwnedSemaphorePermit,
    drain: watch::Receiver<bool>,
}

/// What came of a connection or a request.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'o> {
    /// Passed unread.
    Tunnel,
    /// Intercepted.
    Intercept,
    /// Sent on.
    Forward,
    /// Refused or failed.
    Refuse(&'o Refusal),
}

/// What is accounted for, filled in as it becomes known.
#[derive(Clone)]
pub struct Entry {
    session: Arc<Session>,
    generation: u64,
    arrival: Arrival,
    began: Instant,
    /// Where to.
    pub destination: Option<Destination>,
    /// By which rule.
    pub rule: Option<Arc<HostRule>>,
    /// With which credential.
    pub credential: Option<Arc<str>>,
    /// Request method.
    pub method: Option<Method>,
    /// Request path.
    pub path: Option<String>,
    /// Response status.
    pub status: Option<u16>,
    /// How it failed on the way, when it was not refused.
    pub failure: Option<String>,
}

impl Session {
    /// A session of a connection that was just accepted.
    pub fn new(
        app: Arc<App>,
        client: SocketAddr,
        place: OwnedSemaphorePermit,
        drain: watch::Receiver<bool>,
    ) -> Arc<Self> {
        Arc::new(Self { id: app.next_session(), client, app, _place: place, drain })
    }

    /// Resolves when the process is about to end: what is being served is finished, nothing new is begun.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut drain = self.drain.clone();
        async move {
            if drain.wait_for(|draining| *draining).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The generation in force.
    pub fn generation(&self) -> Arc<Generation> {
        self.app.generation()
    }
}

impl Entry {
    /// Begins an account.
    pub fn begin(session: &Arc<Session>, generation: &Generation, arrival: Arrival) -> Self {
        Self {
            session: session.clone(),
            generation: generation.number,
            arrival,
            began: Instant::now(),
            destination: None,
            rule: None,
            credential: None,
            method: None,
            path: None,
            status: None,
            failure: None,
        }
    }

    /// Writes it.
    pub fn end(self, outcome: Outcome<'_>, bytes_up: u64, bytes_down: u64) {
        let (name, reason) = match outcome {
            Outcome::Tunnel => ("tunnel", self.failure),
            Outcome::Intercept => ("intercept", self.failure),
            Outcome::Forward => ("forward", self.failure),
            Outcome::Refuse(refusal) => ("refuse", Some(refusal.to_string())),
        };
        let destination = self.destination.map(|destination| destination.to_string());
        if let Outcome::Refuse(refusal) = outcome {
            match refusal.remedy() {
                Some(remedy) => tracing::warn!("refused: {refusal}; {remedy}"),
                None => tracing::warn!("refused: {refusal}"),
            }
        }
        let rule = self.rule.map(|rule| rule.origin.to_string());
        self.session.app.audit.record(&Record {
            time: audit::now(),
            generation: self.generation,
            session: self.session.id,
            client: &self.session.client.to_string(),
            arrival: self.arrival.name(),
            destination: destination.as_deref(),
            outcome: name,
            rule: rule.as_deref(),
            credential: self.credential.as_deref(),
            method: self.method.as_ref().map(Method::as_str),
            path: self.path.as_deref(),
            status: self.status,
            reason: reason.as_deref(),
            bytes_up,
            bytes_down,
            duration_ms: milliseconds(self.began.elapsed()),
        });
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
