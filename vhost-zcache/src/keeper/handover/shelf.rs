// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files that VMMs have passed, each with the number by which the manager has it.
//!
//! A VMM may pass a file again and again, and the manager keeps one of each: it would not take the
//! second, and lose the first when that is given up. So the same file has the same number, for as
//! long as any guest has it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::{io, process};

use libc::c_ulong;
use rustix::fs::fstat;

use super::manager::Manager;
use super::passed;

/// To compare open files (`KCMP_FILE`).
const OPEN_FILES: c_ulong = 0;

struct Shelved {
    number: u64,
    /// Device and number there, of which several open files may be.
    inode: Option<(u64, u64)>,
    file: Rc<File>,
}

/// The files.
#[derive(Default)]
pub struct Shelf {
    files: Vec<Shelved>,
    /// By guest.
    used: Vec<Vec<u64>>,
    next: u64,
}

impl Shelf {
    /// The files that the manager has already.
    #[must_use]
    pub fn new(guests: usize, files: impl IntoIterator<Item = (u64, Rc<File>)>) -> Self {
        let shelve = |(number, file): (u64, Rc<File>)| Shelved { number, inode: inode(&file), file };
        let files: Vec<Shelved> = files.into_iter().map(shelve).collect();
        let next = files.iter().map(|file| file.number + 1).max().unwrap_or(0);
        Self { files, used: vec![Vec::new(); guests], next }
    }

    /// A file's number. The manager is given one that it has not.
    pub fn number_of(&mut self, file: &Rc<File>, manager: &mut Manager) -> u64 {
        let inode = inode(file);
        let is_it = |known: &&Shelved| {
            Rc::ptr_eq(&known.file, file) || known.inode == inode && is_same_open_file(&known.file, file)
        };
        if let Some(known) = self.files.iter().find(is_it) {
            return known.number;
        }
        let number = self.next;
        self.next += 1;
        manager.keep(&passed(number), Rc::clone(file));
        self.files.push(Shelved { number, inode, file: Rc::clone(file) });
        number
    }

    /// A guest has these files now, and no others.
    pub fn set(&mut self, guest: usize, files: Vec<u64>, manager: &mut Manager) {
        if self.used[guest] != files {
            self.used[guest] = files;
            self.sweep(manager);
        }
    }

    /// Gives up all that no guest has.
    pub fn sweep(&mut self, manager: &mut Manager) {
        let used = &self.used;
        self.files.retain(|file| {
            let is_used = used.iter().any(|files| files.contains(&file.number));
            if !is_used {
                manager.forget(&passed(file.number));
            }
            is_used
        });
    }
}

fn inode(file: &File) -> Option<(u64, u64)> {
    fstat(file).ok().map(|status| (status.st_dev, status.st_ino))
}

/// Whether two descriptors are of one open file. Events have all the same inode.
fn is_same_open_file(one: &File, other: &File) -> bool {
    let this = process::id();
    // SAFETY: the kernel looks the numbers up, and reads and writes no memory.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, this, this, OPEN_FILES, one.as_raw_fd(), other.as_raw_fd()) };
    if order < 0 {
        // A kernel that cannot say.
        log::debug!("Open files cannot be compared: {}", io::Error::last_os_error());
    }
    order == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_however_often_it_is_passed() {
        let one = tempfile::tempfile().unwrap();
        let again = one.try_clone().unwrap();
        let other = File::open("/dev/null").unwrap();
        assert!(is_same_open_file(&one, &again));
        assert!(!is_same_open_file(&one, &other));
        assert!(!is_same_open_file(&other, &File::open("/dev/null").unwrap()), "the same inode, opened twice");
    }
}
