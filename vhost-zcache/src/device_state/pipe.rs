// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a VMM passes to read a state from, or to write it to.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, recv, send, sockopt::socket_domain};
use thiserror::Error;

use super::stop::StopSignal;
use crate::link::message::Direction;

/// Time between two looks whether anything has moved.
const BEAT: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// Beats without a byte after the VMM has asked how it went. Before, it may take its time. They are
/// counted, and not the time, because the VMM may stand still together with the daemon.
const PATIENCE: u32 = 20;

/// Bytes for which a pipe that is ready has room.
const PIPE_BUF: usize = 4096;

/// Why nothing moves any more.
#[derive(Debug, Error)]
pub enum PipeError {
    /// The VMM has gone, or wants something else.
    #[error("it was given up")]
    Stopped,
    /// The VMM waits for the end, and does not come to it itself.
    #[error("nothing has moved for ten seconds, and the VMM waits for the end")]
    Stalled,
    /// The VMM has closed it, or it never was what it should be.
    #[error("the pipe failed: {0}")]
    Broken(io::Error),
}

impl From<Errno> for PipeError {
    fn from(error: Errno) -> Self {
        Self::Broken(error.into())
    }
}

/// A pipe or a Unix socket. Whether it blocks is left as it is; the VMM may have the same open
/// file, and drain or fill it at any moment, so that a call waits after all. Whoever wants the
/// thread back raises the signal, and interrupts the call.
pub struct Pipe {
    file: File,
    is_socket: bool,
    stop: Arc<StopSignal>,
    /// The VMM waits for the end.
    awaited: Arc<AtomicBool>,
}

impl Pipe {
    /// Takes a pipe or a Unix socket.
    ///
    /// # Errors
    ///
    /// When it is something else, on which a call may not be interrupted, or a pipe's other end.
    pub fn new(file: File, direction: Direction, stop: Arc<StopSignal>, awaited: Arc<AtomicBool>) -> io::Result<Self> {
        let is_socket = match FileType::from_raw_mode(fstat(&file)?.st_mode) {
            FileType::Fifo => false,
            FileType::Socket if socket_domain(&file)? == AddressFamily::UNIX => true,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a pipe nor a Unix socket")),
        };
        // Of no bytes it does not wait, but looks whether it may.
        let usable = match direction {
            _ if is_socket => Ok(0),
            Direction::Save => rustix::io::write(&file, &[]),
            Direction::Load => rustix::io::read(&file, &mut [0; 0]),
        };
        usable?;
        Ok(Self { file, is_socket, stop, awaited })
    }

    /// Writes all of it.
    ///
    /// # Errors
    ///
    /// [`PipeError`].
    pub fn write_all(&self, mut bytes: &[u8]) -> Result<(), PipeError> {
        while !bytes.is_empty() {
            let written = if self.is_socket {
                send(&self.file, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            } else {
                self.wait(PollFlags::OUT)?;
                rustix::io::write(&self.file, &bytes[..bytes.len().min(PIPE_BUF)])
            };
            match written {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) if !self.stop.is_raised() => {}
                Err(Errno::INTR) => return Err(PipeError::Stopped),
                Err(error) => return Err(error.into()),
            }
        }
        if self.stop.is_raised() { Err(PipeError::Stopped) } else { Ok(()) }
    }

    /// Reads what there is; nothing at the end.
    ///
    /// # Errors
    ///
    /// [`PipeError`].
    pub fn read(&self, bytes: &mut [u8]) -> Result<usize, PipeError> {
        loop {
            self.wait(PollFlags::IN)?;
            let read = if self.is_socket {
                recv(&self.file, &mut *bytes, RecvFlags::DONTWAIT).map(|(read, _)| read)
            } else {
                rustix::io::read(&self.file, &mut *bytes)
            };
            match read {
                Ok(read) => return Ok(read),
                Err(Errno::AGAIN) => {}
                Err(Errno::INTR) if !self.stop.is_raised() => {}
                Err(Errno::INTR) => return Err(PipeError::Stopped),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sleeps until the VMM has done its part.
    fn wait(&self, events: PollFlags) -> Result<(), PipeError> {
        let mut beats = 0;
        loop {
            let mut ready = [PollFd::new(&*self.stop, PollFlags::IN), PollFd::new(&self.file, events)];
            let polled = poll(&mut ready, Some(&BEAT));
            if self.stop.is_raised() {
                return Err(PipeError::Stopped);
            }
            match polled {
                Ok(0) if self.awaited.load(Ordering::Relaxed) => {
                    beats += 1;
                    if beats > PATIENCE {
                        return Err(PipeError::Stalled);
                    }
                }
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
