// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sockets: made at a path that no other daemon owns, or inherited as a file descriptor.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, chmod, chownat, fchmod};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use thiserror::Error;

use crate::access::SocketAccess;

/// Connections that may wait to be accepted, as many as the standard library lets wait.
const BACKLOG: i32 = 128;

/// How long between two looks whether a socket is still in use.
const LOOKS: Duration = Duration::from_millis(5);

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
    /// The socket cannot be given the owner, group or mode it is to have.
    #[error("Cannot set the owner, group or mode of {path}: {error}")]
    Access {
        /// Path of the socket.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// A descriptor that the process did not inherit.
    #[error("File descriptor {0} is not open")]
    NotOpen(i32),
    /// A name of which the service manager has given no socket.
    #[error("No socket named {0:?} was given for --fd, or as a guest's fd (LISTEN_FDNAMES)")]
    NotGiven(String),
    /// A descriptor that is given by its number and by its name.
    #[error("File descriptor {0} is given twice")]
    GivenTwice(i32),
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
    listener: Rc<UnixListener>,
    path: PathBuf,
    lock_path: PathBuf,
    lock: File,
    /// It is somebody else's when this is dropped.
    stays: bool,
}

impl BoundSocket {
    /// Listens at a path, in place of a socket that a dead process left there. From its first
    /// moment on nobody can connect to it who may not.
    ///
    /// # Errors
    ///
    /// [`SocketError`], in particular when another process listens there.
    pub fn bind(path: &Path, access: SocketAccess) -> Result<Self, SocketError> {
        let (lock, lock_path) = lock_beside(path)?;
        match remove_stale(path).and_then(|()| make(path, access)) {
            Ok(listener) => Ok(Self { listener: Rc::new(listener), path: path.into(), lock_path, lock, stays: false }),
            Err(error) => {
                // Best effort: a lock file that stays behind does no harm.
                let _ = fs::remove_file(&lock_path);
                Err(error)
            }
        }
    }

    /// Like [`BoundSocket::bind`], but whoever has the socket may be about to end, and is waited
    /// for so long.
    ///
    /// # Errors
    ///
    /// [`SocketError`].
    pub fn bind_after(path: &Path, access: SocketAccess, patience: Duration) -> Result<Self, SocketError> {
        let start = Instant::now();
        loop {
            match Self::bind(path, access) {
                Err(SocketError::InUse(_)) if start.elapsed() < patience => thread::sleep(LOOKS),
                bound => return bound,
            }
        }
    }

    /// Goes on with the socket that a dead process had at a path, which is still there.
    ///
    /// # Errors
    ///
    /// When another process has it.
    pub fn take_over(path: &Path, listener: UnixListener) -> Result<Self, SocketError> {
        let (lock, lock_path) = lock_beside(path)?;
        Ok(Self { listener: Rc::new(listener), path: path.into(), lock_path, lock, stays: false })
    }

    /// Has the socket that another process has made at a path. It is the other's to remove until it
    /// is taken ([`BoundSocket::take`]).
    ///
    /// # Errors
    ///
    /// When these are not its files.
    pub fn received(path: &Path, files: Vec<File>) -> Result<Self, SocketError> {
        let unknown = || SocketError::Bind { path: path.into(), error: io::ErrorKind::InvalidData.into() };
        let [listener, lock] = <[File; 2]>::try_from(files).map_err(|_| unknown())?;
        let listener = Rc::new(UnixListener::from(OwnedFd::from(listener)));
        Ok(Self { listener, path: path.into(), lock_path: lock_path(path), lock, stays: true })
    }

    /// Its files, for [`BoundSocket::received`].
    #[must_use]
    pub fn files(&self) -> [BorrowedFd<'_>; 2] {
        [self.listener.as_fd(), self.lock.as_fd()]
    }

    /// Leaves the socket where it is, for somebody who has it open.
    pub fn leave(mut self) {
        self.stays = true;
    }

    /// It is this process's to remove from now on, and nobody else's.
    #[must_use]
    pub fn take(mut self) -> Self {
        self.stays = false;
        self
    }

