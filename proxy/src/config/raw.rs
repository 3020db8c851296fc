//! The TOML file as it is written: every key of the contract, nothing else.
//!
//! Keys whose feature is not there yet are read as any value, so that `compile` can refuse them by name.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

/// A key that is refused with "not supported yet".
pub type Unsupported = Option<Spanned<toml::Value>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub version: Option<Spanned<i64>>,
    pub default: Option<Spanned<String>>,
    pub proxy: Option<Proxy>,
    pub ca: Option<Ca>,
    pub upstream: Option<Upstream>,
    #[serde(default)]
    pub hosts: BTreeMap<Spanned<String>, HostEntry>,
    #[serde(default)]
    pub credentials: BTreeMap<Spanned<String>, Spanned<Credential>>,
    pub sandbox: Option<Sandbox>,
    pub log: Option<Log>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    pub listen: Option<Spanned<String>>,
    pub captured: Unsupported,
    pub admin: Unsupported,
    pub max_connections: Option<Spanned<i64>>,
    pub header_timeout: Option<Spanned<String>>,
    pub connect_timeout: Option<Spanned<String>>,
    pub idle_timeout: Option<Spanned<String>>,
    pub drain_timeout: Option<Spanned<String>>,
    pub on_policy_change: Unsupported,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ca {
    pub dir: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    #[serde(default)]
    pub ca_files: Vec<Spanned<String>>,
    #[serde(default)]
    pub allow_addresses: Vec<Spanned<String>>,
    pub proxy: Unsupported,
    pub no_proxy: Unsupported,
    #[serde(default)]
    pub resolve: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
    pub dns: Option<Dns>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    #[serde(default)]
    pub servers: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostEntry {
    pub action: Option<Spanned<String>>,
    pub credential: Option<Spanned<String>>,
    pub wildcard_credential: Option<Spanned<bool>>,
    #[serde(default)]
    pub routes: Vec<Spanned<Route>>,
    pub git: Unsupported,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    #[serde(default)]
    pub methods: Vec<Spanned<String>>,
    pub path: Option<Spanned<String>>,
    pub credential: Option<Spanned<String>>,
    pub allow: Option<Spanned<bool>>,
    pub body: Unsupported,
    pub redact: Unsupported,
    pub stub_tokens: Unsupported,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    #[serde(rename = "type")]
    pub kind: Option<Spanned<String>>,
    pub username: Option<Spanned<String>>,
    pub password: Option<Spanned<Source>>,
    pub token: Option<Spanned<Source>>,
    pub header: Option<Spanned<String>>,
    pub value: Option<Spanned<Source>>,
    pub format: Option<Spanned<String>>,
    pub parameter: Unsupported,
    pub mode: Option<Spanned<String>>,
    pub placeholder_env: Unsupported,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub env: Option<Spanned<String>>,
    pub file: Option<Spanned<String>>,
    pub command: Unsupported,
    pub ttl: Unsupported,
    pub git_credential: Unsupported,
    pub systemd: Unsupported,
    pub keyring: Unsupported,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    pub uplink: Option<Spanned<String>>,
    pub direct_exceptions: Option<Spanned<String>>,
    pub dns: Option<Spanned<String>>,
    pub user: Option<Spanned<String>>,
    pub filesystem: Option<Filesystem>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filesystem {
    pub landlock: Option<Spanned<String>>,
    pub workdir: Option<Spanned<String>>,
    pub home: Option<Spanned<String>>,
    #[serde(default)]
    pub read_only: Vec<Spanned<String>>,
    #[serde(default)]
    pub read_write: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: Option<Spanned<String>>,
    pub audit: Option<Spanned<String>>,
}
