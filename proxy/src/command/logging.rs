//! Where log lines go: stderr, as text on a terminal and as JSON elsewhere.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::settings::LogFormat;
use crate::secret::process_environment;

/// Begins to log. `CREDGATE_LOG` selects levels as RUST_LOG does elsewhere.
pub(super) fn start(format: LogFormat, default_level: &str) {
    let directives = std::env::var("CREDGATE_LOG").unwrap_or_else(|_| default_level.to_owned());
    let filter = EnvFilter::builder().parse_lossy(directives);
    let terminal = io::stderr().is_terminal();
    let colour = terminal && process_environment("NO_COLOR").is_none_or(|value| value.is_empty());
    let base = fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    // A second start in one process is refused, and would change nothing.
    let _ = if json {
        base.json().flatten_event(true).try_init()
    } else {
        base.without_time().with_ansi(colour).try_init()
    };
}
