// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What tests have a process or thread do as soon as it is confined.
//!
//! In a build for tests the environment variable [`VARIABLE`] names who does what: `queue:denied`.
//! In a release it is nothing.

/// Says who does what.
pub const VARIABLE: &str = "ZCACHE_PROBE";

/// Lets tests of another user than root count the files of a process, which stays dumpable.
pub const WATCHED: &str = "ZCACHE_WATCHED";

/// Whether tests want to look into the process.
pub(super) fn is_watched() -> bool {
    cfg!(debug_assertions) && std::env::var_os(WATCHED).is_some()
}

/// A thread of the kind of this name is confined.
pub(super) fn confined(name: &str) {
    #[cfg(debug_assertions)]
    deeds::confined(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod deeds {
    use std::{env, fs, panic, process};

    use log::info;
    use rustix::net::{AddressFamily, SocketType, socket};
    use rustix::process::{getppid, test_kill_process};

    use super::VARIABLE;

    /// Takes all of the stack there is.
    #[allow(unconditional_recursion, reason = "that is what it is for")]
    #[inline(never)]
    fn deeper(depth: u64) -> u64 {
        std::hint::black_box([depth; 64])[0] + deeper(depth + 1)
    }

    pub(super) fn confined(name: &str) {
        let Ok(text) = env::var(VARIABLE) else { return };
        let Some(("", deed)) = text.strip_prefix(name).and_then(|rest| rest.split_once(':')) else { return };
        let outcome = match deed {
            // No thread has a rule for it.
            "denied" => format!("{:?}", socket(AddressFamily::INET, SocketType::STREAM, None).map(drop)),
            "open" => format!("{:?}", fs::read("/etc/passwd").map(drop)),
            "write" => format!("{:?}", fs::write(env::temp_dir().join("zcache-probe"), "")),
            // With what it says, and the trace that it tries to make.
            "panic" => format!("{:?}", panic::catch_unwind(|| panic!("a panic to order")).is_err()),
            "abort" => process::abort(),
            "overflow" => format!("{}", deeper(0)),
            // There is a parent.
            "signal" => format!("{:?}", getppid().map(test_kill_process)),
            "execute" => format!("{:?}", process::Command::new("/bin/true").status().map(drop)),
            _ => return,
        };
        info!("Probe of {name}: {deed}: {outcome}");
    }
}
