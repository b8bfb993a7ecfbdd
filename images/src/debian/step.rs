// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One step of a Debian system's making that has to run in the system itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::disk::ROOT_UUID;
use crate::accel::{Accel, Guest};
use crate::cache::Cache;
use crate::error::{Error, IoContext as _, Result};
use crate::payload::{self, PayloadFile};
use crate::qemu::Qemu;
use crate::{GUEST_CONSOLE, PAYLOAD_SERIAL};

/// What the system's `zcache-step` prints when all went well.
const DONE: &str = "zcache-step: done";

/// The longest that a step may take: compilers run in emulation.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// What is done in the guest.
pub(super) struct Step<'a> {
    pub(super) name: &'static str,
    /// A shell script.
    pub(super) script: &'a Path,
    /// Another file for `/payload`, by its name there.
    pub(super) file: Option<(&'a Path, &'static str)>,
}

/// The system that it is done in.
pub(super) struct System<'a> {
    pub(super) disk: &'a Path,
    pub(super) format: &'static str,
    /// Booted without firmware and boot loader, which there may not be yet.
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
}

impl Step<'_> {
    /// Boots the system, runs the script in it, and waits until it is powered off. The console goes
    /// to `console`.
    pub(super) fn run(&self, cache: &Cache, system: &System<'_>, console: &Path) -> Result<()> {
        let mut files = vec![PayloadFile { source: self.script.to_owned(), path: "step".to_owned() }];
        if let Some((source, path)) = self.file {
            files.push(PayloadFile { source: source.to_owned(), path: path.to_owned() });
        }
        let payload = payload::get(cache, &files)?;
        let mut command = Qemu::get(cache)?.command();
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-machine", "q35", "-m", "2048M", "-smp", "2"])
            .args(Accel::get(cache)?.qemu_args())
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-kernel")
            .arg(&system.kernel)
            .arg("-initrd")
            .arg(&system.initrd)
            .arg("-append")
            .arg(format!("root=UUID={ROOT_UUID} ro {GUEST_CONSOLE} panic=-1 systemd.run=/usr/sbin/zcache-step"))
            .arg("-drive")
            .arg(format!("if=none,id=root,file={},format={}", system.disk.display(), system.format))
            .args(["-device", "virtio-blk-pci,drive=root,addr=0x5"])
            .arg("-drive")
            .arg(format!("if=none,id=payload,file={},format=raw,read-only=on", payload.display()))
            .arg("-device")
            .arg(format!("virtio-blk-pci,drive=payload,serial={PAYLOAD_SERIAL},addr=0x6"))
            .args(["-device", "virtio-rng-pci"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let mut guest = Guest::start(&mut command)?;
        let started = Instant::now();
        while guest.runs() && started.elapsed() < LIMIT {
            thread::sleep(Duration::from_millis(200));
        }
        drop(guest);
        let printed = fs::read(console).while_doing("read", console)?;
        let printed = String::from_utf8_lossy(&printed);
        if printed.contains(DONE) {
            return Ok(());
        }
        let lines: Vec<&str> = printed.lines().collect();
        let shown = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default();
        Err(Error::Step { step: self.name, console: shown.join("\n") })
    }
}