    /// The socket, to accept connections with.
    #[must_use]
    pub fn listener(&self) -> Rc<UnixListener> {
        Rc::clone(&self.listener)
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        // Nothing can be done when one of them has been removed by somebody else.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Whether there is a socket at a path.
#[must_use]
pub fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
}

/// Where the lock of a socket is.
fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// The lock of a socket, and where it is.
fn lock_beside(path: &Path) -> Result<(File, PathBuf), SocketError> {
    let name = lock_path(path);
    match lock(&name) {
        Ok(lock) => Ok((lock, name)),
        Err(TryLockError::WouldBlock) => Err(SocketError::InUse(path.into())),
        Err(TryLockError::Error(error)) => Err(SocketError::Lock { path: name, error }),
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

/// Makes a listening socket. It is nobody's to connect to until it has its owner and group, and
/// refuses connections until it has its mode, too.
fn make(path: &Path, access: SocketAccess) -> Result<UnixListener, SocketError> {
    let failed = |error: rustix::io::Errno| SocketError::Bind { path: path.into(), error: error.into() };
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
    // The file that bind makes has the mode of the socket, less the umask.
    fchmod(&socket, Mode::empty()).map_err(failed)?;
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    bind(&socket, &address).map_err(failed)?;
    let open = || {
        if access.owner.is_some() || access.group.is_some() {
            let (owner, group) = (access.owner.map(|owner| owner.0), access.group.map(|group| group.0));
            chownat(CWD, path, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        chmod(path, access.permissions())
    };
    let made = open()
        .map_err(|error| SocketError::Access { path: path.into(), error: error.into() })
        .and_then(|()| listen(&socket, BACKLOG).map_err(failed));
    if let Err(error) = made {
        // Best effort: the socket is of no use to anybody.
        let _ = fs::remove_file(path);
        return Err(error);
    }
    let listener = UnixListener::from(socket);
    // Whoever is seen to wait may be gone before it is accepted.
    listener.set_nonblocking(true).map_err(|error| SocketError::Bind { path: path.into(), error })?;
    Ok(listener)
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
            let listener = UnixListener::from(fd);
            listener.set_nonblocking(true).map_err(|_| SocketError::WrongKind(number))?;
            Ok(Self::Listening(listener))
        } else {
            Ok(Self::Connected(fd.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_live_socket_is_refused_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guest.sock");

        let bound = BoundSocket::bind(&path, SocketAccess::default()).unwrap();
        let again = BoundSocket::bind(&path, SocketAccess::default());
        assert!(matches!(again, Err(SocketError::InUse(_))), "bound twice: {again:?}");
        assert!(UnixStream::connect(&path).is_ok(), "the first socket was harmed");
        drop(bound);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "files were left behind");

        // As a process has it that ends.
        let ending = UnixListener::bind(&path).unwrap();
        let end = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(ending);
        });
        let none = BoundSocket::bind_after(&path, SocketAccess::default(), Duration::ZERO);
        assert!(matches!(none, Err(SocketError::InUse(_))), "a live socket was taken: {none:?}");
        let patience = Duration::from_secs(60);
        drop(BoundSocket::bind_after(&path, SocketAccess::default(), patience).expect("its process has ended"));
        end.join().unwrap();

        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the test needs a stale socket");
        BoundSocket::bind(&path, SocketAccess::default()).expect("a stale socket is replaced");
    }

    #[test]
    fn a_socket_that_was_received_is_the_other_s_to_remove_until_it_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guest.sock");
        let made = BoundSocket::bind(&path, SocketAccess::default()).unwrap();
        let files = || made.files().iter().map(|file| file.try_clone_to_owned().unwrap().into()).collect();
        drop(BoundSocket::received(&path, files()).unwrap());
        assert!(UnixStream::connect(&path).is_ok(), "it was removed");
        let taken = BoundSocket::received(&path, files()).unwrap().take();
        made.leave();
        assert!(UnixStream::connect(&path).is_ok(), "it was removed");
        let again = BoundSocket::bind(&path, SocketAccess::default());
        assert!(matches!(again, Err(SocketError::InUse(_))), "the lock was not passed on: {again:?}");
        drop(taken);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "files were left behind");
        assert!(BoundSocket::received(&path, Vec::new()).is_err(), "no files");
    }

    #[test]
    fn a_live_socket_of_another_program_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guest.sock");
        let _other = UnixListener::bind(&path).unwrap();
        let bound = BoundSocket::bind(&path, SocketAccess::default());
        assert!(matches!(bound, Err(SocketError::InUse(_))), "bound: {bound:?}");
    }

    #[test]
    fn the_mode_is_the_one_asked_for_and_not_the_umask_s() {
        let directory = tempfile::tempdir().unwrap();
        for (mode, expected) in [(None, 0o600), (Some("0666"), 0o666), (Some("0620"), 0o620), (Some("0"), 0)] {
            let path = directory.path().join(format!("{expected:o}"));
            let access = SocketAccess { mode: mode.map(|mode| mode.parse().unwrap()), ..SocketAccess::default() };
            let bound = BoundSocket::bind(&path, access).unwrap();
            let mode = fs::metadata(&path).unwrap().mode();
            assert_eq!(mode & 0o7777, expected, "the mode is {mode:o}");
            drop(bound);
        }
    }

    #[test]
    fn a_socket_is_never_more_open_than_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guest.sock");
        let (done, is_seen) = (AtomicBool::new(false), AtomicBool::new(false));
        let seen = thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut seen = BTreeSet::new();
                while !done.load(Ordering::Relaxed) {
                    seen.extend(fs::metadata(&path).map(|status| status.mode() & 0o7777));
                    is_seen.store(seen.contains(&0o600), Ordering::Relaxed);
                }
                seen
            });
            let mode = Some("0600".parse().unwrap());
            // More where the watcher has had no turn yet.
            for number in 0..200_000 {
                if number >= 2000 && is_seen.load(Ordering::Relaxed) {
                    break;
                }
                drop(BoundSocket::bind(&path, SocketAccess { mode, ..SocketAccess::default() }).unwrap());
            }
            done.store(true, Ordering::Relaxed);
            watcher.join().unwrap()
        });
        assert!(seen.contains(&0o600), "the test has not seen the socket");
        assert!(seen.iter().all(|mode| [0, 0o600].contains(mode)), "modes that were seen: {seen:?}");
    }

    #[test]
    fn other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        let bound = BoundSocket::bind(&path, SocketAccess::default());
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
