//! `[hosts."…"]`: from the file to the policy.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use http::Method;
use toml::Spanned;

use super::credentials::Credentials;
use super::diagnostic::Diagnostic;
use super::raw;
use super::values::Findings;
use crate::policy::{
    Action, CredentialRef, HostError, HostPattern, HostRule, PathPattern, PolicyBuilder, Route, RuleOrigin,
};

/// What a second entry for the same hosts means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeated {
    /// It contradicts the first.
    Error,
    /// It is a preset's: what the file says stands.
    KeepFirst,
}

/// Compiles the table into a builder, in the order of the file.
pub(super) fn compile(
    table: BTreeMap<Spanned<String>, raw::HostEntry>,
    credentials: &mut Credentials,
    builder: &mut PolicyBuilder,
    repeated: Repeated,
    findings: &mut Findings<'_>,
) {
    let mut entries: Vec<_> = table.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut places: HashMap<String, Range<usize>> = HashMap::new();
    for (key, entry) in entries {
        let Some(rule) = rule(&key, &entry, credentials, findings) else { continue };
        let name = rule.key();
        match builder.add(rule) {
            Ok(()) => {
                places.insert(name, key.span());
            }
            Err(_) if repeated == Repeated::KeepFirst => {}
            Err(there) => {
                let first = places.get(&there.key()).cloned().unwrap_or_else(|| key.span());
                findings.diagnostics.push(
                    Diagnostic::error(
                        key.span(),
                        format!("two entries for the host {}", there.key()),
                        "keep one of them: hosts are compared without case and trailing dot",
                    )
                    .label("again here")
                    .related(first, "first here"),
                );
            }
        }
    }
}

fn rule(
    key: &Spanned<String>,
    entry: &raw::HostEntry,
    credentials: &mut Credentials,
    findings: &mut Findings<'_>,
) -> Option<HostRule> {
    findings.unsupported("git", entry.git.as_ref());
    let credential = entry.credential.as_ref().and_then(|name| credentials.named(name, findings));
    let origin = origin(key.span(), findings);
    let action = action(key, entry, findings);
    let routes: Vec<Route> = entry.routes.iter().map(|raw| route(raw, credentials, findings)).collect();
    let (pattern, port) = match HostPattern::parse(key.get_ref()) {
        Ok(parsed) => parsed,
        Err(error) => {
            findings.error(key.span(), format!("this is not a host: {error}"), host_fix(&error));
            return None;
        }
    };
    let mut names = credential.iter().chain(routes.iter().filter_map(|route| route.credential.as_ref()));
    check_wildcard(key, entry, &pattern, names.next(), findings);
    Some(HostRule { pattern, port, origin, action: action?, credential, routes })
}

fn origin(span: Range<usize>, findings: &Findings<'_>) -> RuleOrigin {
    RuleOrigin { file: findings.source.name.clone(), line: Some(findings.source.line(span.start)) }
}

fn host_fix(error: &HostError) -> &'static str {
    match error {
        HostError::BadWildcard => {
            "write it as \"*.example.com\"; for all hosts, set default = \"tunnel\" at the top"
        }
        HostError::ForbiddenCharacter('/') => "write the host alone, without https:// and without a path",
        HostError::BadPort | HostError::MissingPort => "write it as \"example.com:8443\"",
        HostError::BadIpv6 => "write it as \"[2001:db8::1]\" or \"[2001:db8::1]:443\"",
        HostError::AmbiguousIpv4 => "write it as four decimal numbers: \"192.0.2.1\"",
        HostError::Empty
        | HostError::ForbiddenCharacter(_)
        | HostError::BadLabel
        | HostError::TooLong
        | HostError::BadIdna => "write it as \"example.com\"",
    }
}

