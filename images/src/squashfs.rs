// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Read-only disk images. lz4 unpacks fastest in a guest that is emulated.

use std::path::Path;

use crate::command;
use crate::error::Result;
use crate::tools::Tools;

/// Packs a folder. The same files give the same image: everything belongs to root and
/// carries the time 0.
pub(crate) fn pack(tools: &Tools, folder: &Path, image: &Path, log: &Path) -> Result<()> {
    let mut command = tools.mksquashfs();
    command
        .arg(folder)
        .arg(image)
        .args(["-noappend", "-all-root", "-comp", "lz4", "-no-progress", "-quiet"])
        .args(["-all-time", "0", "-mkfs-time", "0"])
        .env_remove("SOURCE_DATE_EPOCH");
    command::run(&mut command, log)
}
