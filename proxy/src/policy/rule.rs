//! One host entry: what becomes of a connection to it, and of each request on that connection.

use std::fmt;
use std::sync::Arc;

use http::Method;

use super::credential::CredentialRef;
use super::host::HostPattern;
use super::path::{PathPattern, normal_path};
use super::refusal::Refusal;

/// Where in the configuration a rule stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleOrigin {
    /// File name as the user gave it, or `--allow`, or `preset NAME`.
    pub file: Arc<str>,
    /// Line from 1; absent for flags.
    pub line: Option<u32>,
}

impl fmt::Display for RuleOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// What a host entry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Terminate TLS, judge every request, add the credential.
    Intercept,
    /// Pass bytes through unread.
    Tunnel,
    /// As tunnel for clients that come by the proxy; others are told by `NO_PROXY` to go straight.
    Direct,
    /// Refuse.
    Deny,
}

/// A compiled `[hosts."…"]` entry.
#[derive(Clone, Debug)]
pub struct HostRule {
    /// The hosts it speaks of.
    pub pattern: HostPattern,
    /// The port of its key; none stands for 443 and 80.
    pub port: Option<u16>,
    /// Where it was written.
    pub origin: RuleOrigin,
    /// What it asks for.
    pub action: Action,
    /// Added to requests that no route says otherwise of.
    pub credential: Option<CredentialRef>,
    /// In order: the first that matches decides. Empty: every request is permitted.
    pub routes: Vec<Route>,
}

/// A compiled `[[hosts."…".routes]]` entry.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where it was written.
    pub origin: RuleOrigin,
    /// Methods it speaks of; empty: all.
    pub methods: Vec<Method>,
    /// Paths it speaks of; none: all.
    pub path: Option<PathPattern>,
    /// Instead of the host's credential.
    pub credential: Option<CredentialRef>,
    /// Whether what it matches is permitted.
    pub allow: bool,
}

/// What a request is judged by.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'r> {
    /// The method.
    pub method: &'r Method,
    /// The path of the request target as sent, without the query.
    pub path: &'r str,
    /// Whether it leaves over verified TLS; a credential never leaves otherwise.
    pub secure: bool,
}

/// Leave to add one credential to one request. Only [`HostRule::check`] makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    credential: CredentialRef,
}

impl Injection {
    /// The credential to add.
    pub fn credential(&self) -> &CredentialRef {
        &self.credential
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, with this credential or none.
    Forward(Option<Injection>),
    /// It does not.
    Refuse(Refusal),
}

impl HostRule {
    /// Judges one request.
    pub fn check(&self, request: RequestFacts<'_>) -> Verdict {
        let credential = match self.route(request) {
            Ok(Some(route)) => route.credential.as_ref().or(self.credential.as_ref()),
            Ok(None) => self.credential.as_ref(),
            Err(refusal) => return Verdict::Refuse(refusal),
        };
        let injection = credential
            .filter(|_| request.secure)
            .map(|credential| Injection { credential: credential.clone() });
        Verdict::Forward(injection)
    }

    /// The route that permits a request; none when the rule has no routes.
    fn route(&self, request: RequestFacts<'_>) -> Result<Option<&Route>, Refusal> {
        if self.routes.is_empty() {
            return Ok(None);
        }
        let path = normal_path(request.path)
            .map_err(|error| Refusal::AmbiguousPath { rule: self.origin.clone(), error })?;
        let refused = |origin: &RuleOrigin| Refusal::RouteRefused {
            rule: origin.clone(),
            method: request.method.clone(),
            host: self.pattern.to_string(),
        };
        for route in &self.routes {
            let method = route.methods.is_empty() || route.methods.contains(request.method);
            let path = route.path.as_ref().is_none_or(|pattern| pattern.matches(&path));
            if method && path {
                return if route.allow { Ok(Some(route)) } else { Err(refused(&route.origin)) };
            }
        }
        Err(refused(&self.origin))
    }

    /// Every credential the rule can add.
    pub fn credentials(&self) -> impl Iterator<Item = &CredentialRef> {
        self.credential.iter().chain(self.routes.iter().filter_map(|route| route.credential.as_ref()))
    }

    /// The key as it would be written in the configuration.
    pub fn key(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.pattern),
            None => self.pattern.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::credential::{CredentialId, Mode};
    use super::*;

    fn credential(name: &str) -> CredentialRef {
        CredentialRef { id: CredentialId(0), name: name.into(), mode: Mode::Always }
    }

    fn origin(line: u32) -> RuleOrigin {
        RuleOrigin { file: "t.toml".into(), line: Some(line) }
    }

    fn rule(routes: Vec<Route>) -> HostRule {
        HostRule {
            pattern: HostPattern::parse("git.test").unwrap().0,
            port: None,
            origin: origin(1),
            action: Action::Intercept,
            credential: Some(credential("host")),
            routes,
        }
    }

    fn route(methods: &[Method], path: &str, credential: Option<CredentialRef>, allow: bool) -> Route {
        let path = Some(PathPattern::parse(path).unwrap());
        Route { origin: origin(9), methods: methods.to_vec(), path, credential, allow }
    }

    /// The name of the credential that a request gets, "-" for none, "refused" otherwise.
    fn outcome(rule: &HostRule, method: &Method, path: &str, secure: bool) -> String {
        match rule.check(RequestFacts { method, path, secure }) {
            Verdict::Forward(Some(injection)) => injection.credential().name.to_string(),
            Verdict::Forward(None) => "-".into(),
            Verdict::Refuse(_) => "refused".into(),
        }
    }

    #[test]
    fn a_credential_needs_tls() {
        let rule = rule(vec![]);
        assert_eq!(outcome(&rule, &Method::GET, "/", true), "host");
        assert_eq!(outcome(&rule, &Method::GET, "/", false), "-");
    }

    #[test]
    fn the_first_matching_route_decides_and_none_is_a_refusal() {
        let rule = rule(vec![
            route(&[], "/**/git-receive-pack", None, false),
            route(&[Method::GET, Method::POST], "/acme/**", Some(credential("acme")), true),
            route(&[Method::GET], "/public/*", None, true),
        ]);
        for (method, path, expected) in [
            (Method::POST, "/acme/app/git-receive-pack", "refused"),
            (Method::POST, "/acme/app/git-upload-pack", "acme"),
            (Method::DELETE, "/acme/app", "refused"),
            (Method::GET, "/public/x", "host"),
            (Method::GET, "/public/x/y", "refused"),
            (Method::GET, "/", "refused"),
            (Method::GET, "/public/../acme/x", "refused"),
            (Method::GET, "/acme/%2e%2e/other", "refused"),
            (Method::GET, "/%61cme/x", "acme"),
        ] {
            assert_eq!(outcome(&rule, &method, path, true), expected, "{method} {path}");
        }
    }
}
