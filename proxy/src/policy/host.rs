//! Hosts, host patterns and destinations in their one canonical form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

use thiserror::Error;

/// Longest host name in presentation form without the trailing dot (RFC 1035 §2.3.4: 255 octets on the wire).
const MAX_NAME: usize = 253;
/// Longest label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// A host as the policy compares it: lower case, IDNA applied, no trailing dot, IP literals parsed.
///
/// IPv4-mapped IPv6 literals become IPv4, so that `::ffff:127.0.0.1` and `127.0.0.1` are one host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name in A-label form.
    Name(Arc<str>),
    /// An IP literal.
    Ip(IpAddr),
}

/// Why a text is not a host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HostError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// A byte that no host may hold: control bytes, `%`, `@`, spaces, delimiters.
    #[error("the host holds the forbidden character {0:?}")]
    ForbiddenCharacter(char),
    /// A number that is not a dotted quad: `127.1`, `0x7f.0.0.1`, `017700000001`.
    #[error("the host looks like an IPv4 address but is not four decimal numbers without leading zeros")]
    AmbiguousIpv4,
    /// Brackets without an IPv6 address in them, or an IPv6 address without brackets before a port.
    #[error("the host is not a valid IPv6 literal")]
    BadIpv6,
    /// An empty label, or one over 63 octets.
    #[error("a label of the host name is empty or longer than 63 octets")]
    BadLabel,
    /// Over 253 octets.
    #[error("the host name is longer than 253 octets")]
    TooLong,
    /// Fails IDNA (UTS #46) processing.
    #[error("the host name is not valid under IDNA")]
    BadIdna,
    /// A port that is no number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    BadPort,
    /// CONNECT and host keys of some forms need a port.
    #[error("the port is missing")]
    MissingPort,
    /// `*` anywhere but as the whole first label.
    #[error("a wildcard is only possible as the whole first label, as in *.example.com")]
    BadWildcard,
}

impl Host {
    /// Parses a host without a port. IPv6 literals may stand in brackets.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(HostError::BadIpv6)?;
            return inner.parse::<Ipv6Addr>().map(Self::from).map_err(|_| HostError::BadIpv6);
        }
        if let Some(forbidden) = text.chars().find(|c| is_forbidden(*c)) {
            return Err(HostError::ForbiddenCharacter(forbidden));
        }
        if text.contains(':') {
            return text.parse::<Ipv6Addr>().map(Self::from).map_err(|_| HostError::BadIpv6);
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(IpAddr::V4(address)));
        }
        canonical_name(text).map(Self::Name)
    }

    /// The DNS name, if it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Ip(_) => None,
        }
    }
}

impl From<Ipv6Addr> for Host {
    fn from(address: Ipv6Addr) -> Self {
        Self::Ip(IpAddr::V6(address).to_canonical())
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Self::Ip(address.to_canonical())
    }
}

/// As in a URI: IPv6 literals in brackets (RFC 3986 §3.2.2).
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Whether a character can stand in no host at all (WHATWG URL §3.2, plus `%`, which would be an encoded host or a
/// zone identifier, and `*`, which only a pattern may hold).
fn is_forbidden(c: char) -> bool {
    c.is_control()
        || c.is_whitespace()
        || matches!(
            c,
            '%' | '@'
                | '#'
                | '/'
                | '<'
                | '>'
                | '?'
                | '['
                | ']'
                | '\\'
                | '^'
                | '|'
                | '*'
                | '"'
                | '`'
                | '{'
                | '}'
        )
        || matches!(c, '!' | '$' | '&' | '\'' | '(' | ')' | '+' | ',' | ';' | '=' | '~')
}

fn canonical_name(text: &str) -> Result<Arc<str>, HostError> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        return Err(HostError::Empty);
    }
    let plain = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_'));
    let name: Arc<str> = if plain && !text.contains("xn--") {
        Arc::from(text)
    } else {
        let ascii = idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::URL)
            .map_err(|_| HostError::BadIdna)?;
        Arc::from(ascii.as_ref())
    };
    if name.len() > MAX_NAME {
        return Err(HostError::TooLong);
    }
    if name.split('.').any(|label| label.is_empty() || label.len() > MAX_LABEL) {
        return Err(HostError::BadLabel);
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    // WHATWG URL §3.5 "ends in a number": libc's resolver would read these as addresses.
    let numeric = last.bytes().all(|b| b.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if numeric {
        return Err(HostError::AmbiguousIpv4);
    }
    Ok(name)
}

/// Where a connection is to go: one host, one port, made once at the door.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    host: Host,
    port: NonZeroU16,
}

impl Destination {
    /// A destination from its parts; port 0 is an error.
    pub fn new(host: Host, port: u16) -> Result<Self, HostError> {
        Ok(Self { host, port: NonZeroU16::new(port).ok_or(HostError::BadPort)? })
    }

    /// Parses `HOST[:PORT]`; without a default, the port must be there (CONNECT, RFC 9110 §9.3.6).
    pub fn parse(authority: &str, default_port: Option<u16>) -> Result<Self, HostError> {
        let (host, port) = split_port(authority)?;
        let port = match (port, default_port) {
            (Some(port), _) | (None, Some(port)) => port,
            (None, None) => return Err(HostError::MissingPort),
        };
        Self::new(Host::parse(host)?, port)
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port.get()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Splits `HOST[:PORT]`. An IPv6 literal needs brackets as soon as there may be a port.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), HostError> {
    let (host, port) = if let Some(end) = authority.strip_prefix('[').and(authority.find(']')) {
        let (host, rest) = authority.split_at(end + 1);
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(HostError::BadIpv6),
        }
    } else {
        match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(HostError::BadIpv6),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let port = match port {
        None => None,
        // Digits only: `u16::from_str` would take `+443` as well.
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse::<NonZeroU16>().map_err(|_| HostError::BadPort)?.get())
        }
        Some(_) => return Err(HostError::BadPort),
    };
    Ok((host, port))
}

