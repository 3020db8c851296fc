//! What a compiled configuration holds besides the policy: plain values, defaults filled in, paths absolute.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::AddressPolicy;

/// All of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[proxy]`
    pub proxy: ProxySettings,
    /// `[ca]`
    pub ca: CaSettings,
    /// `[upstream]`
    pub upstream: UpstreamSettings,
    /// `[sandbox]`
    pub sandbox: SandboxSettings,
    /// `[log]`
    pub log: LogSettings,
}

/// `[proxy]`: the listener and its limits.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// Where `credgate proxy` listens; port 0 picks one.
    pub listen: SocketAddr,
    /// Connections served at once.
    pub max_connections: usize,
    /// How long a request head may take from its first byte.
    pub header_timeout: Duration,
    /// How long a connection to an upstream may take, name resolution included.
    pub connect_timeout: Duration,
    /// How long a tunnel may be without a byte in either direction.
    pub idle_timeout: Duration,
    /// How long open connections may go on after SIGTERM.
    pub drain_timeout: Duration,
}

/// `[ca]`: where the interception CA lives.
#[derive(Clone, Debug)]
pub struct CaSettings {
    /// Directory of ca.pem, ca-key.pem and bundle.pem. None: a CA for this process alone, its key only in memory.
    pub dir: Option<PathBuf>,
}

/// `[upstream]`: what is trusted and what may be dialled.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// PEM files trusted besides the system roots.
    pub ca_files: Vec<PathBuf>,
    /// Special-purpose ranges that are permitted.
    pub addresses: AddressPolicy,
    /// Fixed addresses of names (canonical), in place of a lookup.
    pub resolve: HashMap<Arc<str>, Vec<IpAddr>>,
    /// Nameservers in place of the machine's own; empty: the machine's own.
    pub dns_servers: Vec<SocketAddr>,
}

/// `[sandbox]`: what `credgate run` puts around the program.
#[derive(Clone, Debug)]
pub struct SandboxSettings {
    /// Whom the program runs as when credgate is started by root.
    pub user: Option<SandboxUser>,
    /// What the kernel must provide.
    pub landlock: Requirement,
    /// The working directory.
    pub workdir: WorkdirAccess,
    /// The home directory.
    pub home: HomeAccess,
    /// Further paths to read and execute.
    pub read_only: Vec<PathBuf>,
    /// Further paths to write.
    pub read_write: Vec<PathBuf>,
}

/// `sandbox.user`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxUser {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// `sandbox.filesystem.landlock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Without it, `run` refuses to start.
    Required,
    /// What the kernel has is used.
    BestEffort,
}

/// `sandbox.filesystem.workdir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkdirAccess {
    /// The program may write there.
    ReadWrite,
    /// The program may only read there.
    ReadOnly,
}

/// `sandbox.filesystem.home`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HomeAccess {
    /// An empty home for this run.
    Private,
    /// The user's own, to read.
    ReadOnly,
    /// The user's own.
    ReadWrite,
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// How log lines look.
    pub format: LogFormat,
    /// Where audit lines go; none: they are not written.
    pub audit: Option<PathBuf>,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// For collectors.
    Json,
}
