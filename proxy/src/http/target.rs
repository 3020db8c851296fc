//! Where a request is to go: one destination out of its target and Host field, or a refusal.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, Request, Uri};

use crate::policy::{Destination, MalformedRequest, Refusal};

/// Default port of each scheme (RFC 9110 §4.2.1, §4.2.2).
pub const HTTP_PORT: u16 = 80;
/// See [`HTTP_PORT`].
pub const HTTPS_PORT: u16 = 443;

/// Refuses framing that two implementations could read differently (RFC 9112 §6.3), even where ours would cope.
pub fn check_framing(headers: &HeaderMap) -> Result<(), Refusal> {
    let malformed = |what| Err(Refusal::Malformed(what));
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    if length.is_some_and(|value| !value.as_bytes().iter().all(u8::is_ascii_digit))
        || lengths.next().is_some()
    {
        return malformed(MalformedRequest::BadLength);
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if length.is_some() {
            return malformed(MalformedRequest::LengthAndCoding);
        }
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some() {
            return malformed(MalformedRequest::UnknownCoding);
        }
    }
    Ok(())
}

/// The destination of CONNECT: authority-form, nothing else (RFC 9112 §3.2.3).
pub fn connect<B>(request: &Request<B>) -> Result<Destination, Refusal> {
    let uri = request.uri();
    let authority = uri.authority().ok_or(Refusal::Malformed(MalformedRequest::BadConnect))?;
    if uri.scheme().is_some() || uri.path_and_query().is_some() {
        return Err(Refusal::Malformed(MalformedRequest::BadConnect));
    }
    let destination = Destination::parse(without_userinfo(authority)?, None)?;
    agree_host(request.headers(), &destination, HTTPS_PORT, Missing::Fine)?;
    Ok(destination)
}

/// The destination of a request in absolute-form, and whether its scheme is https.
pub fn absolute<B>(request: &Request<B>) -> Result<(Destination, bool), Refusal> {
    let Some((destination, secure)) = of_uri(request.uri())? else {
        return Err(Refusal::Malformed(MalformedRequest::NotProxyForm));
    };
    let port = if secure { HTTPS_PORT } else { HTTP_PORT };
    agree_host(request.headers(), &destination, port, Missing::Fine)?;
    Ok((destination, secure))
}

/// Checks a request that came on a connection whose destination is settled: whatever it names must be the same.
pub fn agree<B>(request: &Request<B>, destination: &Destination, secure: bool) -> Result<(), Refusal> {
    if let Some((target, https)) = of_uri(request.uri())?
        && (target != *destination || https != secure)
    {
        return Err(Refusal::misdirected(destination, "the request target", target.to_string()));
    }
    let port = if secure { HTTPS_PORT } else { HTTP_PORT };
    let missing = if request.version() == http::Version::HTTP_10 { Missing::Fine } else { Missing::Refused };
    agree_host(request.headers(), destination, port, missing)
}

/// The destination that a request names itself, for a connection of which only the address is known.
pub fn named_by_host<B>(request: &Request<B>, port: u16) -> Result<Destination, Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Refusal::Malformed(MalformedRequest::HostCount));
    };
    let text = host.to_str().map_err(|_| Refusal::Malformed(MalformedRequest::HostCount))?;
    Ok(Destination::parse(text, Some(port))?)
}

fn of_uri(uri: &Uri) -> Result<Option<(Destination, bool)>, Refusal> {
    let Some(scheme) = uri.scheme_str() else { return Ok(None) };
    let secure = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err(Refusal::Malformed(MalformedRequest::UnknownScheme)),
    };
    let authority = uri.authority().ok_or(Refusal::Malformed(MalformedRequest::NotProxyForm))?;
    let port = if secure { HTTPS_PORT } else { HTTP_PORT };
    Ok(Some((Destination::parse(without_userinfo(authority)?, Some(port))?, secure)))
}

fn without_userinfo(authority: &Authority) -> Result<&str, Refusal> {
    let text = authority.as_str();
    if text.contains('@') {
        return Err(Refusal::Malformed(MalformedRequest::UserInfo));
    }
    Ok(text)
}

/// What a missing Host field means.
#[derive(Clone, Copy)]
enum Missing {
    Fine,
    Refused,
}

