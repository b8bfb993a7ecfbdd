// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A disk image with one partition, from an archive.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::tools::DiskTools;
use crate::command;
use crate::error::{IoContext as _, Result};

/// The root file system's.
pub(super) const ROOT_UUID: &str = "7d1c53a4-5b0e-4c1f-9d0a-3a8b1f6e2c77";

const SECTOR: u32 = 512;
/// The first sector of the partition; the boot loader is in front of it.
const START: u32 = 2048;
/// Sectors of the partition: 8 GiB. The file is sparse.
const SECTORS: u32 = 16 << 20;

/// GRUB of Debian 12 does not read file systems that have these.
const FEATURES: &str = "^metadata_csum_seed,^orphan_file";

/// What the image depends on.
pub(super) const INPUTS: &[&str] = &[ROOT_UUID, FEATURES, "DOS, 8 GiB"];

/// Makes the image; the files are those of `archive`.
pub(super) fn make(tools: &DiskTools, archive: &Path, image: &Path, log: &Path) -> Result<()> {
    write_partition_table(image).while_doing("write", image)?;
    let mut mke2fs = tools.mke2fs();
    mke2fs.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-O", FEATURES, "-U", ROOT_UUID]);
    mke2fs.args(["-E", &format!("offset={}", START * SECTOR)]).arg("-d").arg(archive).arg(image);
    command::run(mke2fs.arg((SECTORS / (4096 / SECTOR)).to_string()), log)
}

/// A table as the installer makes it on a machine with a BIOS.
fn write_partition_table(image: &Path) -> io::Result<()> {
    /// Of the disk; a part of the partition's PARTUUID.
    const SIGNATURE: u32 = 0x3a5d_1f0e;
    const LINUX: u8 = 0x83;
    const BOOTABLE: u8 = 0x80;
    /// Cylinder, head and sector of what lies beyond where these reach.
    const BEYOND: [u8; 3] = [0xfe, 0xff, 0xff];
    let [c, h, s] = BEYOND;
    let mut entry = vec![BOOTABLE, c, h, s, LINUX, c, h, s];
    entry.extend(START.to_le_bytes());
    entry.extend(SECTORS.to_le_bytes());
    let file = File::create(image)?;
    file.set_len(u64::from(START + SECTORS) * u64::from(SECTOR))?;
    file.write_all_at(&SIGNATURE.to_le_bytes(), 440)?;
    file.write_all_at(&entry, 446)?;
    file.write_all_at(&[0x55, 0xaa], 510)
}
