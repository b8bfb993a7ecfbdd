// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The serial console of a guest, as somebody sits in front of it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a guest prints on its console, and what is typed there.
#[derive(Debug)]
pub struct SerialConsole {
    keyboard: UnixStream,
    screen: Arc<Screen>,
}

#[derive(Debug, Default)]
struct Screen {
    text: Mutex<Text>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    /// What nobody has waited for yet.
    unread: String,
    over: bool,
}

impl SerialConsole {
    /// Takes over the connection. It is read all the time, or the guest would stop.
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        let screen = Arc::<Screen>::default();
        let (mut reader, shared) = (stream.try_clone()?, Arc::clone(&screen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut bytes) {
                shared.lock().unread.push_str(&String::from_utf8_lossy(&bytes[..len]));
                shared.changed.notify_all();
            }
            shared.lock().over = true;
            shared.changed.notify_all();
        });
        Ok(Self { keyboard: stream, screen })
    }

    /// Waits until the guest prints this, after what was waited for before.
    pub fn await_text(&self, text: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut seen = self.screen.lock();
        loop {
            if let Some(at) = seen.unread.find(text) {
                seen.unread.drain(..at + text.len());
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if seen.over || left.is_zero() {
                bail!("The console does not say '{text}' within {limit:?}");
            }
            let woken = self.screen.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner);
            seen = woken.0;
        }
    }

    /// Types a line.
    pub fn type_line(&self, line: &str) -> Result<()> {
        (&self.keyboard).write_all(format!("{line}\r").as_bytes()).context("Cannot type on the console")
    }
}

impl Screen {
    fn lock(&self) -> MutexGuard<'_, Text> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_one_after_the_other() {
        let (mut guest, host) = UnixStream::pair().expect("a socket pair");
        let console = SerialConsole::new(host).expect("a console");
        guest.write_all(b"Passphrase: \nPassphrase: ").expect("printed");
        let limit = Duration::from_secs(10);
        console.await_text("Passphrase", limit).expect("the first");
        console.await_text("Passphrase", limit).expect("the second");
        drop(guest);
        console.await_text("Passphrase", limit).expect_err("there was no third");
    }
}
