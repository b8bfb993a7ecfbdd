// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a process may, by being whose it is.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::probe;

/// Gives up all that the process does not need: capabilities, those it could get by executing
/// something, being looked into by others of the same user, and limits it could raise. To be called
/// by the first thread, while it is the only one.
///
/// # Errors
///
/// When the kernel does not let it.
pub fn drop_all() -> io::Result<()> {
    set_no_new_privs(true)?;
    // Executing something gives no capabilities any more, but as a second line none could come.
    // Removing them takes one, which most processes do not have to begin with.
    for bit in CapabilitySet::all().iter() {
        if capability_is_in_bounding_set(bit).unwrap_or(false) && remove_capability_from_bounding_set(bit).is_err() {
            break;
        }
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    // There are pages of guests in its memory.
    if !probe::is_watched() {
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.current, maximum: files.current })?;
    Ok(())
}
