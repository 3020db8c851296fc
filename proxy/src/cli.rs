//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config;

/// Runs a program so that all its traffic passes one policy, and adds credentials on the way out.
#[derive(Debug, Parser)]
#[command(name = "credgate", version, disable_help_subcommand = true)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the proxy, build a sandbox and run a program in it
    Run(Run),
    /// Serve as a proxy alone, for HTTPS_PROXY or a sidecar
    Proxy(ConfigFlag),
    /// Print the variables that point a program at a running proxy
    Env(Env),
    /// Validate the configuration, without reading a secret
    Check(ConfigFlag),
    /// Say what the policy decides for one URL, and why
    Explain(Explain),
    /// Show that it works: a private git server, a clone and a push without a credential, and attempts to leave
    Demo,
    /// Print a completion script
    Completions {
        /// For this shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// The sandbox's first stage: enters the namespaces. Started by `run`
    #[command(name = "__enter", hide = true)]
    Enter,
    /// The sandbox's second stage: process 1 in it. Started by the first
    #[command(name = "__init", hide = true)]
    Init,
}

/// `--config`.
#[derive(Debug, Args)]
pub struct ConfigFlag {
    /// Configuration file [default: $CREDGATE_CONFIG, the user's, /etc/credgate/credgate.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `credgate run`.
#[derive(Debug, Args)]
pub struct Run {
    /// See [`ConfigFlag`].
    #[command(flatten)]
    pub config: ConfigFlag,
    /// Permit a host without looking into its traffic; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    pub allow: Vec<String>,
    /// Add a built-in policy, such as github (reads GITHUB_TOKEN); may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub preset: Vec<String>,
    /// Let the program read and execute this path; may be repeated
    #[arg(long, value_name = "PATH")]
    pub read_only: Vec<PathBuf>,
    /// Let the program write this path; may be repeated
    #[arg(long, value_name = "PATH")]
    pub read_write: Vec<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `credgate env`.
#[derive(Debug, Args)]
pub struct Env {
    /// See [`ConfigFlag`].
    #[command(flatten)]
    pub config: ConfigFlag,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    pub format: EnvFormat,
}

/// `credgate env --format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EnvFormat {
    /// Lines for `eval "$(credgate env)"`
    #[default]
    Sh,
    /// One JSON object
    Json,
    /// Lines for an env file
    Dotenv,
}

/// `credgate explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// See [`ConfigFlag`].
    #[command(flatten)]
    pub config: ConfigFlag,
    /// Request method
    #[arg(short = 'X', long, default_value = "GET", value_name = "METHOD")]
    pub method: String,
    /// An http or https URL
    pub url: String,
}

impl ConfigFlag {
    /// What to load.
    pub fn request(&self) -> config::Request {
        config::Request { config: self.config.clone(), ..config::Request::default() }
    }
}

impl Run {
    /// What to load.
    pub fn request(&self) -> config::Request {
        config::Request {
            config: self.config.config.clone(),
            presets: self.preset.clone(),
            allow: self.allow.clone(),
            read_only: self.read_only.clone(),
            read_write: self.read_write.clone(),
        }
    }
}
