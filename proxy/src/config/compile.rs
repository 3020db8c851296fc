//! From the file to settings and policy: every error is found, not only the first.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use super::credentials::Credentials;
use super::diagnostic::{Diagnostic, Severity, Source, did_you_mean};
use super::hosts;
use super::raw;
use super::settings::{
    CaSettings, HomeAccess, LogFormat, LogSettings, ProxySettings, Requirement, SandboxSettings, Settings,
    UpstreamSettings, WorkdirAccess,
};
use super::values::Findings;
use crate::policy::{AddressPolicy, DefaultAction, Host, Policy, PolicyBuilder};
use crate::secret::{CredentialSpec, SecretSource};

/// `proxy.listen` by default: the port that Squid made customary, on loopback.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
/// `proxy.max_connections` by default.
const DEFAULT_CONNECTIONS: usize = 10_000;

/// A configuration that is in order. Secrets are not read yet.
#[derive(Debug)]
pub struct Compiled {
    /// Values.
    pub settings: Settings,
    /// Hosts.
    pub policy: Policy,
    /// Credentials, in the order of their ids.
    pub credentials: Vec<CredentialSpec>,
    /// What is allowed but suspicious, rendered.
    pub warnings: Vec<String>,
    /// Every file that it was made from or leads to: watched for changes.
    pub files: Vec<PathBuf>,
}

/// What findings belong to which text.
pub(super) type Report = Vec<(Source, Vec<Diagnostic>)>;

/// Compiles a file, then adds presets and permitted hosts. Entries of the file come first: a preset does not change
/// what the file says of a host or a credential.
pub(super) fn compile(
    main: Option<Source>,
    presets: Vec<Source>,
    allow: &[String],
) -> Result<(Compiled, Report), Report> {
    let mut report = Report::new();
    let mut credentials = Credentials::default();
    let (main, file) = match main {
        None => (None, raw::File::default()),
        Some(source) => match parse(&source) {
            Ok(file) => (Some(source), file),
            Err(diagnostic) => return Err(vec![(source, vec![*diagnostic])]),
        },
    };
    let nowhere = Source { name: "flags".into(), text: String::new(), dir: PathBuf::new() };
    let source = main.unwrap_or(nowhere);
    let mut findings = Findings { source: &source, diagnostics: Vec::new() };
    let (settings, default) = self::settings(&file, source.text.is_empty(), &mut findings);
    let mut builder = PolicyBuilder::new(default);
    credentials.add(file.credentials, &mut findings);
    hosts::compile(file.hosts, &mut credentials, &mut builder, hosts::Repeated::Error, &mut findings);
    credentials.warn_unused(&mut findings);
    let diagnostics = findings.diagnostics;
    report.push((source, diagnostics));
    for preset in presets {
        let diagnostics = add_preset(&preset, &mut credentials, &mut builder);
        report.push((preset, diagnostics));
    }
    for host in allow {
        if let Err(error) = hosts::allowed(host).map(|rule| builder.add(rule)) {
            let text = format!("--allow {host}");
            let source = Source { name: "command line".into(), text, dir: PathBuf::new() };
            let span = "--allow ".len()..source.text.len();
            let diagnostic = Diagnostic::error(
                span,
                format!("this is not a host: {error}"),
                "write it as HOST or HOST:PORT",
            );
            report.push((source, vec![diagnostic]));
        }
    }
    let failed = report.iter().flat_map(|(_, all)| all).any(|one| one.severity() == Severity::Error);
    if failed {
        return Err(report);
    }
    let files = credentials.specs.iter().filter_map(|spec| match spec.source() {
        SecretSource::File(path) => Some(path.clone()),
        SecretSource::Env(_) => None,
    });
    let files = files.chain(settings.upstream.ca_files.iter().cloned()).collect();
    let compiled = Compiled {
        settings,
        policy: builder.build(),
        credentials: credentials.specs,
        warnings: Vec::new(),
        files,
    };
    Ok((compiled, report))
}

fn add_preset(
    preset: &Source,
    credentials: &mut Credentials,
    builder: &mut PolicyBuilder,
) -> Vec<Diagnostic> {
    let file = match parse(preset) {
        Ok(file) => file,
        Err(diagnostic) => return vec![*diagnostic],
    };
    let mut findings = Findings { source: preset, diagnostics: Vec::new() };
    credentials.add(file.credentials, &mut findings);
    hosts::compile(file.hosts, credentials, builder, hosts::Repeated::KeepFirst, &mut findings);
    findings.diagnostics
}

