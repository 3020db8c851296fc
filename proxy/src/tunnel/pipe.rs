//! Pipes for splice(2), pooled: making one and widening it costs more than a small transfer.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// 1 MiB: the most that an unprivileged user may ask for (pipe(7), `pipe-max-size`), and the fastest measured.
const WIDE: usize = 1024 * 1024;
/// 64 KiB: what the kernel gives by itself, and what remains beyond `pipe-user-pages-soft`.
const NARROW: usize = 64 * 1024;
/// Empty pipes kept: two for every tunnel that is busy at once on a small machine.
const KEPT: usize = 64;

static POOL: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());

/// An empty pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    pub read: OwnedFd,
    pub write: OwnedFd,
    /// Octets it holds.
    pub size: usize,
}

impl Pipe {
    /// Takes a pipe from the pool or makes one. `None`: the process is out of descriptors.
    pub(super) fn take() -> Option<Self> {
        POOL.lock().unwrap_or_else(PoisonError::into_inner).pop().or_else(Self::make)
    }

    /// Returns an empty pipe.
    pub(super) fn put_back(self) {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < KEPT {
            pool.push(self);
        }
    }

    fn make() -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        let size = fcntl_setpipe_size(&write, WIDE).unwrap_or(NARROW);
        Some(Self { read, write, size })
    }
}
