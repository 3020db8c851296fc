//! `[credentials.NAME]`: from the file to specifications of what to load.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use http::HeaderName;
use toml::Spanned;

use super::diagnostic::did_you_mean;
use super::raw;
use super::values::Findings;
use crate::policy::{CredentialId, CredentialRef, Mode};
use crate::secret::{CredentialKind, CredentialSpec, SecretSource};

/// Fields that are not a credential's: they frame the message, route it, or belong to one connection.
const FORBIDDEN_FIELDS: [&str; 14] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "expect",
    "content-type",
    "content-encoding",
    "proxy-authorization",
    "proxy-authenticate",
    "proxy-connection",
];

/// Credential types that the contract names and that are still to come.
const LATER_TYPES: [&str; 5] = ["query", "oauth2", "github-app", "aws-sigv4", "mtls"];

/// The compiled table.
#[derive(Default)]
pub(super) struct Credentials {
    pub specs: Vec<CredentialSpec>,
    by_name: BTreeMap<String, Known>,
}

struct Known {
    reference: CredentialRef,
    span: Range<usize>,
    used: bool,
}

impl Credentials {
    /// Adds a table. A name that is there already stays what it is.
    pub fn add(
        &mut self,
        table: BTreeMap<Spanned<String>, Spanned<raw::Credential>>,
        findings: &mut Findings<'_>,
    ) {
        for (name, raw) in table {
            if self.by_name.contains_key(name.get_ref()) {
                continue;
            }
            let span = name.span();
            let mode = mode(raw.get_ref(), findings);
            let Some(kind) = kind(&raw, findings) else {
                // Known by name all the same, so that hosts which use it are not blamed as well.
                self.insert(name.into_inner(), span, mode);
                continue;
            };
            let name = name.into_inner();
            self.insert(name.clone(), span, mode);
            self.specs.push(CredentialSpec { name: name.into(), kind });
        }
    }

    fn insert(&mut self, name: String, span: Range<usize>, mode: Mode) {
        let shared: Arc<str> = name.as_str().into();
        let reference = CredentialRef { id: CredentialId(self.specs.len()), name: shared, mode };
        self.by_name.insert(name, Known { reference, span, used: false });
    }

    /// The credential of a name that a host or a route gives.
    pub fn named(&mut self, name: &Spanned<String>, findings: &mut Findings<'_>) -> Option<CredentialRef> {
        if let Some(known) = self.by_name.get_mut(name.get_ref()) {
            known.used = true;
            return Some(known.reference.clone());
        }
        let fix = match did_you_mean(name.get_ref(), self.by_name.keys().map(String::as_str)) {
            Some(close) => format!("did you mean {close:?}?"),
            None => format!("add a table [credentials.{}]", name.get_ref()),
        };
        findings.error(name.span(), format!("there is no credential {:?}", name.get_ref()), fix);
        None
    }

    /// Warns of credentials that nothing uses.
    pub fn warn_unused(&self, findings: &mut Findings<'_>) {
        for (name, known) in self.by_name.iter().filter(|(_, known)| !known.used) {
            let fix = format!("name it in a host: credential = {name:?}; or remove it");
            findings.warn(known.span.clone(), format!("no host uses the credential {name:?}"), fix);
        }
    }
}

fn mode(raw: &raw::Credential, findings: &mut Findings<'_>) -> Mode {
    if let Some(mode) = raw.mode.as_ref().filter(|mode| mode.get_ref() == "placeholder") {
        findings.error(
            mode.span(),
            "mode = \"placeholder\" is not supported yet",
            "use \"always\", or \"if-absent\"",
        );
        return Mode::Always;
    }
    let words = [("always", Mode::Always), ("if-absent", Mode::IfAbsent)];
    findings.word("mode", raw.mode.as_ref(), Mode::Always, &words)
}

fn kind(raw: &Spanned<raw::Credential>, findings: &mut Findings<'_>) -> Option<CredentialKind> {
    let (span, raw) = (raw.span(), raw.get_ref());
    findings.unsupported("placeholder_env", raw.placeholder_env.as_ref());
    let Some(kind) = &raw.kind else {
        findings.error(span, "the credential has no type", "add: type = \"basic\", \"bearer\" or \"header\"");
        return None;
    };
    if LATER_TYPES.contains(&kind.get_ref().as_str()) {
        let message = format!("type = {:?} is not supported yet", kind.get_ref());
        findings.error(kind.span(), message, "use \"basic\", \"bearer\" or \"header\"");
        return None;
    }
    findings.unsupported("parameter", raw.parameter.as_ref());
    match kind.get_ref().as_str() {
        "basic" => {
            refuse_strangers(raw, "basic", &["username", "password"], findings);
            basic(span, raw, findings)
        }
        "bearer" => {
            refuse_strangers(raw, "bearer", &["token"], findings);
            let token = required_source("token", raw.token.as_ref(), span, findings)?;
            Some(CredentialKind::Bearer { token })
        }
        "header" => {
            refuse_strangers(raw, "header", &["header", "value", "format"], findings);
            header(span, raw, findings)
        }
        other => {
            let fix = match did_you_mean(other, ["basic", "bearer", "header"]) {
                Some(word) => format!("did you mean {word:?}?"),
                None => "use \"basic\", \"bearer\" or \"header\"".into(),
            };
            findings.error(kind.span(), format!("there is no credential type {other:?}"), fix);
            None
        }
    }
}

