//! Capabilities: carried into process 1 of the sandbox, and given up there for good.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};
use thiserror::Error;

/// What process 1 needs to arrange its view: mounts, and to empty its bounding set.
const NEEDED: [CapabilitySet; 2] = [CapabilitySet::SYS_ADMIN, CapabilitySet::SETPCAP];

/// Why privileges are not as they must be.
#[derive(Debug, Error)]
#[error("privileges cannot be {what}: {error}")]
pub struct PrivilegeError {
    what: &'static str,
    error: io::Error,
}

fn done(what: &'static str, outcome: rustix::io::Result<()>) -> Result<(), PrivilegeError> {
    outcome.map_err(|error| PrivilegeError { what, error: error.into() })
}

/// Lets the capabilities that process 1 needs survive its execve(2) although its uid is not 0 (capabilities(7),
/// ambient set). Called in the new user namespace, where this process has them all.
pub fn raise_ambient() -> Result<(), PrivilegeError> {
    let raise = || {
        let mut sets = capabilities(None)?;
        for capability in NEEDED {
            sets.inheritable |= capability;
        }
        set_capabilities(None, sets)?;
        NEEDED.into_iter().try_for_each(|capability| configure_capability_in_ambient_set(capability, true))
    };
    done("carried over", raise())
}

/// Gives up every capability, for this process and all it starts: bounding set, ambient set, then the rest; no new
/// ones through execve(2), and no core dumps.
pub fn drop_all() -> Result<(), PrivilegeError> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => {
                done("dropped from the bounding set", remove_capability_from_bounding_set(capability))?;
            }
            Ok(false) => {}
            // Past the last one that this kernel knows.
            Err(_) => break,
        }
    }
    done("cleared from the ambient set", clear_ambient_capability_set())?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    done("dropped", set_capabilities(None, sets))?;
    done("kept from growing", set_no_new_privs(true))?;
    let limit = Rlimit { current: Some(0), maximum: Some(0) };
    done("kept from dumping core", setrlimit(Resource::Core, limit))
}
