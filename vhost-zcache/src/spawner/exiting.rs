// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a process is done for, although it is still there.
//!
//! The kernel takes long to end a process that has gigabytes mapped, and says so only then. But
//! what the next worker has to wait for is that the old one does nothing any more, and that is so
//! as soon as all its threads are on their way out: a thread that is marked so never comes back
//! from the kernel, and makes no other thread.

use std::fs;
use std::io;

/// The mark of a thread that is on its way out, in its flags (`PF_EXITING`).
const EXITING: u64 = 4;

/// Fields of a `stat` file behind the name, which is in parentheses and may hold anything.
const FLAGS: usize = 6;
const THREADS: usize = 17;

/// Whether no thread of a process will run an instruction of its program again. `false` if that
/// cannot be told. The process must be a child that was not waited for.
#[must_use]
pub fn is_exiting(process: u32) -> bool {
    exiting_threads(process).unwrap_or(false)
}

fn exiting_threads(process: u32) -> io::Result<bool> {
    let folder = format!("/proc/{process}/task");
    let threads: Vec<String> = fs::read_dir(folder)?
        .map(|entry| Ok(format!("{}/stat", entry?.path().display())))
        .collect::<io::Result<_>>()?;
    let exiting = || -> io::Result<bool> {
        for thread in &threads {
            if field(&fs::read_to_string(thread)?, FLAGS).is_none_or(|flags| flags & EXITING == 0) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    // A folder of which entries go away while it is read may be read in part. But if there are as
    // many threads as were found, and all of these are still there afterwards, there are no others.
    if !exiting()? {
        return Ok(false);
    }
    let count = field(&fs::read_to_string(format!("/proc/{process}/stat"))?, THREADS);
    Ok(count == Some(threads.len() as u64) && exiting()?)
}

fn field(stat: &str, number: usize) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::thread;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a) 1 (b) R 1 2 3 4 5 4194308 0 0 0 0 0 0 0 0 20 0 3 0 100";
        assert_eq!(field(stat, FLAGS), Some(0x40_0004));
        assert_eq!(field(stat, THREADS), Some(3));
        assert_eq!(field("7 (a", FLAGS), None);
    }

    #[test]
    fn a_process_is_exiting_once_it_was_killed() {
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        assert!(!is_exiting(child.id()), "it has just begun");
        child.kill().unwrap();
        while !is_exiting(child.id()) {
            thread::yield_now();
        }
        let process = child.id();
        child.wait().unwrap();
        assert!(!is_exiting(process), "nobody knows");
        assert!(!is_exiting(std::process::id()));
    }
}