fn action(key: &Spanned<String>, entry: &raw::HostEntry, findings: &mut Findings<'_>) -> Option<Action> {
    let words = [
        ("intercept", Action::Intercept),
        ("tunnel", Action::Tunnel),
        ("direct", Action::Direct),
        ("deny", Action::Deny),
    ];
    let intercepts = entry.credential.is_some() || !entry.routes.is_empty();
    let Some(written) = &entry.action else {
        if intercepts {
            return Some(Action::Intercept);
        }
        let fix = "add: action = \"tunnel\" (or \"intercept\", \"direct\", \"deny\"), or a credential";
        findings.error(key.span(), "the host has neither an action nor a credential", fix);
        return None;
    };
    let action = findings.word("action", Some(written), Action::Deny, &words);
    let known = words.iter().any(|(word, _)| word == written.get_ref());
    if known && intercepts && action != Action::Intercept {
        let what = if entry.credential.is_some() { "a credential" } else { "routes" };
        let message = format!("{what} and action = {:?} contradict each other", written.get_ref());
        findings.error(written.span(), message, "remove the action, or set it to \"intercept\"");
    }
    Some(action)
}

fn check_wildcard(
    key: &Spanned<String>,
    entry: &raw::HostEntry,
    pattern: &HostPattern,
    credential: Option<&CredentialRef>,
    findings: &mut Findings<'_>,
) {
    let permitted = entry.wildcard_credential.as_ref();
    match credential {
        Some(credential) if pattern.is_wildcard() && !permitted.is_some_and(|said| *said.get_ref()) => {
            let message =
                format!("every host below {pattern} would receive the credential {:?}", &*credential.name);
            let fix =
                "name the hosts one by one; or, if that is what you want, add: wildcard_credential = true";
            findings.error(key.span(), message, fix);
        }
        Some(_) if pattern.is_wildcard() => {}
        Some(_) | None => {
            if let Some(said) = permitted {
                let fix = "remove it";
                let message = "wildcard_credential is for wildcard hosts with a credential";
                findings.error(said.span(), message, fix);
            }
        }
    }
}

fn route(raw: &Spanned<raw::Route>, credentials: &mut Credentials, findings: &mut Findings<'_>) -> Route {
    let span = raw.span();
    let raw = raw.get_ref();
    findings.unsupported("body", raw.body.as_ref());
    findings.unsupported("redact", raw.redact.as_ref());
    findings.unsupported("stub_tokens", raw.stub_tokens.as_ref());
    let methods = raw.methods.iter().filter_map(|method| self::method(method, findings)).collect();
    let path = raw.path.as_ref().and_then(|path| match PathPattern::parse(path.get_ref()) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let fix = "write it as \"/acme/**\": * stands for a part of one segment, ** for whole segments";
            findings.error(path.span(), error.to_string(), fix);
            None
        }
    });
    let credential = raw.credential.as_ref().and_then(|name| credentials.named(name, findings));
    let allow = raw.allow.as_ref().is_none_or(|allow| *allow.get_ref());
    if let Some(name) = raw.credential.as_ref().filter(|_| !allow) {
        findings.error(name.span(), "a route that refuses needs no credential", "remove one of the two");
    }
    Route { origin: origin(span, findings), methods, path, credential, allow }
}

fn method(method: &Spanned<String>, findings: &mut Findings<'_>) -> Option<Method> {
    let upper = method.get_ref().to_ascii_uppercase();
    let message = format!("{:?} is not a method", method.get_ref());
    match Method::from_bytes(method.get_ref().as_bytes()) {
        // Methods are case-sensitive (RFC 9110 §9.1): `get` would never match.
        Ok(_) if *method.get_ref() != upper => {
            findings.error(method.span(), message, format!("write it as {upper:?}"));
            None
        }
        Ok(method) => Some(method),
        Err(_) => {
            findings.error(method.span(), message, "write it as \"GET\"");
            None
        }
    }
}

/// A rule of a flag: tunnel to one host.
pub(super) fn allowed(text: &str) -> Result<HostRule, HostError> {
    let (pattern, port) = HostPattern::parse(text)?;
    let origin = RuleOrigin { file: Arc::from(format!("--allow {text}")), line: None };
    Ok(HostRule { pattern, port, origin, action: Action::Tunnel, credential: None, routes: vec![] })
}
