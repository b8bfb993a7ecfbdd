// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The initial file system of kernels that have the root disk's driver as a module.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cpio::newc::{Builder, trailer};

use crate::error::{Error, IoContext as _, Result};

/// Loads modules, mounts the root disk and hands over to it as the kernel would.
pub(super) const INIT: &str = include_str!("../../guest/initrd-init");

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const PLAIN_FILE: u32 = 0o100_644;

/// Writes an archive with busybox and these modules, which are loaded in this order.
pub(super) fn pack(busybox: &Path, modules: &[PathBuf], image: &Path) -> Result<()> {
    let mut order = String::new();
    let mut files = vec![("bin/busybox".to_owned(), PROGRAM, read(busybox)?)];
    for module in modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        order += &format!("{name}\n");
        files.push((format!("modules/{name}"), PLAIN_FILE, read(module)?));
    }
    files.push(("modules/order".to_owned(), PLAIN_FILE, order.into_bytes()));
    files.push(("init".to_owned(), PROGRAM, INIT.into()));

    let file = File::create(image).while_doing("create", image)?;
    let write = || -> io::Result<()> {
        let mut out = io::BufWriter::new(file);
        let mut inode = 0;
        let mut entry = |out, name: &str, mode, contents: &[u8]| {
            inode += 1;
            let size = u32::try_from(contents.len()).map_err(io::Error::other)?;
            let mut writer = Builder::new(name).ino(inode).mode(mode).nlink(1).write(out, size);
            writer.write_all(contents)?;
            writer.finish()
        };
        for folder in ["bin", "dev", "modules", "root"] {
            out = entry(out, folder, FOLDER, &[])?;
        }
        for (name, mode, contents) in &files {
            out = entry(out, name, *mode, contents)?;
        }
        trailer(out)?.flush()
    };
    write().map_err(|source| Error::Io { action: "write", path: image.to_owned(), source })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).while_doing("read", path)
}