/// A key of another type would be parsed and ignored: refused.
fn refuse_strangers(raw: &raw::Credential, kind: &str, own: &[&str], findings: &mut Findings<'_>) {
    let present = [
        ("username", raw.username.as_ref().map(Spanned::span)),
        ("password", raw.password.as_ref().map(Spanned::span)),
        ("token", raw.token.as_ref().map(Spanned::span)),
        ("header", raw.header.as_ref().map(Spanned::span)),
        ("value", raw.value.as_ref().map(Spanned::span)),
        ("format", raw.format.as_ref().map(Spanned::span)),
    ];
    for (key, span) in present {
        if let Some(span) = span.filter(|_| !own.contains(&key)) {
            let fix = format!("a {kind} credential has: {}", own.join(", "));
            findings.error(span, format!("{key} means nothing in a {kind} credential"), fix);
        }
    }
}

fn basic(span: Range<usize>, raw: &raw::Credential, findings: &mut Findings<'_>) -> Option<CredentialKind> {
    let password = required_source("password", raw.password.as_ref(), span.clone(), findings);
    let Some(username) = &raw.username else {
        findings.error(span, "the credential has no username", "add: username = \"x-access-token\"");
        return None;
    };
    if username.get_ref().contains(|c: char| c == ':' || c.is_control()) {
        findings.error(
            username.span(),
            "the username holds a colon or a control character",
            "a colon ends the user name (RFC 7617): remove it",
        );
        return None;
    }
    Some(CredentialKind::Basic { username: username.get_ref().clone(), password: password? })
}

fn header(span: Range<usize>, raw: &raw::Credential, findings: &mut Findings<'_>) -> Option<CredentialKind> {
    let value = required_source("value", raw.value.as_ref(), span.clone(), findings);
    let Some(header) = &raw.header else {
        findings.error(span, "the credential has no header", "add: header = \"X-Api-Key\"");
        return None;
    };
    let Ok(field) = HeaderName::try_from(header.get_ref().as_str()) else {
        let message = format!("{:?} is not a header field name", header.get_ref());
        findings.error(header.span(), message, "write it as \"X-Api-Key\"");
        return None;
    };
    if FORBIDDEN_FIELDS.contains(&field.as_str()) {
        let message = format!("a credential cannot stand in {}", header.get_ref());
        let fix =
            "this field frames or routes the message: use \"Authorization\", or a field of the service's own";
        findings.error(header.span(), message, fix);
        return None;
    }
    let around = match &raw.format {
        None => (String::new(), String::new()),
        Some(format) => around(format, findings)?,
    };
    Some(CredentialKind::Header { field, value: value?, around })
}

fn around(format: &Spanned<String>, findings: &mut Findings<'_>) -> Option<(String, String)> {
    let parts: Vec<&str> = format.get_ref().split("{secret}").collect();
    let plain = format.get_ref().bytes().all(|octet| matches!(octet, b' '..=b'~'));
    match parts[..] {
        [before, behind] if plain => Some((before.to_owned(), behind.to_owned())),
        [_, _] => {
            let fix = "use printable ASCII only";
            findings.error(format.span(), "the format cannot stand in a header field", fix);
            None
        }
        _ => {
            let fix = "write it once, as in \"Key {secret}\"";
            findings.error(format.span(), "the format must hold {secret} exactly once", fix);
            None
        }
    }
}

fn required_source(
    key: &str,
    source: Option<&Spanned<raw::Source>>,
    credential: Range<usize>,
    findings: &mut Findings<'_>,
) -> Option<SecretSource> {
    let Some(source) = source else {
        let fix = format!("add: {key} = {{ env = \"VARIABLE\" }} or {key} = {{ file = \"PATH\" }}");
        findings.error(credential, format!("the credential has no {key}"), fix);
        return None;
    };
    let (span, raw) = (source.span(), source.get_ref());
    let later = [
        ("command", &raw.command),
        ("ttl", &raw.ttl),
        ("git_credential", &raw.git_credential),
        ("systemd", &raw.systemd),
        ("keyring", &raw.keyring),
    ];
    if later.iter().any(|(_, value)| value.is_some()) {
        for (key, value) in later {
            findings.unsupported(&format!("the source {key}"), value.as_ref());
        }
        return None;
    }
    match (&raw.env, &raw.file) {
        (Some(variable), None) => {
            if variable.get_ref().is_empty() || variable.get_ref().contains(['=', '\0']) {
                let fix = "write it as { env = \"GITHUB_TOKEN\" }";
                findings.error(variable.span(), "this is not the name of a variable", fix);
                return None;
            }
            Some(SecretSource::Env(variable.get_ref().clone()))
        }
        (None, Some(file)) => Some(SecretSource::File(findings.path(file))),
        (None, None) | (Some(_), Some(_)) => {
            let fix = "give exactly one of { env = \"VARIABLE\" } and { file = \"PATH\" }";
            findings.error(span, format!("{key} needs one source"), fix);
            None
        }
    }
}
