// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is too long for a message: a file of memory that comes along with one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes at most. The configuration of 4096 guests is less.
const MOST: usize = 16 << 20;

/// Bytes that are read at a time.
const PIECE: usize = 64 << 10;

/// Makes a parcel, for one who will unpack it.
///
/// # Errors
///
/// When the host does not give the memory.
pub fn pack(content: &impl Serialize) -> io::Result<File> {
    let file = File::from(memfd_create("zcache-parcel", MemfdFlags::CLOEXEC)?);
    // Whoever reads it begins at its beginning.
    file.write_all_at(&serde_json::to_vec(content)?, 0)?;
    Ok(file)
}

/// What is in the parcel that came with a message.
///
/// # Errors
///
/// When there is none, or something else is in it.
pub fn unpack<T: DeserializeOwned>(files: impl IntoIterator<Item = File>) -> io::Result<T> {
    let file = files.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
    let mut bytes = Vec::new();
    loop {
        let length = bytes.len();
        bytes.resize(length + PIECE, 0);
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut bytes[length..]))?;
        bytes.truncate(length + read);
        match (read, bytes.len() > MOST) {
            (_, true) => return Err(io::ErrorKind::InvalidData.into()),
            (0, _) => return Ok(serde_json::from_slice(&bytes)?),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_unpacked() {
        let content: Vec<u32> = (0..100_000).collect();
        assert_eq!(unpack::<Vec<u32>>([pack(&content).unwrap()]).unwrap(), content);
    }

    #[test]
    fn what_is_no_parcel_is_an_error() {
        assert!(unpack::<Vec<u32>>([]).is_err(), "nothing came along");
        assert!(unpack::<Vec<u32>>([tempfile::tempfile().unwrap()]).is_err(), "an empty file");
        assert!(unpack::<Vec<u32>>([File::open("/dev/zero").unwrap()]).is_err(), "a file without end");
    }
}