fn parse(source: &Source) -> Result<raw::File, Box<Diagnostic>> {
    toml::from_str(&source.text).map_err(|error| Box::new(syntax(&error)))
}

/// An error of the TOML parser or of the file's shape, in the same form as ours.
fn syntax(error: &toml::de::Error) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    let message = error.message().lines().collect::<Vec<_>>().join(" ");
    if message.contains("expected struct Source") {
        return Diagnostic::error(
            first_octet(span),
            "a secret does not stand in this file",
            "name where it comes from: { env = \"VARIABLE\" } or { file = \"PATH\" }",
        );
    }
    if let Some((unknown, expected)) = unknown_field(&message) {
        let fix = match did_you_mean(unknown, expected.iter().copied()) {
            Some(close) => format!("did you mean {close}?"),
            None => format!("the keys here are: {}", expected.join(", ")),
        };
        return Diagnostic::error(span, format!("there is no key {unknown}"), fix);
    }
    let message = message.replace("expected struct ", "expected a table: ");
    Diagnostic::error(span, message, "see the example configuration for the form of this key")
}

/// Only the place of a secret is shown, not its text.
fn first_octet(span: Range<usize>) -> Range<usize> {
    span.start..span.start + 1
}

/// Takes serde's ``unknown field `x`, expected one of `a`, `b` `` apart.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (unknown, rest) = rest.split_once('`')?;
    let expected = rest.split('`').skip(1).step_by(2).collect();
    Some((unknown, expected))
}

fn settings(file: &raw::File, without_file: bool, findings: &mut Findings<'_>) -> (Settings, DefaultAction) {
    match &file.version {
        Some(version) if *version.get_ref() == 1 => {}
        Some(version) => {
            let message = format!("version {} of the configuration is not known", version.get_ref());
            findings.error(version.span(), message, "this credgate reads version = 1");
        }
        None if without_file => {}
        None => findings.error(0..0, "the version is missing", "add at the top: version = 1"),
    }
    let words = [("deny", DefaultAction::Deny), ("tunnel", DefaultAction::Tunnel)];
    let default = findings.word("default", file.default.as_ref(), DefaultAction::Deny, &words);
    let dir = file.ca.as_ref().and_then(|ca| ca.dir.as_ref()).map(|dir| findings.path(dir));
    let settings = Settings {
        proxy: proxy(file.proxy.as_ref().unwrap_or(&raw::Proxy::default()), findings),
        ca: CaSettings { dir },
        upstream: upstream(file.upstream.as_ref().unwrap_or(&raw::Upstream::default()), findings),
        sandbox: sandbox(file.sandbox.as_ref().unwrap_or(&raw::Sandbox::default()), findings),
        log: log(file.log.as_ref().unwrap_or(&raw::Log::default()), findings),
    };
    (settings, default)
}

fn proxy(raw: &raw::Proxy, findings: &mut Findings<'_>) -> ProxySettings {
    findings.unsupported("proxy.captured", raw.captured.as_ref());
    findings.unsupported("proxy.admin", raw.admin.as_ref());
    findings.unsupported("proxy.on_policy_change", raw.on_policy_change.as_ref());
    let max_connections = match &raw.max_connections {
        None => DEFAULT_CONNECTIONS,
        Some(value) => match usize::try_from(*value.get_ref()) {
            Ok(connections) if connections > 0 => connections,
            Ok(_) | Err(_) => {
                let fix = "give at least 1";
                findings.error(value.span(), "proxy.max_connections is not a positive number", fix);
                DEFAULT_CONNECTIONS
            }
        },
    };
    let seconds = Duration::from_secs;
    ProxySettings {
        listen: findings.listen(raw.listen.as_ref(), DEFAULT_LISTEN),
        max_connections,
        header_timeout: findings.duration("proxy.header_timeout", raw.header_timeout.as_ref(), seconds(10)),
        connect_timeout: findings.duration(
            "proxy.connect_timeout",
            raw.connect_timeout.as_ref(),
            seconds(10),
        ),
        idle_timeout: findings.duration("proxy.idle_timeout", raw.idle_timeout.as_ref(), seconds(15 * 60)),
        drain_timeout: findings.duration("proxy.drain_timeout", raw.drain_timeout.as_ref(), seconds(30)),
    }
}

