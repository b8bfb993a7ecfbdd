// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel out of its compressed image. QEMU loads it directly (the PVH entry, which Debian's
//! kernels have), and an emulated guest needs not unpack it: that is half of the time until init.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::BuiltKernel;
use crate::cache::{Cache, Key, Leftovers};
use crate::command;
use crate::error::{Error, IoContext as _, Result};
use crate::tools::Tools;

/// Fields of the setup header, as in Documentation/arch/x86/boot.rst.
const SETUP_SECTS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;

/// Kbuild appends the unpacked size to what it has packed.
const APPENDED_SIZE: usize = 4;

/// How packed data begins.
const XZ: &[u8] = b"\xfd7zXZ\0";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// The unpacked form of the image of a distribution's kernel.
pub(super) fn get(cache: &Cache, kernel: &BuiltKernel) -> Result<PathBuf> {
    let name = format!("vmlinux-{}", kernel.kernel());
    let artefact = cache.artefact(&name, &Key::of(&[kernel.key().as_str()]), Leftovers::Remove, |dir, progress| {
        progress.step("unpacking");
        let image = kernel.image();
        let bytes = fs::read(&image).while_doing("read", &image)?;
        let damaged = |reason: &str| Error::Damaged { path: image.clone(), reason: reason.to_owned() };
        let payload = payload(&bytes).ok_or_else(|| damaged("no compressed kernel"))?;
        let tools = Tools::get(cache)?;
        let program = match payload {
            xz if xz.starts_with(XZ) => tools.xz(),
            zstd if zstd.starts_with(ZSTD) => tools.zstd(),
            _ => return Err(damaged("packed neither by xz nor by zstd")),
        };
        unpack(program, payload, dir)?;
        Ok(kernel.packages().to_vec())
    })?;
    Ok(artefact.dir.join("vmlinux"))
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    // The first sector comes on top, and 0 means 4.
    let sectors = match *image.get(SETUP_SECTS)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * SECTOR + word(PAYLOAD_OFFSET)?;
    let end = start.checked_add(word(PAYLOAD_LENGTH)?)?.checked_sub(APPENDED_SIZE)?;
    image.get(start..end)
}

fn unpack(mut program: Command, payload: &[u8], dir: &Path) -> Result<()> {
    let packed = dir.join("packed");
    fs::write(&packed, payload).while_doing("write", &packed)?;
    let input = File::open(&packed).while_doing("open", &packed)?;
    let image = dir.join("vmlinux");
    let output = File::create(&image).while_doing("create", &image)?;
    command::filter(program.arg("-dc"), input, output)?;
    fs::remove_file(&packed).while_doing("remove", &packed)
}
