//! The commands, one file each: what they print, and the status they exit with.

mod check;
mod demo;
mod env;
mod explain;
mod logging;
mod proxy;
mod run;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command};
use crate::config::LoadError;

/// Done.
const DONE: u8 = 0;
/// Refused or failed.
const FAILED: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;
/// The configuration is invalid: `EX_CONFIG` of sysexits(3).
const BAD_CONFIG: u8 = 78;
/// `run` failed before the program ran: the convention of env(1), timeout(1) and docker run.
const RUN_FAILED: u8 = 125;

/// Why a command failed, and the status for it.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    cause: String,
}

impl Failure {
    /// A failure with the words to print.
    pub(crate) fn new(cause: impl Into<String>) -> Self {
        Self { status: FAILED, cause: cause.into() }
    }

    /// The same for a configuration that is invalid, or whose secrets are missing.
    pub(crate) fn config(cause: impl Into<String>) -> Self {
        Self { status: BAD_CONFIG, cause: cause.into() }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::config(error.to_string())
    }
}

/// Parses the command line and runs the command.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &arguments),
    };
    let is_run = matches!(cli.command, Command::Run(_));
    match dispatch(cli.command) {
        Ok(status) => status.into(),
        Err(failure) => {
            complain(&failure.cause);
            ExitCode::from(if is_run { RUN_FAILED } else { failure.status })
        }
    }
}

fn dispatch(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Proxy(arguments) => proxy::run(&arguments),
        Command::Env(arguments) => env::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Demo => demo::run(),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "credgate", &mut io::stdout());
            Ok(DONE)
        }
        Command::Man => {
            let page = clap_mangen::Man::new(Cli::command()).render(&mut io::stdout());
            page.map(|()| DONE).map_err(|error| Failure::new(error.to_string()))
        }
        Command::Enter => run::enter(),
        Command::Init => run::init(),
    }
}

fn usage(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => DONE.into(),
        _ if arguments.get(1).is_some_and(|command| command == "run") => RUN_FAILED.into(),
        _ => USAGE.into(),
    }
}

/// Writes a failure to stderr: each line of it prefixed, except what is laid out already.
pub(crate) fn complain(cause: &str) {
    let mut stderr = io::stderr().lock();
    if cause.starts_with("error") || cause.contains("\u{1b}[") {
        let _ = writeln!(stderr, "{cause}");
        return;
    }
    for line in cause.lines() {
        let _ = writeln!(stderr, "credgate: {line}");
    }
}

/// Writes to stdout; a reader that left early is no failure.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
