// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The operator's key.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, fstat};
use rustix::process::geteuid;
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a key.
pub const KEY_SIZE: usize = 32;

/// Bits of a mode by which others than the owner may do something.
const OF_OTHERS: u32 = 0o077;

/// The one that systemd's `LoadCredential=` sets beside a list for the service's user.
const OF_CREDENTIALS: u32 = 0o040;

/// Why a file has no key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is a device, a folder, ...
    #[error("it is no regular file")]
    Kind,
    /// It is somebody else's.
    #[error("it belongs to another user")]
    Owner,
    /// It is not secret.
    #[error("others may read or write it (mode {0:o}); give it mode 0400")]
    Mode(u32),
    /// It has no key.
    #[error("a key is 32 random bytes, or 64 hexadecimal digits")]
    Content,
}

/// A key, which is nowhere in memory any more when it was dropped.
pub struct Key(Zeroizing<[u8; KEY_SIZE]>);

impl Key {
    /// Reads a key.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let file = File::open(path)?;
        check(file.as_fd())?;
        // A byte more than the longest, which is of digits and the end of a line.
        let mut bytes = Zeroizing::new([0; 2 * KEY_SIZE + 2]);
        let mut length = 0;
        loop {
            match (&file).read(&mut bytes[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Self::of(&bytes[..length])
    }

    /// The key that bytes or digits are.
    ///
    /// # Errors
    ///
    /// [`KeyError::Content`].
    pub fn of(text: &[u8]) -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; KEY_SIZE]);
        if text.len() == KEY_SIZE {
            key.copy_from_slice(text);
            return Ok(Self(key));
        }
        let digits = text.strip_suffix(b"\n").unwrap_or(text);
        if digits.len() != 2 * KEY_SIZE {
            return Err(KeyError::Content);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = digit(pair[0]).zip(digit(pair[1])).ok_or(KeyError::Content)?;
            *byte = high << 4 | low;
        }
        Ok(Self(key))
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; KEY_SIZE] {
        &self.0
    }
}

/// Whether nobody else can know what is in the file.
fn check(file: impl AsFd) -> Result<(), KeyError> {
    let status = fstat(file).map_err(io::Error::from)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(KeyError::Kind);
    }
    let user = geteuid().as_raw();
    if status.st_uid != user && status.st_uid != 0 {
        return Err(KeyError::Owner);
    }
    let refused = if status.st_uid == user { OF_OTHERS } else { OF_OTHERS & !OF_CREDENTIALS };
    match status.st_mode & refused {
        0 => Ok(()),
        _ => Err(KeyError::Mode(status.st_mode & 0o7777)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_bytes_or_digits() {
        let bytes: [u8; KEY_SIZE] = std::array::from_fn(|at| u8::try_from(at * 7).unwrap());
        let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        for text in [&bytes[..], digits.as_bytes(), format!("{}\n", digits.to_lowercase()).as_bytes()] {
            assert_eq!(Key::of(text).unwrap().bytes(), &bytes);
        }
        for text in [&b""[..], &bytes[1..], &digits.as_bytes()[1..], &[b'x'; 64], &[0; 66]] {
            assert!(matches!(Key::of(text), Err(KeyError::Content)), "{text:?}");
        }
    }

    #[test]
    fn a_key_is_nobody_elses() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [7; KEY_SIZE]).unwrap();
        let with_mode = |mode| {
            fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            Key::read(file.path())
        };
        assert_eq!(with_mode(0o400).unwrap().bytes(), &[7; KEY_SIZE]);
        for mode in [0o440, 0o404, 0o620, 0o601] {
            assert!(matches!(with_mode(mode), Err(KeyError::Mode(found)) if found == mode), "{mode:o}");
        }
        assert!(matches!(Key::read(Path::new("/dev/zero")), Err(KeyError::Kind)));
        assert!(matches!(Key::read(Path::new("/nowhere")), Err(KeyError::Io(_))));
    }
}
