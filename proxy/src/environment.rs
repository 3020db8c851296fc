//! The variables that point a program at the proxy and let it trust the interception CA.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::policy::{Action, HostPattern, HostRule, Policy};

/// Hosts that never go through a proxy. Clients disagree on brackets around IPv6 literals, so both forms stand there.
const LOOPBACK: [&str; 4] = ["localhost", "127.0.0.1", "::1", "[::1]"];

/// Proxy URLs, for clients that read upper case, lower case or both (curl reads http_proxy in lower case only).
const PROXY_VARIABLES: [&str; 6] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];

/// Variables that replace a client's own roots: they get the system's roots and the CA.
const BUNDLE_VARIABLES: [&str; 11] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "NIX_SSL_CERT_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "DENO_CERT",
];

/// Variables that add to a client's own roots: they get the CA alone.
const EXTRA_CA_VARIABLES: [&str; 1] = ["NODE_EXTRA_CA_CERTS"];

/// Where OpenSSL looks for roots by hash, on the distributions that have such a directory.
const CERTIFICATE_DIRECTORIES: [&str; 3] =
    ["/etc/ssl/certs", "/etc/pki/tls/certs", "/usr/share/ca-certificates"];

/// Sockets and agents of the user's session: behind them are the user's keys. The sandbox hides the sockets; without
/// the variables programs do not try.
const AGENTS: [&str; 7] = [
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GPG_AGENT_INFO",
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_RUNTIME_DIR",
    "GIT_ASKPASS",
    "SSH_ASKPASS",
];

/// Where the program finds the CA.
#[derive(Clone, Debug)]
pub struct CaFiles {
    /// The CA's certificate.
    pub ca: PathBuf,
    /// The system's roots and the CA.
    pub bundle: PathBuf,
}

/// Variables to set.
pub type Variables = BTreeMap<OsString, OsString>;

/// The variables that point a program at the proxy: proxy URLs, `NO_PROXY`, CA.
///
/// `own` answers with the user's own variables, whose `NO_PROXY` is kept.
pub fn pointing_at(
    proxy: SocketAddr,
    policy: &Policy,
    ca: Option<&CaFiles>,
    own: &dyn Fn(&str) -> Option<OsString>,
) -> Variables {
    let mut variables = Variables::new();
    let mut set = |name: &str, value: OsString| variables.insert(name.into(), value);
    for name in PROXY_VARIABLES {
        set(name, format!("http://{proxy}").into());
    }
    let no_proxy = no_proxy(policy, own);
    set("NO_PROXY", no_proxy.clone());
    set("no_proxy", no_proxy);
    set("NODE_USE_ENV_PROXY", "1".into());
    if let Some(ca) = ca {
        for name in BUNDLE_VARIABLES {
            set(name, ca.bundle.clone().into());
        }
        for name in EXTRA_CA_VARIABLES {
            set(name, ca.ca.clone().into());
        }
        let directory = CERTIFICATE_DIRECTORIES.iter().find(|path| std::path::Path::new(path).is_dir());
        set("SSL_CERT_DIR", directory.copied().unwrap_or(CERTIFICATE_DIRECTORIES[0]).into());
    }
    variables
}

