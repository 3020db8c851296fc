//! Refusals as responses: the only table of status codes.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::body::Body;
use crate::policy::{Refusal, UpstreamFailure};
use crate::session::{Entry, Outcome};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The status code of a refusal and its error type in the Proxy-Status field (RFC 9209 §2.3).
pub fn status(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::HostNotInPolicy { .. }
        | Refusal::PortNotInPolicy { .. }
        | Refusal::Denied { .. }
        | Refusal::RouteRefused { .. } => (StatusCode::FORBIDDEN, "http_request_denied"),
        Refusal::AddressNotAllowed { .. } => (StatusCode::FORBIDDEN, "destination_ip_prohibited"),
        Refusal::AmbiguousPath { .. } | Refusal::BadTarget(_) | Refusal::Malformed(_) => {
            (StatusCode::BAD_REQUEST, "http_request_error")
        }
        Refusal::Misdirected { .. } => (StatusCode::MISDIRECTED_REQUEST, "http_request_error"),
        Refusal::HeadTimeout(_) => (StatusCode::REQUEST_TIMEOUT, "http_request_error"),
        Refusal::TooManyConnections(_) => (StatusCode::SERVICE_UNAVAILABLE, "connection_limit_reached"),
        Refusal::Upstream { failure, .. } => upstream_status(failure),
    }
}

fn upstream_status(failure: &UpstreamFailure) -> (StatusCode, &'static str) {
    match failure {
        UpstreamFailure::NoAddress(_) => (StatusCode::BAD_GATEWAY, "dns_error"),
        UpstreamFailure::ResolverFailed(_) => (StatusCode::BAD_GATEWAY, "dns_timeout"),
        UpstreamFailure::ConnectFailed(_) => (StatusCode::BAD_GATEWAY, "connection_refused"),
        UpstreamFailure::ConnectTimeout(_) => (StatusCode::GATEWAY_TIMEOUT, "connection_timeout"),
        UpstreamFailure::Certificate(_) => (StatusCode::BAD_GATEWAY, "tls_certificate_error"),
        UpstreamFailure::Tls(_) => (StatusCode::BAD_GATEWAY, "tls_protocol_error"),
        UpstreamFailure::Closed => (StatusCode::BAD_GATEWAY, "connection_terminated"),
        UpstreamFailure::Protocol(_) => (StatusCode::BAD_GATEWAY, "http_protocol_error"),
    }
}

/// Whether the connection must end with this refusal, because its framing can no longer be trusted.
pub fn closes(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Malformed(_)
            | Refusal::BadTarget(_)
            | Refusal::HeadTimeout(_)
            | Refusal::TooManyConnections(_)
    )
}

#[derive(Serialize)]
struct Explanation<'r> {
    error: &'static str,
    reason: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'r str>,
    status: u16,
}

/// Accounts for a refusal.
pub fn account(mut entry: Entry, refusal: &Refusal) {
    entry.status = Some(status(refusal).0.as_u16());
    entry.end(Outcome::Refuse(refusal), 0, 0);
}

/// The response to a request that is refused, in the form that its Accept field asks for.
pub fn response(refusal: &Refusal, request: &HeaderMap) -> Response<Body> {
    let (status, error) = status(refusal);
    let (reason, remedy) = (refusal.to_string(), refusal.remedy());
    let (media_type, text) = if wants_json(request) {
        let explanation =
            Explanation { error, reason: &reason, remedy: remedy.as_deref(), status: status.as_u16() };
        let text = serde_json::to_string(&explanation).unwrap_or_else(|_| String::from("{}"));
        ("application/json", text + "\n")
    } else {
        ("text/plain; charset=utf-8", plain(&reason, remedy.as_deref()))
    };
    let mut response = Response::new(Body::full(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(value) = proxy_status(error, &reason) {
        headers.insert(PROXY_STATUS, value);
    }
    if closes(refusal) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The same as bytes on the wire, for where no HTTP implementation serves the connection (yet, or any more).
pub fn raw_response(refusal: &Refusal) -> String {
    let (status, error) = status(refusal);
    let text = plain(&refusal.to_string(), refusal.remedy().as_deref());
    let reason = status.canonical_reason().unwrap_or_default();
    format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Proxy-Status: credgate; error={error}\r\nConnection: close\r\n\r\n{text}",
        status.as_u16(),
        text.len()
    )
}

fn plain(reason: &str, remedy: Option<&str>) -> String {
    match remedy {
        Some(remedy) => format!("credgate: {reason}\ncredgate: {remedy}\n"),
        None => format!("credgate: {reason}\n"),
    }
}

/// JSON is asked for when it stands in Accept before any text type (RFC 9110 §12.5.1, without weights: nobody
/// weighs the form of an error).
fn wants_json(request: &HeaderMap) -> bool {
    let accept = request.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types =
        accept.flat_map(|value| value.split(',')).map(|t| t.split(';').next().unwrap_or(t).trim());
    types
        .find_map(|media_type| match media_type {
            "application/json" | "application/problem+json" => Some(true),
            t if t.ends_with("+json") => Some(true),
            t if t.starts_with("text/") => Some(false),
            _ => None,
        })
        .unwrap_or(false)
}

/// `credgate; error=…; details="…"` (RFC 9209 §2; the string of RFC 8941 §3.3.3 is printable ASCII).
fn proxy_status(error: &str, details: &str) -> Option<HeaderValue> {
    let mut text = format!("credgate; error={error}; details=\"");
    for c in details.chars() {
        match c {
            '"' | '\\' => {
                let _ = write!(text, "\\{c}");
            }
            ' '..='~' => text.push(c),
            _ => text.push('?'),
        }
    }
    text.push('"');
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Destination;

    fn accept(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_form_follows_accept() {
        for (value, json) in [
            ("*/*", false),
            ("application/json", true),
            ("text/html, application/json", false),
            ("application/vnd.github+json;q=1, */*", true),
            ("", false),
        ] {
            assert_eq!(wants_json(&accept(value)), json, "{value}");
        }
    }

    #[test]
    fn a_refusal_names_the_reason_and_the_remedy() {
        let destination = Destination::parse("evil.test:8443", None).unwrap();
        let response = response(&Refusal::HostNotInPolicy { destination }, &HeaderMap::new());
        assert_eq!(response.status(), 403);
        assert_eq!(
            response.headers()[PROXY_STATUS],
            "credgate; error=http_request_denied; details=\"evil.test is not in the policy\""
        );
        let destination = Destination::parse("evil.test:8443", None).unwrap();
        assert_eq!(
            raw_response(&Refusal::HostNotInPolicy { destination }).lines().skip(6).collect::<Vec<_>>(),
            [
                "credgate: evil.test is not in the policy",
                "credgate: to permit it, add: [hosts.\"evil.test:8443\"] action = \"tunnel\"",
            ]
        );
    }
}
