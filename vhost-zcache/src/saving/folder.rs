// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The folder that saved states are in: one file for each guest, which is there as a whole or not
//! at all, whenever the host is cut off.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

/// How the names of files end, and those of files that are not finished.
const END: &str = ".saved";
const PART: &str = ".part";

/// A folder.
pub struct Folder {
    path: PathBuf,
    /// Has what was done to names in it written to the disk.
    file: File,
}

impl Folder {
    /// A folder that nobody else may write to: who can put an older file there has a guest read
    /// older pages.
    ///
    /// # Errors
    ///
    /// When there is none, or others may.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let status = file.metadata()?;
        if !status.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if status.uid() != geteuid().as_raw() && status.uid() != 0 || status.mode() & 0o022 != 0 {
            return Err(io::Error::other("others may write to it"));
        }
        Ok(Self { path: path.into(), file })
    }

    /// Where a guest's state is.
    #[must_use]
    pub fn path(&self, guest: &str) -> PathBuf {
        self.path.join(name(guest))
    }

    /// Removes files that were not finished; the guests of whom there is a state.
    ///
    /// # Errors
    ///
    /// When it cannot be looked at.
    pub fn sweep(&self) -> io::Result<BTreeSet<String>> {
        let mut guests = BTreeSet::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.strip_suffix(PART).and_then(guest_of).is_some() {
                fs::remove_file(entry.path())?;
            }
            guests.extend(guest_of(name));
        }
        Ok(guests)
    }

    /// A guest's state.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn read(&self, guest: &str) -> io::Result<File> {
        File::open(self.path(guest))
    }

    /// Removes a guest's state, for good; if there is one.
    ///
    /// # Errors
    ///
    /// When it may come back.
    pub fn remove(&self, guest: &str) -> io::Result<()> {
        match fs::remove_file(self.path(guest)) {
            // One that was removed before may come back as well, if that did not reach the disk.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.file.sync_all(),
            removed => removed.and_then(|()| self.file.sync_all()),
        }
    }

    /// Begins a guest's state.
    ///
    /// # Errors
    ///
    /// When there can be no such file.
    pub fn create(&self, guest: &str) -> io::Result<Unfinished<'_>> {
        let path = self.path.join(format!("{}{PART}", name(guest)));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Unfinished { folder: self, guest: guest.into(), path, file, is_finished: false })
    }
}

/// A file that has another name until it is finished. Dropped before, it is removed.
pub struct Unfinished<'a> {
    folder: &'a Folder,
    guest: String,
    path: PathBuf,
    file: File,
    is_finished: bool,
}

impl Unfinished<'_> {
    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// All of it is written: it is the guest's state from now on, in place of another one.
    ///
    /// # Errors
    ///
    /// When it is not on the disk.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, self.folder.path(&self.guest))?;
        self.is_finished = true;
        self.folder.file.sync_all()
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            // One that stays has a name that says what it is, and goes at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The name of a guest's file: what is not plain in the guest's name is in hexadecimal digits.
fn name(guest: &str) -> String {
    let mut name = String::new();
    for byte in guest.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            name.push(char::from(byte));
        } else {
            // A string takes it.
            let _ = write!(name, "%{byte:02x}");
        }
    }
    name + END
}

/// The guest whose file has this name, if it is one.
fn guest_of(file: &str) -> Option<String> {
    let mut rest = file.strip_suffix(END)?;
    let mut guest = Vec::new();
    while let Some(byte) = rest.bytes().next() {
        let (byte, length) = match byte {
            b'%' => (u8::from_str_radix(rest.get(1..3)?, 16).ok()?, 3),
            plain => (plain, 1),
        };
        guest.push(byte);
        rest = rest.get(length..)?;
    }
    // Of several names for one guest all but this one are somebody else's.
    String::from_utf8(guest).ok().filter(|guest| !guest.is_empty() && name(guest) == file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt;

    fn folder() -> (tempfile::TempDir, Folder) {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        (directory, folder)
    }

    #[test]
    fn names_are_those_of_guests_and_no_paths() {
        for guest in ["web1", "/run/zcache/a.sock", "fd:7", "..", "%2f", "ü"] {
            let name = name(guest);
            assert!(!name.contains('/') && !name.starts_with('.'), "{name}");
            assert_eq!(guest_of(&name).as_deref(), Some(guest));
        }
        for file in ["web1", ".saved", "a/b.saved", "%61.saved", "%2.saved", "%2F.saved", "a%.saved", "a.part"] {
            assert_eq!(guest_of(file), None, "{file}");
        }
    }

    #[test]
    fn a_file_is_there_when_it_is_finished() {
        let (_directory, folder) = folder();
        let half = folder.create("a").unwrap();
        half.file().write_all(b"half").unwrap();
        assert!(folder.read("a").is_err());
        drop(half);
        assert_eq!(fs::read_dir(&folder.path).unwrap().count(), 0, "something is left of it");
        for text in ["one", "another"] {
            let whole = folder.create("a").unwrap();
            whole.file().write_all(text.as_bytes()).unwrap();
            whole.finish().unwrap();
            assert_eq!(fs::read_to_string(folder.path("a")).unwrap(), text);
        }
        assert_eq!(folder.path("a").metadata().unwrap().mode() & 0o777, 0o600);
        folder.remove("a").unwrap();
        folder.remove("a").unwrap();
        assert!(folder.sweep().unwrap().is_empty());
    }

    #[test]
    fn what_was_left_in_the_middle_goes() {
        let (directory, folder) = folder();
        for name in ["a.saved", "a.saved.part", "%2fb.saved", "other", "other.part"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(folder.sweep().unwrap(), BTreeSet::from(["a".to_owned(), "/b".to_owned()]));
        assert!(!directory.path().join("a.saved.part").exists());
        assert!(directory.path().join("other.part").exists(), "a file that is none of ours");
    }

    #[test]
    fn nobody_else_may_write_there() {
        let (directory, _folder) = folder();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o770)).unwrap();
        assert!(Folder::open(directory.path()).is_err());
        assert!(Folder::open(Path::new("/dev/null")).is_err());
        assert!(Folder::open(Path::new("/nowhere")).is_err());
    }
}
