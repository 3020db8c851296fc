//! Single values of the file: durations, addresses, words of a fixed set.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;

use super::diagnostic::{Diagnostic, Source, did_you_mean};
use super::settings::SandboxUser;

/// Port of nameservers that are given without one (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

/// Collects what is wrong while values are read.
pub(super) struct Findings<'s> {
    pub source: &'s Source,
    pub diagnostics: Vec<Diagnostic>,
}

impl Findings<'_> {
    pub fn error(&mut self, span: Range<usize>, message: impl Into<String>, fix: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(span, message, fix));
    }

    pub fn warn(&mut self, span: Range<usize>, message: impl Into<String>, fix: impl Into<String>) {
        self.diagnostics.push(Diagnostic::warning(span, message, fix));
    }

    /// Refuses a key whose feature is not there yet.
    pub fn unsupported(&mut self, key: &str, value: Option<&Spanned<toml::Value>>) {
        if let Some(value) = value {
            self.error(value.span(), format!("{key} is not supported yet"), format!("remove {key}"));
        }
    }

    /// One word of a set, or its default.
    pub fn word<T: Copy>(
        &mut self,
        key: &str,
        value: Option<&Spanned<String>>,
        default: T,
        words: &[(&str, T)],
    ) -> T {
        let Some(value) = value else { return default };
        let text = value.get_ref();
        if let Some((_, meaning)) = words.iter().find(|(word, _)| word == text) {
            return *meaning;
        }
        let all = words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        let fix = match did_you_mean(text, words.iter().map(|(word, _)| *word)) {
            Some(word) => format!("did you mean {word:?}?"),
            None => format!("use one of {all}"),
        };
        self.error(value.span(), format!("{key} cannot be {text:?}"), fix);
        default
    }

    /// A duration such as `10s`, or its default.
    pub fn duration(&mut self, key: &str, value: Option<&Spanned<String>>, default: Duration) -> Duration {
        let Some(value) = value else { return default };
        match parse_duration(value.get_ref()) {
            Some(duration) if !duration.is_zero() => duration,
            Some(_) => {
                self.error(value.span(), format!("{key} cannot be zero"), "give at least \"1ms\"");
                default
            }
            None => {
                let fix = "write a number and a unit: \"500ms\", \"10s\", \"15m\", \"1h\"";
                self.error(value.span(), format!("{key} is not a duration"), fix);
                default
            }
        }
    }

    /// A path, relative to the file.
    pub fn path(&mut self, value: &Spanned<String>) -> PathBuf {
        if value.get_ref().is_empty() {
            self.error(value.span(), "the path is empty", "give a path, or remove the key");
        }
        match value.get_ref().strip_prefix("~/") {
            Some(below_home) => match std::env::home_dir() {
                Some(home) => home.join(below_home),
                None => {
                    self.error(value.span(), "there is no home directory for ~", "write the whole path");
                    PathBuf::new()
                }
            },
            None => self.source.dir.join(value.get_ref()),
        }
    }

    pub fn paths(&mut self, values: &[Spanned<String>]) -> Vec<PathBuf> {
        values.iter().map(|value| self.path(value)).collect()
    }

    pub fn listen(&mut self, value: Option<&Spanned<String>>, default: SocketAddr) -> SocketAddr {
        let Some(value) = value else { return default };
        value.get_ref().parse().unwrap_or_else(|_| {
            let fix = "write an IP address and a port: \"127.0.0.1:3128\", \"[::1]:3128\"";
            self.error(value.span(), "proxy.listen is not an address and a port", fix);
            default
        })
    }

    pub fn address(&mut self, value: &Spanned<String>) -> Option<IpAddr> {
        let address = value.get_ref().parse().ok();
        if address.is_none() {
            let fix = "write it as \"192.0.2.1\" or \"2001:db8::1\"";
            self.error(value.span(), format!("{:?} is not an IP address", value.get_ref()), fix);
        }
        address
    }

    pub fn network(&mut self, value: &Spanned<String>) -> Option<IpNet> {
        let text = value.get_ref();
        let network = text.parse().ok().or_else(|| text.parse().ok().map(|address: IpAddr| address.into()));
        if network.is_none() {
            let fix = "write it as \"10.20.0.0/16\", \"fd00::/8\" or one address";
            self.error(value.span(), format!("{text:?} is not an address range"), fix);
        }
        network
    }

    pub fn nameserver(&mut self, value: &Spanned<String>) -> Option<SocketAddr> {
        let text = value.get_ref();
        let server = text
            .parse()
            .ok()
            .or_else(|| text.parse().ok().map(|address: IpAddr| SocketAddr::new(address, DNS_PORT)));
        if server.is_none() {
            let fix = "write its address, with a port or without: \"10.96.0.10:53\"";
            self.error(value.span(), format!("{text:?} is not the address of a nameserver"), fix);
        }
        server
    }

    pub fn user(&mut self, value: Option<&Spanned<String>>) -> Option<SandboxUser> {
        let value = value?;
        let ids = value.get_ref().split_once(':');
        let user =
            ids.and_then(|(uid, gid)| Some(SandboxUser { uid: uid.parse().ok()?, gid: gid.parse().ok()? }));
        if user.is_none() {
            let fix = "write numbers: \"1000:1000\"; `id -u` and `id -g` print them";
            self.error(value.span(), "sandbox.user is not UID:GID", fix);
        }
        user
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, milliseconds) in [
            ("500ms", Some(500)),
            ("10s", Some(10_000)),
            ("15m", Some(900_000)),
            ("1h", Some(3_600_000)),
            ("0s", Some(0)),
            ("10", None),
            ("10 s", None),
            ("-1s", None),
            ("1.5s", None),
            ("s", None),
            ("99999999999999999999s", None),
            ("9999999999999999999h", None),
        ] {
            assert_eq!(parse_duration(text), milliseconds.map(Duration::from_millis), "{text}");
        }
    }
}