/// The Host field must name the destination. Without a port it stands for the scheme's default, and also for the
/// destination's own port: clients of captured connections leave it out.
fn agree_host(
    headers: &HeaderMap,
    destination: &Destination,
    default_port: u16,
    missing: Missing,
) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next(), missing) {
        (Some(host), None, _) => host,
        (None, _, Missing::Fine) => return Ok(()),
        (None, _, Missing::Refused) | (Some(_), Some(_), _) => {
            return Err(Refusal::Malformed(MalformedRequest::HostCount));
        }
    };
    let text = host.to_str().unwrap_or_default();
    let named = |port| Destination::parse(text, Some(port)).ok();
    if named(default_port).as_ref() == Some(destination)
        || named(destination.port()).as_ref() == Some(destination)
    {
        return Ok(());
    }
    let claimed = String::from_utf8_lossy(host.as_bytes()).escape_debug().to_string();
    Err(Refusal::misdirected(destination, "the Host field", claimed))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn request(method: Method, target: &str, hosts: &[&str]) -> Request<()> {
        let mut builder = Request::builder().method(method).uri(target);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        builder.body(()).unwrap()
    }

    /// `ok DESTINATION` or the refusal's words.
    fn words<T: std::fmt::Display>(outcome: Result<T, Refusal>) -> String {
        outcome.map_or_else(|refusal| refusal.to_string(), |value| format!("ok {value}"))
    }

    #[test]
    fn connect_takes_authority_form_alone() {
        for (target, hosts, expected) in [
            ("a.test:443", &["a.test:443"][..], "ok a.test:443"),
            ("A.TEST:443", &["a.test"], "ok a.test:443"),
            ("a.test:8443", &["a.test"], "ok a.test:8443"),
            ("a.test:443", &[], "ok a.test:443"),
            ("[::1]:443", &[], "ok [::1]:443"),
            ("a.test", &[], "the target is not a valid host and port: the port is missing"),
            ("http://a.test/", &[], "the request is malformed: its CONNECT target is not HOST:PORT"),
            ("u@a.test:443", &[], "the request is malformed: its target holds user information"),
            ("a.test:443", &["b.test"], "the Host field names b.test, but the connection is to a.test:443"),
            (
                "a.test:443",
                &["a.test:80"],
                "the Host field names a.test:80, but the connection is to a.test:443",
            ),
            (
                "a.test:443",
                &["a.test", "a.test"],
                "the request is malformed: it does not have exactly one Host field",
            ),
        ] {
            assert_eq!(
                words(connect(&request(Method::CONNECT, target, hosts))),
                expected,
                "{target} {hosts:?}"
            );
        }
    }

    #[test]
    fn absolute_form_names_scheme_host_and_port() {
        for (target, hosts, expected) in [
            ("http://a.test/x", &["a.test"][..], "ok a.test:80 false"),
            ("http://a.test:8080/", &["a.test:8080"], "ok a.test:8080 false"),
            ("https://a.test/", &["a.test"], "ok a.test:443 true"),
            (
                "http://a.test/",
                &["b.test"],
                "the Host field names b.test, but the connection is to a.test:80",
            ),
            ("ftp://a.test/", &[], "the request is malformed: its scheme is not http or https"),
            (
                "/x",
                &["a.test"],
                "the request is malformed: its target is not a full URL: this is a proxy, not a web server",
            ),
            ("http://u:p@a.test/", &[], "the request is malformed: its target holds user information"),
            (
                "http://127.1/",
                &[],
                "the target is not a valid host and port: the host looks like an IPv4 address but is not four decimal numbers without leading zeros",
            ),
        ] {
            let outcome =
                absolute(&request(Method::GET, target, hosts)).map(|(d, secure)| format!("{d} {secure}"));
            assert_eq!(words(outcome), expected, "{target} {hosts:?}");
        }
    }

    #[test]
    fn a_request_inside_names_the_same_host() {
        let destination = Destination::parse("a.test:443", None).unwrap();
        for (target, hosts, expected) in [
            ("/x", &["a.test"][..], "ok "),
            ("/x", &["A.Test:443"], "ok "),
            ("https://a.test/x", &["a.test"], "ok "),
            ("/x", &["b.test"], "the Host field names b.test, but the connection is to a.test:443"),
            ("/x", &["a.test:8443"], "the Host field names a.test:8443, but the connection is to a.test:443"),
            (
                "https://b.test/",
                &["a.test"],
                "the request target names b.test:443, but the connection is to a.test:443",
            ),
            (
                "http://a.test:443/",
                &["a.test"],
                "the request target names a.test:443, but the connection is to a.test:443",
            ),
            ("/x", &[], "the request is malformed: it does not have exactly one Host field"),
        ] {
            let outcome = agree(&request(Method::GET, target, hosts), &destination, true).map(|()| "");
            assert_eq!(words(outcome), expected, "{target} {hosts:?}");
        }
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for (lines, expected) in [
            (&[("content-length", "5")][..], Ok(())),
            (&[("transfer-encoding", "chunked")], Ok(())),
            (&[("content-length", "+5")], Err(MalformedRequest::BadLength)),
            (&[("content-length", "5"), ("content-length", "5")], Err(MalformedRequest::BadLength)),
            (&[("content-length", "5, 5")], Err(MalformedRequest::BadLength)),
            (
                &[("content-length", "5"), ("transfer-encoding", "chunked")],
                Err(MalformedRequest::LengthAndCoding),
            ),
            (&[("transfer-encoding", "xchunked")], Err(MalformedRequest::UnknownCoding)),
            (&[("transfer-encoding", "gzip, chunked")], Err(MalformedRequest::UnknownCoding)),
            (
                &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                Err(MalformedRequest::UnknownCoding),
            ),
        ] {
            let headers: HeaderMap = lines
                .iter()
                .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
                .collect();
            assert_eq!(check_framing(&headers), expected.map_err(Refusal::Malformed), "{lines:?}");
        }
    }
}
