//! Fields that belong to one connection and must not travel on (RFC 9110 §7.6.1).

use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

/// Always removed, nominated or not. `Trailer` stays: trailers are passed on.
const ALWAYS: [HeaderName; 8] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Fields that `Connection` may not nominate: removing them would change what was judged or where it goes.
fn is_protected(name: &HeaderName) -> bool {
    use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST};
    [HOST, CONTENT_LENGTH, AUTHORIZATION, COOKIE, TRAILER].contains(name)
}

/// Removes what belongs to the connection, and puts the protocol back that an upgrade asks for.
///
/// Returns the protocol when the message asks for, or performs, an upgrade.
pub fn strip(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let upgrade = asked_upgrade(headers);
    let trailers = headers.get_all(TE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if let Some(nominated) = nominated(headers) {
        for name in nominated {
            headers.remove(name);
        }
    }
    for name in ALWAYS {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = &upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    upgrade
}

/// The protocol of an upgrade; only where `Connection` names the field (RFC 9110 §7.8).
fn asked_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let asked = tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    // Cleartext HTTP/2 would carry requests that nobody judges.
    let h2c = protocol.as_bytes().to_ascii_lowercase().starts_with(b"h2c");
    (asked && !h2c).then(|| protocol.clone())
}

fn nominated(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    headers.contains_key(CONNECTION).then(|| {
        tokens(headers)
            .filter_map(|token| HeaderName::try_from(token).ok())
            .filter(|name| !is_protected(name))
            .collect()
    })
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_belongs_to_the_connection_is_removed() {
        for (before, after) in [
            (&[("connection", "close, X-Hop"), ("x-hop", "1"), ("accept", "*/*")][..], &["accept"][..]),
            (&[("proxy-authorization", "Basic eA=="), ("proxy-connection", "keep-alive")], &[]),
            (
                &[("connection", "host, authorization"), ("host", "a"), ("authorization", "b")],
                &["authorization", "host"],
            ),
            (&[("upgrade", "websocket")], &[]),
            (&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")], &["connection", "upgrade"]),
            (
                &[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAA")],
                &[],
            ),
            (&[("te", "trailers"), ("trailer", "x-sum")], &["te", "trailer"]),
            (&[("te", "gzip")], &[]),
            (&[("keep-alive", "timeout=5"), ("transfer-encoding", "chunked")], &[]),
        ] {
            let mut headers = headers(before);
            strip(&mut headers);
            assert_eq!(names(&headers), after, "{before:?}");
        }
    }
}
