//! Waiting for a child as a good parent: signals passed on, zombies reaped, its status handed up.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use rustix::process::{
    Pid, Signal, WaitOptions, getppid, kill_process, set_parent_process_death_signal, wait,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};
use thiserror::Error;

/// Signals that are passed on to the program.
const FORWARDED: [i32; 7] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH];
/// Added to a signal's number in an exit status, as shells do.
const SIGNAL_BASE: i32 = 128;

/// Signals that have come and are to be looked at. To be registered before the child is spawned.
pub struct Signals(SignalsInfo<WithOrigin>);

/// Why a program was not started.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// There is none.
    #[error("command not found")]
    NotFound,
    /// It cannot be executed.
    #[error("cannot be executed: {0}")]
    NotExecutable(#[source] io::Error),
    /// Something else failed.
    #[error("cannot be started: {0}")]
    Other(#[source] io::Error),
}

impl Signals {
    /// Registers handlers for SIGCHLD and for everything that is passed on, except what the caller ignores:
    /// `nohup credgate run …` keeps its meaning. exec(2) resets the handlers, so that the program sees none.
    pub fn register() -> io::Result<Self> {
        let ignored = ignored_signals();
        let handled = FORWARDED.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
        Ok(Self(SignalsInfo::new(handled.chain([SIGCHLD]))?))
    }
}

/// The mask of ignored signals (proc(5), SigIgn).
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Dies with the parent, whatever kills it. Returns whether the parent is still `expected`: it may have died before
/// this call, and then nothing would ever end this process.
pub fn die_with_parent(expected: u32) -> io::Result<bool> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    Ok(i64::from(parent) == i64::from(expected))
}

/// Passes signals on to a child until it ends; returns the status to exit with. `on_hangup` gets SIGHUP instead of
/// the child, where it is given.
pub fn relay(child: &mut Child, signals: &mut Signals, on_hangup: Option<&dyn Fn()>) -> io::Result<u8> {
    let pid = pid_of(child);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(exit_code(status));
        }
        for origin in signals.0.wait() {
            match (origin.signal, on_hangup) {
                (SIGCHLD, _) => {}
                (SIGHUP, Some(on_hangup)) => on_hangup(),
                _ => forward(&origin, pid),
            }
        }
    }
}

/// Starts a program from process 1 and waits for it; reaps whatever else has lost its parent. When this returns, the
/// caller exits, and the kernel ends the rest of the PID namespace (pid_namespaces(7)).
pub fn init(command: &mut Command, signals: &mut Signals) -> Result<u8, SpawnError> {
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => SpawnError::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ExecutableFileBusy => {
            SpawnError::NotExecutable(error)
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            SpawnError::NotExecutable(error)
        }
        _ => SpawnError::Other(error),
    })?;
    let program = pid_of(&child);
    loop {
        while let Some((pid, status)) = wait(WaitOptions::NOHANG).map_err(|e| SpawnError::Other(e.into()))? {
            if Some(pid) == program {
                return Ok(exit_code(ExitStatus::from_raw(status.as_raw())));
            }
        }
        for origin in signals.0.wait() {
            if origin.signal != SIGCHLD {
                forward(&origin, program);
            }
        }
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// A terminal's Ctrl-C comes from the kernel and reaches the whole foreground process group, the program included:
/// passing it on would deliver it twice.
fn forward(origin: &Origin, to: Option<Pid>) {
    if matches!(origin.cause, Cause::Kernel) {
        return;
    }
    if let (Some(pid), Some(signal)) = (to, Signal::from_named_raw(origin.signal)) {
        // Gone already: SIGCHLD follows.
        let _ = kill_process(pid, signal);
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNAL_BASE + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_a_shell() {
        for (script, expected) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143)] {
            let mut signals = Signals::register().unwrap();
            let mut child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            assert_eq!(relay(&mut child, &mut signals, None).unwrap(), expected, "{script}");
        }
    }
}
