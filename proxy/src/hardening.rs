//! Keeps this process's memory to itself: no core dumps, no ptrace, an environment that others cannot read.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// prctl(2) `PR_SET_DUMPABLE` and setrlimit(2) `RLIMIT_CORE`.
///
/// A process that is not dumpable leaves no core, cannot be traced by others of the same user, and its
/// `/proc/PID/environ` (where a token may stand) belongs to root.
pub fn protect_memory() -> rustix::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}