/// The key of a host entry: a host, or `*.` and a suffix that stands for one or more whole labels before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host alone.
    Exact(Host),
    /// Every name below this suffix, at any depth, but not the suffix itself.
    Below(Arc<str>),
}

impl HostPattern {
    /// Parses `HOST[:PORT]`, `*.SUFFIX[:PORT]`.
    pub fn parse(key: &str) -> Result<(Self, Option<u16>), HostError> {
        if key.parse::<Ipv6Addr>().is_ok() {
            return Ok((Self::Exact(Host::parse(key)?), None));
        }
        let (host, port) = split_port(key)?;
        if let Some(suffix) = host.strip_prefix("*.") {
            if suffix.contains('*') {
                return Err(HostError::BadWildcard);
            }
            return match Host::parse(suffix)? {
                Host::Name(suffix) => Ok((Self::Below(suffix), port)),
                Host::Ip(_) => Err(HostError::BadWildcard),
            };
        }
        if host.contains('*') {
            return Err(HostError::BadWildcard);
        }
        Ok((Self::Exact(Host::parse(host)?), port))
    }

    /// Whether the pattern stands for more than one host.
    pub fn is_wildcard(&self) -> bool {
        matches!(self, Self::Below(_))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_canonical_form() {
        for (text, canonical) in [
            ("github.com", "github.com"),
            ("GitHub.COM", "github.com"),
            ("github.com.", "github.com"),
            ("_dmarc.example.com", "_dmarc.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("::1", "[::1]"),
            ("[::ffff:127.0.0.1]", "127.0.0.1"),
            ("[::FFFF:7f00:1]", "127.0.0.1"),
            ("[2606:4700:0:0::1]", "[2606:4700::1]"),
        ] {
            assert_eq!(Host::parse(text).map(|h| h.to_string()).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_host_is_refused() {
        for (text, error) in [
            ("", HostError::Empty),
            (".", HostError::Empty),
            ("a..b", HostError::BadLabel),
            ("127.1", HostError::AmbiguousIpv4),
            ("0x7f.0.0.1", HostError::AmbiguousIpv4),
            ("0x7f000001", HostError::AmbiguousIpv4),
            ("0177.0.0.1", HostError::AmbiguousIpv4),
            ("2130706433", HostError::AmbiguousIpv4),
            ("127.0.0.1.", HostError::AmbiguousIpv4),
            ("\u{ff11}27.0.0.1", HostError::AmbiguousIpv4),
            ("a\0b", HostError::ForbiddenCharacter('\0')),
            ("user@host", HostError::ForbiddenCharacter('@')),
            ("a%2eb", HostError::ForbiddenCharacter('%')),
            ("a b", HostError::ForbiddenCharacter(' ')),
            ("a\r\nb", HostError::ForbiddenCharacter('\r')),
            ("[::1", HostError::BadIpv6),
            ("[fe80::1%eth0]", HostError::BadIpv6),
            ("*.example.com", HostError::ForbiddenCharacter('*')),
        ] {
            assert_eq!(Host::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(Host::parse(&"a".repeat(64)), Err(HostError::BadLabel));
        assert_eq!(Host::parse(&["a"; 128].join(".")), Err(HostError::TooLong));
    }

    #[test]
    fn destinations_need_a_true_port() {
        for (text, expected) in [
            ("a.test:443", Ok("a.test:443")),
            ("[::1]:8443", Ok("[::1]:8443")),
            ("a.test", Err(HostError::MissingPort)),
            ("a.test:", Err(HostError::BadPort)),
            ("a.test:0", Err(HostError::BadPort)),
            ("a.test:65536", Err(HostError::BadPort)),
            ("a.test:+443", Err(HostError::BadPort)),
            ("::1:443", Err(HostError::BadIpv6)),
            ("[::1]443", Err(HostError::BadIpv6)),
        ] {
            let parsed = Destination::parse(text, None).map(|d| d.to_string());
            assert_eq!(parsed.as_deref().map_err(Clone::clone), expected, "{text}");
        }
    }

    #[test]
    fn patterns_are_hosts_or_a_whole_first_label() {
        for (text, expected) in [
            ("github.com", Ok(("github.com", None))),
            ("github.com:8443", Ok(("github.com", Some(8443)))),
            ("*.Example.com", Ok(("*.example.com", None))),
            ("::1", Ok(("[::1]", None))),
            ("[::1]:80", Ok(("[::1]", Some(80)))),
            ("*", Err(HostError::BadWildcard)),
            ("a*.example.com", Err(HostError::BadWildcard)),
            ("*.*.com", Err(HostError::BadWildcard)),
            ("*.127.0.0.1", Err(HostError::BadWildcard)),
        ] {
            let parsed = HostPattern::parse(text).map(|(p, port)| (p.to_string(), port));
            let parsed = parsed.as_ref().map(|(p, port)| (p.as_str(), *port)).map_err(Clone::clone);
            assert_eq!(parsed, expected, "{text}");
        }
    }
}
