// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A host that is short of memory gets some back, in steps: one each time that the kernel tells,
//! with a rest behind it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use log::{info, warn};
use rustix::event::{PollFd, PollFlags, poll};
use zcache_store::Store;

use crate::sandbox;
use crate::sandbox::rule::Kind;

/// What is given needs some time to be of use.
const REST: Duration = Duration::from_millis(500);

/// Starts the thread that waits for the kernel to tell.
///
/// # Errors
///
/// When there is no thread.
pub fn start(file: File, store: Store) -> io::Result<()> {
    thread::Builder::new().name("pressure".into()).spawn(move || {
        sandbox::confine_thread(Kind::Store);
        let mut is_known = false;
        let end = watch(&file, || {
            let given = store.relieve_host();
            if given.given > 0 && !is_known {
                is_known = true;
                info!("The host is short of memory, and gets some back: the statistics say how much");
            }
            thread::sleep(REST);
        });
        warn!("The kernel does not tell any more when memory is short: {end}");
    })?;
    Ok(())
}

/// Does `step` each time that a file becomes ready by an exceptional condition; why it never will
/// again.
fn watch(file: impl AsFd, mut step: impl FnMut()) -> io::Error {
    loop {
        let mut files = [PollFd::new(&file, PollFlags::PRI)];
        match poll(&mut files, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return error.into(),
            Ok(_) if files[0].revents().contains(PollFlags::PRI) => step(),
            Ok(_) => return io::ErrorKind::BrokenPipe.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustix::net::{RecvFlags, SendFlags, recv, send};

    use super::*;

    #[test]
    fn each_time_that_the_file_is_ready_there_is_a_step_until_it_ends() {
        let (watched, other) = UnixStream::pair().expect("a pair");
        // Out-of-band data is an exceptional condition, which older kernels do not know here.
        if send(&other, b"!", SendFlags::OOB).is_err() {
            println!("Not shown: this kernel has no out-of-band data on Unix sockets");
            return;
        }
        let (mut steps, mut sender) = (0, Some(other));
        watch(&watched, || {
            steps += 1;
            recv(&watched, &mut [0; 1], RecvFlags::OOB).expect("the byte is there");
            if steps == 2 {
                sender = None;
            } else if let Some(sender) = &sender {
                send(sender, b"!", SendFlags::OOB).expect("another time");
            }
        });
        assert_eq!(steps, 2);
    }
}
