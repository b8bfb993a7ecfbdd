// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Answers each connection with one document of statistics.
//!
//! It has a thread of its own, which never waits for one reader: a document that a socket does
//! not take at once is sent as it is read, for a bounded time and to a bounded number of readers.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::{Level, debug};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::stats::Reporter;
use crate::access::Peers;
use crate::frontend::budget::MAX_STATS_READERS;
use crate::frontend::log_limit::LogLimit;

/// How long a reader may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait when a connection cannot be accepted, for want of descriptors mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves the statistics socket.
pub struct StatsServer {
    listener: UnixListener,
    reporter: Reporter,
    peers: Peers,
    /// In the order in which they came.
    readers: VecDeque<Reader>,
    log_limit: LogLimit,
}

/// A reader that has not taken all of its document.
struct Reader {
    stream: UnixStream,
    document: Arc<Vec<u8>>,
    /// Bytes of it that the socket has taken.
    sent: usize,
    until: Instant,
}

impl StatsServer {
    /// A server at a socket that does not block.
    #[must_use]
    pub fn new(listener: UnixListener, reporter: Reporter, peers: Peers) -> Self {
        Self { listener, reporter, peers, readers: VecDeque::new(), log_limit: LogLimit::default() }
    }

    /// Serves readers for ever.
    pub fn run(mut self) {
        loop {
            if let Err(error) = self.wait().and_then(|()| self.accept()) {
                self.log_limit.log(Level::Warn, format_args!("Statistics cannot be asked for: {error}"));
                thread::sleep(ACCEPT_RETRY);
            }
            self.readers.retain_mut(Reader::is_reading);
        }
    }

    /// Waits for a new reader, for one that reads, or until the first has had its time.
    fn wait(&self) -> io::Result<()> {
        let patience = self.readers.front().map(|reader| reader.until.saturating_duration_since(Instant::now()));
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut events = vec![PollFd::new(&self.listener, PollFlags::IN)];
        events.extend(self.readers.iter().map(|reader| PollFd::new(&reader.stream, PollFlags::OUT)));
        match poll(&mut events, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes new readers, if there are any. Those who have come at the same time get the same
    /// document.
    fn accept(&mut self) -> io::Result<()> {
        let mut streams = Vec::new();
        for _ in 0..MAX_STATS_READERS {
            match self.listener.accept() {
                Ok((stream, _)) => match self.peers.admit(&stream) {
                    Ok(()) => streams.push(stream),
                    Err(stranger) => {
                        let text = format_args!("A reader of statistics was turned away: {stranger}");
                        self.log_limit.log(Level::Warn, text);
                    }
                },
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => break,
                Err(error) if streams.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        if streams.is_empty() {
            return Ok(());
        }
        let mut document = serde_json::to_vec_pretty(&self.reporter.report())?;
        document.push(b'\n');
        let document = Arc::new(document);
        for stream in streams {
            let mut reader =
                Reader { stream, document: Arc::clone(&document), sent: 0, until: Instant::now() + PATIENCE };
            if reader.is_reading() {
                if self.readers.len() == MAX_STATS_READERS {
                    self.readers.pop_front();
                }
                self.readers.push_back(reader);
            }
        }
        Ok(())
    }
}

impl Reader {
    /// Sends what the socket takes now; whether there is more to send, and time left to do it.
    fn is_reading(&mut self) -> bool {
        let rest = &self.document[self.sent..];
        match send(&self.stream, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => self.sent += sent,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => {
                debug!("Statistics were not delivered: {error}");
                return false;
            }
        }
        self.sent < self.document.len() && Instant::now() < self.until
    }
}
