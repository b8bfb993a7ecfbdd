// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sockets: made at a path that no other daemon owns, or inherited as a file descriptor.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};
use thiserror::Error;

/// Why a socket cannot be used.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another process has the lock, or answers at the path.
    #[error("Socket {0} is in use by another process")]
    InUse(PathBuf),
    /// Something else is at the path.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The lock file cannot be opened or locked.
    #[error("Cannot lock {path}: {error}")]
    Lock {
        /// Path of the lock file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The socket cannot be made.
    #[error("Cannot listen on {path}: {error}")]
    Bind {
        /// Path of the socket.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// A descriptor that the process did not inherit.
    #[error("File descriptor {0} is not open")]
    NotOpen(i32),
    /// An inherited descriptor is of the wrong kind.
    #[error("File descriptor {0} is not a Unix stream socket")]
    WrongKind(i32),
}

/// A listening socket at a path. Dropping it removes the socket and its lock.
///
/// The lock, a file beside the socket, is held by the kernel for the process: when the process
/// dies the next one can tell a stale socket from a live one.
#[derive(Debug)]
pub struct BoundSocket {
    listener: UnixListener,
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl BoundSocket {
    /// Listens at a path, in place of a socket that a dead process left there.
    ///
    /// # Errors
    ///
    /// [`SocketError`], in particular when another process listens there.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let mut lock_name = path.as_os_str().to_owned();
        lock_name.push(".lock");
        let lock_path = PathBuf::from(lock_name);
        let lock = lock(&lock_path).map_err(|error| match error {
            TryLockError::WouldBlock => SocketError::InUse(path.into()),
            TryLockError::Error(error) => SocketError::Lock { path: lock_path.clone(), error },
        })?;
        let bound = remove_stale(path)
            .and_then(|()| UnixListener::bind(path).map_err(|error| SocketError::Bind { path: path.into(), error }));
        match bound {
            Ok(listener) => Ok(Self { listener, path: path.into(), lock_path, _lock: lock }),
            Err(error) => {
                // Best effort: a lock file that stays behind does no harm.
                let _ = fs::remove_file(&lock_path);
                Err(error)
            }
        }
    }

    /// The socket.
    #[must_use]
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Another handle on the socket, to meet VMMs at.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub fn endpoint(&self) -> io::Result<Endpoint> {
        self.listener.try_clone().map(Endpoint::Listening)
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        // Nothing can be done when one of them has been removed by somebody else.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Opens and locks a lock file, and makes sure that it is the one at the path and not one that
/// its last owner has just removed.
fn lock(path: &Path) -> Result<File, TryLockError> {
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(TryLockError::Error)?;
        file.try_lock()?;
        let locked = file.metadata().map_err(TryLockError::Error)?;
        match fs::metadata(path) {
            Ok(there) if there.ino() == locked.ino() && there.dev() == locked.dev() => {
                return Ok(file);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(TryLockError::Error(error));
            }
            _ => {}
        }
    }
}

/// Removes the socket of a dead process. With the lock held no other daemon of this kind is
/// alive, but a program of another kind may be.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(there) if !there.file_type().is_socket() => Err(SocketError::NotASocket(path.into())),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|error| SocketError::Bind { path: path.into(), error })
            }
            _ => Err(SocketError::InUse(path.into())),
        },
    }
}

/// Where a guest's VMM is met.
#[derive(Debug)]
pub enum Endpoint {
    /// VMMs connect to it, one after the other.
    Listening(UnixListener),
    /// A VMM is at the other end.
    Connected(UnixStream),
}

impl Endpoint {
    /// Takes a descriptor that the process inherited, by its number.
    ///
    /// # Safety
    ///
    /// To be called once for a number, and before the process opens files: nothing else may own
    /// the number.
    ///
    /// # Errors
    ///
    /// [`SocketError::NotOpen`], or [`SocketError::WrongKind`] unless it is a Unix stream socket.
    pub unsafe fn inherit(number: i32) -> Result<Self, SocketError> {
        if number <= 2 {
            return Err(SocketError::WrongKind(number));
        }
        // SAFETY: fcntl only looks the number up, and fails when it is not open; the borrow ends
        // with the statement.
        let inherited = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_setfd(inherited, FdFlags::CLOEXEC).map_err(|_| SocketError::NotOpen(number))?;
        // SAFETY: the descriptor is open, as fcntl has just told. The parent process left it to
        // this one by its number, and the caller promises that nothing else here owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        Self::of_kind(fd, number)
    }

    /// Looks what kind of socket a descriptor is. `number` is for the error message.
    fn of_kind(fd: OwnedFd, number: i32) -> Result<Self, SocketError> {
        let wrong = |_| SocketError::WrongKind(number);
        let socket = fd.as_fd();
        if socket_domain(socket).map_err(wrong)? != AddressFamily::UNIX
            || socket_type(socket).map_err(wrong)? != SocketType::STREAM
        {
            return Err(SocketError::WrongKind(number));
        }
        if socket_acceptconn(socket).map_err(wrong)? {
            Ok(Self::Listening(fd.into()))
        } else {
            Ok(Self::Connected(fd.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_socket_is_refused_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guest.sock");

        let bound = BoundSocket::bind(&path).unwrap();
        let again = BoundSocket::bind(&path);
        assert!(matches!(again, Err(SocketError::InUse(_))), "bound twice: {again:?}");
        assert!(UnixStream::connect(&path).is_ok(), "the first socket was harmed");
        drop(bound);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "files were left behind");

        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the test needs a stale socket");
        BoundSocket::bind(&path).expect("a stale socket is replaced");
    }

    #[test]
    fn a_live_socket_of_another_program_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guest.sock");
        let _other = UnixListener::bind(&path).unwrap();
        let bound = BoundSocket::bind(&path);
        assert!(matches!(bound, Err(SocketError::InUse(_))), "bound: {bound:?}");
    }

    #[test]
    fn other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        let bound = BoundSocket::bind(&path);
        assert!(matches!(bound, Err(SocketError::NotASocket(_))), "bound: {bound:?}");
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn inherited_sockets_are_told_apart() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(matches!(Endpoint::of_kind(one.into(), 3), Ok(Endpoint::Connected(_))));
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        assert!(matches!(Endpoint::of_kind(listener.into(), 3), Ok(Endpoint::Listening(_))));
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(Endpoint::of_kind(file.into(), 3), Err(SocketError::WrongKind(3))));
    }
}
