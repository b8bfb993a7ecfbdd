// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel tells when the host is short of memory (PSI). The keeper opens the file while it may
//! still open files; the worker waits for it ([`crate::worker::pressure`]).

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use log::{info, warn};

/// Where the kernel tells of the whole host. A service manager may name another file, of the part
/// of the host that is the daemon's.
const HOST: &str = "/proc/pressure/memory";
const NAMED: &str = "MEMORY_PRESSURE_WATCH";

/// When it is to be told: some process had to wait for memory for so many microseconds of so many.
/// Without privileges the kernel takes multiples of two seconds only.
const TRIGGER: &[u8] = b"some 100000 2000000\0";

/// The file that becomes ready whenever memory is short, if the kernel can tell.
#[must_use]
pub fn open() -> Option<File> {
    let path = env::var_os(NAMED).map_or_else(|| HOST.into(), PathBuf::from);
    match watched(&path) {
        Ok(file) => {
            info!("Memory is given back when {} says that it is short", path.display());
            Some(file)
        }
        Err(error) => {
            warn!(
                "Memory is not given back when the host is short of it: {} cannot be watched: {error}",
                path.display()
            );
            None
        }
    }
}

fn watched(path: &PathBuf) -> io::Result<File> {
    let mut file = File::options().read(true).write(true).open(path)?;
    file.write_all(TRIGGER)?;
    Ok(file)
}
