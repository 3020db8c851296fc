//! Finding the file, and everything that adds to it: environment and flags.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compile::{Compiled, Report, compile};
use super::diagnostic::{Severity, Source, did_you_mean, render};
use super::settings::LogFormat;
use crate::secret::Environment;

/// Presets that are built in, by name.
const PRESETS: [(&str, &str); 1] = [("github", include_str!("../../../config/presets/github.toml"))];

/// The file of the machine.
const SYSTEM_FILE: &str = "/etc/credgate/credgate.toml";

/// What the command line asks for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--preset`.
    pub presets: Vec<String>,
    /// `--allow`.
    pub allow: Vec<String>,
    /// `--read-only`.
    pub read_only: Vec<PathBuf>,
    /// `--read-write`.
    pub read_write: Vec<PathBuf>,
}

/// Why there is no configuration. Prints as what the user reads.
#[derive(Debug)]
pub struct LoadError {
    text: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}

impl std::error::Error for LoadError {}

impl Request {
    /// Whether the flags alone make a policy.
    fn stands_alone(&self) -> bool {
        !self.presets.is_empty() || !self.allow.is_empty()
    }

    /// Finds, reads and compiles. Secrets are not read.
    pub fn load(&self, environment: &Environment<'_>) -> Result<Compiled, LoadError> {
        let path = match self.find(environment) {
            Some(path) => Some(path),
            None if self.stands_alone() => None,
            None => return Err(nothing_found(environment)),
        };
        let main = path.as_deref().map(read).transpose()?;
        let presets = self.presets.iter().map(|name| preset(name)).collect::<Result<Vec<_>, _>>()?;
        let colour =
            io::stderr().is_terminal() && environment("NO_COLOR").is_none_or(|value| value.is_empty());
        let (mut compiled, report) = compile(main, presets, &self.allow)
            .map_err(|report| LoadError { text: text(&report, colour) })?;
        for (source, diagnostics) in &report {
            for diagnostic in diagnostics {
                compiled.warnings.push(render(std::slice::from_ref(diagnostic), source, colour));
            }
        }
        compiled.files.splice(0..0, path);
        self.add_paths(&mut compiled)?;
        override_from(environment, &mut compiled)?;
        Ok(compiled)
    }

    /// `--config`, `CREDGATE_CONFIG`, the user's file, the machine's. Never one of the working directory: a sandboxed
    /// program or a cloned repository could have written that.
    fn find(&self, environment: &Environment<'_>) -> Option<PathBuf> {
        let named = self.config.clone().or_else(|| environment("CREDGATE_CONFIG").map(PathBuf::from));
        named.or_else(|| {
            let mut places = vec![PathBuf::from(SYSTEM_FILE)];
            places.splice(0..0, user_file(environment));
            places.into_iter().find(|path| path.exists())
        })
    }

    fn add_paths(&self, compiled: &mut Compiled) -> Result<(), LoadError> {
        let absolute = |path: &PathBuf| {
            std::path::absolute(path)
                .map_err(|error| LoadError { text: format!("{}: {error}", path.display()) })
        };
        for path in &self.read_only {
            compiled.settings.sandbox.read_only.push(absolute(path)?);
        }
        for path in &self.read_write {
            compiled.settings.sandbox.read_write.push(absolute(path)?);
        }
        Ok(())
    }
}

fn user_file(environment: &Environment<'_>) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let base = environment("XDG_CONFIG_HOME").map(PathBuf::from).filter(absolute);
    let base = base.or_else(|| environment("HOME").map(|home| PathBuf::from(home).join(".config")));
    base.filter(absolute).map(|base| base.join("credgate/credgate.toml"))
}

fn nothing_found(environment: &Environment<'_>) -> LoadError {
    let user = user_file(environment).unwrap_or_else(|| "~/.config/credgate/credgate.toml".into());
    let mut text = format!(
        "there is no configuration: looked for {} and {SYSTEM_FILE}\n\
         name one with --config FILE, or permit hosts with `credgate run --allow HOST` or `--preset github`",
        user.display()
    );
    if Path::new("credgate.toml").exists() {
        text.push_str(
            "\nthe credgate.toml in this directory is not taken by itself; if you trust it: --config credgate.toml",
        );
    }
    LoadError { text }
}

fn read(path: &Path) -> Result<Source, LoadError> {
    let failed = |error: io::Error| LoadError {
        text: format!("{}: the configuration cannot be read: {error}", path.display()),
    };
    let octets = fs::read(path).map_err(failed)?;
    let text = String::from_utf8(octets)
        .map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")))?;
    let whole = std::path::absolute(path).map_err(failed)?;
    let dir = whole.parent().map(Path::to_owned).unwrap_or_default();
    Ok(Source { name: path.to_string_lossy().into(), text, dir })
}

fn preset(name: &str) -> Result<Source, LoadError> {
    let names = || PRESETS.iter().map(|(name, _)| *name);
    let Some((_, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
        let fix = match did_you_mean(name, names()) {
            Some(close) => format!("did you mean {close:?}?"),
            None => format!("there are: {}", names().collect::<Vec<_>>().join(", ")),
        };
        return Err(LoadError { text: format!("there is no preset {name:?}\n{fix}") });
    };
    let name = Arc::from(format!("preset {name}"));
    Ok(Source { name, text: (*text).to_owned(), dir: PathBuf::from("/") })
}

fn text(report: &Report, colour: bool) -> String {
    let mut text = String::new();
    for (source, diagnostics) in report {
        let errors: Vec<_> =
            diagnostics.iter().filter(|one| one.severity() == Severity::Error).cloned().collect();
        text.push_str(&render(&errors, source, colour));
    }
    text
}

/// `CREDGATE_LISTEN`, `CREDGATE_LOG_FORMAT`, `CREDGATE_AUDIT`: over the file, under flags.
fn override_from(environment: &Environment<'_>, compiled: &mut Compiled) -> Result<(), LoadError> {
    let word = |value: OsString| value.to_string_lossy().into_owned();
    if let Some(listen) = environment("CREDGATE_LISTEN").map(word) {
        compiled.settings.proxy.listen = listen.parse::<SocketAddr>().map_err(|_| LoadError {
            text: format!(
                "CREDGATE_LISTEN: {listen:?} is not an address and a port\nwrite it as 127.0.0.1:3128"
            ),
        })?;
    }
    if let Some(format) = environment("CREDGATE_LOG_FORMAT").map(word) {
        compiled.settings.log.format = match format.as_str() {
            "auto" => LogFormat::Auto,
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => {
                let text =
                    format!("CREDGATE_LOG_FORMAT: there is no format {format:?}\nuse auto, text or json");
                return Err(LoadError { text });
            }
        };
    }
    if let Some(audit) = environment("CREDGATE_AUDIT") {
        compiled.settings.log.audit = Some(PathBuf::from(audit));
    }
    Ok(())
}