fn upstream(raw: &raw::Upstream, findings: &mut Findings<'_>) -> UpstreamSettings {
    findings.unsupported("upstream.proxy", raw.proxy.as_ref());
    findings.unsupported("upstream.no_proxy", raw.no_proxy.as_ref());
    let allowed = raw.allow_addresses.iter().filter_map(|value| findings.network(value)).collect();
    let addresses = AddressPolicy::new(allowed);
    let mut resolve = std::collections::HashMap::new();
    for (name, values) in &raw.resolve {
        let host = match Host::parse(name.get_ref()) {
            Ok(Host::Name(host)) => host,
            Ok(Host::Ip(_)) => {
                findings.error(name.span(), "an address needs no resolution", "remove the entry");
                continue;
            }
            Err(error) => {
                let message = format!("this is not a host name: {error}");
                findings.error(name.span(), message, "write it as \"git.example.com\"");
                continue;
            }
        };
        if values.is_empty() {
            findings.error(name.span(), "the name has no address", "give at least one: [\"192.0.2.1\"]");
        }
        let mut fixed = Vec::new();
        for value in values {
            let Some(address) = findings.address(value) else { continue };
            if let Err(range) = addresses.check(address) {
                let message = format!("connections to {address} will be refused: it is a {range} address");
                let fix = format!("to permit it, add to [upstream]: allow_addresses = [\"{address}\"]");
                findings.warn(value.span(), message, fix);
            }
            fixed.push(address);
        }
        if resolve.insert(host, fixed).is_some() {
            findings.error(name.span(), "the name stands here twice", "keep one of the entries");
        }
    }
    let servers = raw.dns.as_ref().map(|dns| &dns.servers[..]).unwrap_or_default();
    let dns_servers = servers.iter().filter_map(|value| findings.nameserver(value)).collect();
    UpstreamSettings { ca_files: findings.paths(&raw.ca_files), addresses, resolve, dns_servers }
}

fn sandbox(raw: &raw::Sandbox, findings: &mut Findings<'_>) -> SandboxSettings {
    only("sandbox.uplink", raw.uplink.as_ref(), "none", &["veth"], findings);
    only("sandbox.dns", raw.dns.as_ref(), "policy", &["forward"], findings);
    only(
        "sandbox.direct_exceptions",
        raw.direct_exceptions.as_ref(),
        "none",
        &["pinned", "broad-443"],
        findings,
    );
    let absent = raw::Filesystem::default();
    let files = raw.filesystem.as_ref().unwrap_or(&absent);
    let landlock = [("required", Requirement::Required), ("best-effort", Requirement::BestEffort)];
    let workdir = [("read-write", WorkdirAccess::ReadWrite), ("read-only", WorkdirAccess::ReadOnly)];
    let home = [
        ("private", HomeAccess::Private),
        ("read-only", HomeAccess::ReadOnly),
        ("read-write", HomeAccess::ReadWrite),
    ];
    SandboxSettings {
        user: findings.user(raw.user.as_ref()),
        landlock: findings.word(
            "sandbox.filesystem.landlock",
            files.landlock.as_ref(),
            Requirement::Required,
            &landlock,
        ),
        workdir: findings.word(
            "sandbox.filesystem.workdir",
            files.workdir.as_ref(),
            WorkdirAccess::ReadWrite,
            &workdir,
        ),
        home: findings.word("sandbox.filesystem.home", files.home.as_ref(), HomeAccess::Private, &home),
        read_only: findings.paths(&files.read_only),
        read_write: findings.paths(&files.read_write),
    }
}

/// A key of which one word is there and others are still to come.
fn only(
    key: &str,
    value: Option<&toml::Spanned<String>>,
    there: &str,
    later: &[&str],
    findings: &mut Findings<'_>,
) {
    let Some(value) = value else { return };
    let word = value.get_ref();
    if later.contains(&word.as_str()) {
        let fix = format!("use {there:?}, or remove the key");
        findings.error(value.span(), format!("{key} = {word:?} is not supported yet"), fix);
    } else {
        findings.word(key, Some(value), (), &[(there, ())]);
    }
}

fn log(raw: &raw::Log, findings: &mut Findings<'_>) -> LogSettings {
    let words = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    LogSettings {
        format: findings.word("log.format", raw.format.as_ref(), LogFormat::Auto, &words),
        audit: raw.audit.as_ref().map(|path| findings.path(path)),
    }
}
