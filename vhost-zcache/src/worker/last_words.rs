// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a thread that panics has to say, told to the keeper, who outlives it.

use std::backtrace::Backtrace;
use std::io;
use std::{panic, process, thread};

use rustix::net::SendFlags;

use crate::link::message::FromWorker;
use crate::link::socket::Socket;

/// Most bytes of it.
const MOST_BYTES: usize = 24 << 10;

/// Threads whose panics are caught: they cost one queue, one transfer of a state, one round of the
/// background, or one step of giving memory back to the host.
const CAUGHT: [&str; 4] = ["queue", "state", "zcache-store", "pressure"];

/// Looks up a trace. The names in it come from files, which cannot be opened once the process is
/// confined; what was read of them once is kept.
pub fn prepare() {
    let _ = Backtrace::force_capture().to_string();
}

/// Has the keeper told of each panic. One that nobody catches ends the process at once: unwinding
/// would take the guests apart, and their pages with them, which are the next worker's.
///
/// # Errors
///
/// When the process has no file descriptors left.
pub fn install(link: &Socket) -> io::Result<()> {
    let link = link.try_clone()?;
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        say(info);
        let thread = thread::current();
        let name = thread.name().unwrap_or("without a name");
        let mut text = format!("Thread {name}: {info}\n{}", Backtrace::force_capture());
        let end = (0..=MOST_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        // A keeper that does not listen has other worries.
        let _ = link.send(&FromWorker::Panicked(text), &[], SendFlags::DONTWAIT);
        if !CAUGHT.contains(&name) {
            process::abort();
        }
    }));
    Ok(())
}
