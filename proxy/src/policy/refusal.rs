//! Every reason for which something does not go on, in words for the person who meets it.

use std::net::IpAddr;
use std::time::Duration;

use http::Method;
use thiserror::Error;

use super::host::{Destination, HostError};
use super::path::PathError;
use super::rule::RuleOrigin;

/// Why a connection or a request is refused, or could not be served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No entry speaks of the host.
    #[error("{} is not in the policy", destination.host())]
    HostNotInPolicy {
        /// What was asked for.
        destination: Destination,
    },
    /// Entries speak of the host, but of other ports.
    #[error("port {} of {} is not in the policy", destination.port(), destination.host())]
    PortNotInPolicy {
        /// What was asked for.
        destination: Destination,
        /// Ports that the policy knows of.
        ports: Vec<u16>,
    },
    /// A rule says deny.
    #[error("{destination} is denied by the rule at {rule}")]
    Denied {
        /// What was asked for.
        destination: Destination,
        /// The rule.
        rule: RuleOrigin,
    },
    /// No route of the rule permits the request, or one forbids it.
    #[error("{method} on this path of {host} is refused by the rule at {rule}")]
    RouteRefused {
        /// The route, or the host entry when no route matched.
        rule: RuleOrigin,
        /// The request's method.
        method: Method,
        /// The host pattern of the rule.
        host: String,
    },
    /// The rule has routes and the path can be read in two ways.
    #[error("the path cannot be judged: {error}")]
    AmbiguousPath {
        /// The rule whose routes needed the path.
        rule: RuleOrigin,
        /// What is ambiguous.
        error: PathError,
    },
    /// A second name for the destination disagrees with the first.
    #[error("{claim} names {claimed}, but the connection is to {destination}")]
    Misdirected {
        /// Where the connection goes.
        destination: Destination,
        /// What disagrees: `the TLS server name (SNI)`, `the Host field`, …
        claim: &'static str,
        /// What it says; canonical, or quoted when it is no host.
        claimed: String,
    },
    /// The name resolves to a special-purpose address.
    #[error("{destination} resolves to {address}, a {range} address")]
    AddressNotAllowed {
        /// Where the connection was to go.
        destination: Destination,
        /// The address.
        address: IpAddr,
        /// The range's name in the IANA registry.
        range: &'static str,
    },
    /// The target is not a host and port.
    #[error("the target is not a valid host and port: {0}")]
    BadTarget(#[from] HostError),
    /// The request breaks HTTP in a way that could be read as two requests.
    #[error("the request is malformed: {0}")]
    Malformed(MalformedRequest),
    /// The head did not arrive in time.
    #[error("the request head did not arrive within {} s", .0.as_secs_f32())]
    HeadTimeout(Duration),
    /// As many connections as permitted are open.
    #[error("the proxy serves {0} connections already, as many as it may")]
    TooManyConnections(usize),
    /// The way to the upstream failed.
    #[error("{destination}: {failure}")]
    Upstream {
        /// Where the connection was to go.
        destination: Destination,
        /// What failed.
        failure: UpstreamFailure,
    },
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MalformedRequest {
    /// Content-Length and Transfer-Encoding together (RFC 9112 §6.3).
    #[error("it has both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// Several or signed lengths.
    #[error("its Content-Length is not one plain number")]
    BadLength,
    /// Any transfer coding but `chunked` alone (RFC 9112 §6.1).
    #[error("its Transfer-Encoding is not \"chunked\"")]
    UnknownCoding,
    /// None or several Host fields (RFC 9112 §3.2).
    #[error("it does not have exactly one Host field")]
    HostCount,
    /// Neither absolute-form nor CONNECT: a request for the proxy itself.
    #[error("its target is not a full URL: this is a proxy, not a web server")]
    NotProxyForm,
    /// A scheme that is neither http nor https.
    #[error("its scheme is not http or https")]
    UnknownScheme,
    /// `user:password@` in the target (RFC 9110 §4.2.4).
    #[error("its target holds user information")]
    UserInfo,
    /// A CONNECT with a body or path.
    #[error("its CONNECT target is not HOST:PORT")]
    BadConnect,
}

/// What failed on the way to the upstream.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UpstreamFailure {
    /// The name does not exist or has no address.
    #[error("the name does not resolve: {0}")]
    NoAddress(String),
    /// The resolver did not answer in time.
    #[error("the resolver did not answer: {0}")]
    ResolverFailed(String),
    /// No address could be connected to.
    #[error("the connection failed: {0}")]
    ConnectFailed(String),
    /// `connect_timeout` ran out.
    #[error("no connection within {} s", .0.as_secs_f32())]
    ConnectTimeout(Duration),
    /// The certificate does not verify.
    #[error("its certificate does not verify: {0}")]
    Certificate(String),
    /// TLS failed otherwise.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The upstream closed before it answered.
    #[error("it closed the connection without an answer")]
    Closed,
    /// The upstream broke HTTP.
    #[error("its answer is not valid HTTP: {0}")]
    Protocol(String),
}

impl Refusal {
    /// The refusal for a second name that disagrees with the destination.
    pub fn misdirected(destination: &Destination, claim: &'static str, claimed: String) -> Self {
        Self::Misdirected { destination: destination.clone(), claim, claimed }
    }

    /// What the reader can do about it, as one line; none where there is nothing.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::HostNotInPolicy { destination } => {
                Some(format!("to permit it, add: [hosts.\"{}\"] action = \"tunnel\"", key(destination)))
            }
            Self::PortNotInPolicy { destination, ports } => Some(format!(
                "the policy permits port {}; to permit this one too, add: [hosts.\"{destination}\"] action = \"tunnel\"",
                ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
            )),
            Self::Denied { rule, .. } => Some(format!("the rule at {rule} says so on purpose")),
            Self::RouteRefused { rule, .. } => {
                Some(format!("to permit it, add a route that matches it before or below {rule}"))
            }
            Self::AmbiguousPath { .. } => {
                Some("send the path without dot segments, encoded slashes, //, and parameters".into())
            }
            Self::Misdirected { .. } => {
                Some("one connection serves one host: open another for the other name".into())
            }
            Self::AddressNotAllowed { address, .. } => Some(format!(
                "to permit it, add to [upstream]: allow_addresses = [\"{address}/{}\"]",
                if address.is_ipv4() { 32 } else { 128 }
            )),
            Self::Upstream { failure: UpstreamFailure::Certificate(_), .. } => {
                Some("if its authority is your own, add the authority to [upstream] ca_files".into())
            }
            Self::TooManyConnections(_) => Some("raise [proxy] max_connections".into()),
            Self::Malformed(MalformedRequest::NotProxyForm) => {
                Some("set it as HTTP_PROXY and HTTPS_PROXY; `credgate env` prints the variables".into())
            }
            Self::BadTarget(_) | Self::Malformed(_) | Self::HeadTimeout(_) | Self::Upstream { .. } => None,
        }
    }
}

/// A host key for a destination: without the port where the default stands for it.
fn key(destination: &Destination) -> String {
    match destination.port() {
        443 | 80 => destination.host().to_string(),
        _ => destination.to_string(),
    }
}