/// `NO_PROXY`: loopback, the direct hosts, and what the user had, each once.
pub fn no_proxy(policy: &Policy, own: &dyn Fn(&str) -> Option<OsString>) -> OsString {
    let direct =
        policy.rules().iter().filter(|rule| rule.action == Action::Direct).map(|rule| no_proxy_entry(rule));
    let had = ["NO_PROXY", "no_proxy"].into_iter().filter_map(own);
    let had: Vec<String> = had
        .flat_map(|list| {
            list.to_string_lossy().split([',', ' ']).map(|entry| entry.trim().to_owned()).collect::<Vec<_>>()
        })
        .filter(|entry| !entry.is_empty())
        .collect();
    let mut entries: Vec<String> = Vec::new();
    for entry in LOOPBACK.into_iter().map(str::to_owned).chain(direct).chain(had) {
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    entries.join(",").into()
}

/// A leading dot stands for every name below: curl, Go, Python and Node agree on that form alone.
fn no_proxy_entry(rule: &HostRule) -> String {
    let host = match &rule.pattern {
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Below(suffix) => format!(".{suffix}"),
    };
    match rule.port {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

/// The environment of a sandboxed program: the user's own without what carries or leads to secrets, and the
/// variables that point at the proxy.
pub fn of_program(
    own: impl IntoIterator<Item = (OsString, OsString)>,
    secret_variables: &[String],
    pointing: Variables,
) -> Variables {
    let mut variables: Variables =
        own.into_iter().filter(|(name, _)| !is_withheld(name, secret_variables)).collect();
    variables.extend(pointing);
    never_ask(&mut variables);
    variables
}

fn is_withheld(name: &OsStr, secret_variables: &[String]) -> bool {
    name.as_bytes().starts_with(b"CREDGATE_")
        || AGENTS.iter().any(|agent| name == *agent)
        || secret_variables.iter().any(|secret| name == secret.as_str())
}

/// git neither asks for a password nor runs a helper that has one: an empty `credential.helper` clears the list
/// (gitcredentials(7)), given through the environment (git-config(1), `GIT_CONFIG_COUNT`).
fn never_ask(variables: &mut Variables) {
    variables.insert("GIT_TERMINAL_PROMPT".into(), "0".into());
    let count = variables.get(OsStr::new("GIT_CONFIG_COUNT"));
    let count: usize = count.and_then(|count| count.to_str()?.parse().ok()).unwrap_or(0);
    variables.insert(format!("GIT_CONFIG_KEY_{count}").into(), "credential.helper".into());
    variables.insert(format!("GIT_CONFIG_VALUE_{count}").into(), OsString::new());
    variables.insert("GIT_CONFIG_COUNT".into(), (count + 1).to_string().into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{DefaultAction, PolicyBuilder, RuleOrigin};

    fn policy(entries: &[(&str, Action)]) -> Policy {
        let mut builder = PolicyBuilder::new(DefaultAction::Deny);
        for (key, action) in entries {
            let (pattern, port) = HostPattern::parse(key).unwrap();
            let origin = RuleOrigin { file: "t".into(), line: None };
            let action = *action;
            builder
                .add(HostRule { pattern, port, origin, action, credential: None, routes: vec![] })
                .unwrap();
        }
        builder.build()
    }

    #[test]
    fn no_proxy_holds_loopback_direct_hosts_and_the_users_own() {
        let policy = policy(&[
            ("direct.test", Action::Direct),
            ("*.wss.test", Action::Direct),
            ("other.test:8443", Action::Direct),
            ("tunnel.test", Action::Tunnel),
            ("[2606:4700::1]", Action::Direct),
        ]);
        let own =
            |name: &str| (name == "NO_PROXY").then(|| OsString::from("corp.test, direct.test,10.0.0.0/8"));
        assert_eq!(
            no_proxy(&policy, &own),
            "localhost,127.0.0.1,::1,[::1],direct.test,.wss.test,other.test:8443,[2606:4700::1],corp.test,10.0.0.0/8"
        );
    }

    #[test]
    fn secrets_and_agents_do_not_reach_the_program() {
        let own = [
            ("PATH", "/bin"),
            ("GITHUB_TOKEN", "ghp_secret"),
            ("SSH_AUTH_SOCK", "/run/agent"),
            ("CREDGATE_CONFIG", "/etc/x"),
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "user.name"),
            ("HTTPS_PROXY", "http://elsewhere"),
        ]
        .map(|(name, value)| (name.into(), value.into()));
        let pointing = pointing_at("127.0.0.1:3128".parse().unwrap(), &policy(&[]), None, &|_| None);
        let variables = of_program(own, &["GITHUB_TOKEN".into()], pointing);
        let value = |name: &str| variables.get(OsStr::new(name)).map(|value| value.to_str().unwrap());
        for (name, expected) in [
            ("PATH", Some("/bin")),
            ("GITHUB_TOKEN", None),
            ("SSH_AUTH_SOCK", None),
            ("CREDGATE_CONFIG", None),
            ("HTTPS_PROXY", Some("http://127.0.0.1:3128")),
            ("GIT_TERMINAL_PROMPT", Some("0")),
            ("GIT_CONFIG_COUNT", Some("2")),
            ("GIT_CONFIG_KEY_0", Some("user.name")),
            ("GIT_CONFIG_KEY_1", Some("credential.helper")),
            ("GIT_CONFIG_VALUE_1", Some("")),
        ] {
            assert_eq!(value(name), expected, "{name}");
        }
    }
}
