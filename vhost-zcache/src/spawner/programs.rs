// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The programs that workers are of. Each is an open file, and so the same whatever becomes of its
//! name.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

use super::Program;

/// The programs there are.
pub struct Programs {
    own: OwnedFd,
    /// Where newer ones are, as the command line has it.
    path: PathBuf,
    newest: Option<OwnedFd>,
    kept: Option<OwnedFd>,
}

impl Programs {
    /// The process's own program, which is the one that is kept, and a path of newer ones.
    ///
    /// # Errors
    ///
    /// When `/proc` does not say what the own one is.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        Ok(Self { own: open_program(Path::new("/proc/self/exe"))?, path, newest: None, kept: None })
    }

    /// The daemon's own.
    #[must_use]
    pub fn own(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }

    /// The one that is kept, or the one that has the path now.
    ///
    /// # Errors
    ///
    /// When there is none at the path.
    pub fn get(&mut self, program: Program) -> io::Result<BorrowedFd<'_>> {
        let file: &OwnedFd = match program {
            Program::Kept => self.kept.as_ref().unwrap_or(&self.own),
            Program::Newest => self.newest.insert(open_program(&self.path)?),
        };
        Ok(file.as_fd())
    }

    /// Keeps the newest one that was opened.
    pub fn keep(&mut self) {
        if let Some(newest) = self.newest.take() {
            self.kept = Some(newest);
        }
    }
}

/// Opens a program to be executed, which takes no right to read it.
fn open_program(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use rustix::fs::fstat;

    fn inode(file: BorrowedFd<'_>) -> u64 {
        fstat(file).unwrap().st_ino
    }

    #[test]
    fn a_program_is_kept_whatever_becomes_of_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        fs::write(&path, "one").unwrap();
        let mut programs = Programs::new(path.clone()).unwrap();
        let own = inode(programs.own());
        assert_eq!(inode(programs.get(Program::Kept).unwrap()), own);
        programs.keep();
        assert_eq!(inode(programs.get(Program::Kept).unwrap()), own, "there was no other");

        let one = inode(programs.get(Program::Newest).unwrap());
        assert_eq!(inode(programs.get(Program::Kept).unwrap()), own, "it was not asked to be kept");
        programs.keep();
        fs::remove_file(&path).unwrap();
        assert_eq!(inode(programs.get(Program::Kept).unwrap()), one);
        assert!(programs.get(Program::Newest).is_err());
        programs.keep();
        assert_eq!(inode(programs.get(Program::Kept).unwrap()), one, "nothing newer was found");
    }
}
