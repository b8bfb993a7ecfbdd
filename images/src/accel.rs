// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether guests can run on KVM here.
//!
//! That `/dev/kvm` opens is not enough: nested virtualisation exists where creating a
//! VM works and its first instruction never returns. So a kernel is booted to see.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::cache::{Cache, Key, Leftovers};
use crate::error::{Error, IoContext as _, Result};
use crate::kernel::BuiltKernel;
use crate::qemu::Qemu;

/// A guest on KVM gets to the marker in less than one second.
const LIMIT: Duration = Duration::from_secs(10);

/// The last thing a kernel without a root disk says.
const MARKER: &str = "Unable to mount root";

/// How QEMU executes the guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// By the host's processor.
    Kvm,
    /// By translating it: 10 to 20 times slower.
    Tcg,
}

impl Accel {
    /// The arguments for QEMU. In emulation `la57` costs a level of page tables for nothing, `erms`
    /// and `fsrm` have the kernel copy and clear pages byte by byte, and `smap` ends a translated
    /// block at each access to a program's memory.
    #[must_use]
    pub fn qemu_args(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => &["-accel", "tcg,thread=multi", "-cpu", "max,la57=off,erms=off,fsrm=off,smap=off"],
        }
    }

    pub(crate) fn get(cache: &Cache) -> Result<Self> {
        let device = Path::new("/dev/kvm");
        if OpenOptions::new().read(true).write(true).open(device).is_err() {
            return Ok(Self::Tcg);
        }
        let qemu = Qemu::get(cache)?;
        let kernel = BuiltKernel::get(cache, crate::Kernel::Debian13)?;
        let boot = Path::new("/proc/sys/kernel/random/boot_id");
        let boot_id = fs::read_to_string(boot).while_doing("read", boot)?;
        let inputs = [boot_id, kernel.key().as_str().to_owned()];
        let artefact = cache.artefact("kvm", &Key::of(&inputs), Leftovers::Remove, |dir, progress| {
            progress.step("trying to boot a guest on KVM");
            let console = dir.join("console");
            let works = boots(&qemu, &kernel, &console)?;
            let answer = if works { "yes" } else { "no" };
            progress.step(format_args!("guests run on KVM: {answer}"));
            let path = dir.join("answer");
            fs::write(&path, answer).while_doing("write", &path)?;
            Ok(Vec::new())
        })?;
        let path = artefact.dir.join("answer");
        let answer = fs::read_to_string(&path).while_doing("read", &path)?;
        Ok(if answer == "yes" { Self::Kvm } else { Self::Tcg })
    }
}

fn boots(qemu: &Qemu, kernel: &BuiltKernel, console: &Path) -> Result<bool> {
    let mut command = qemu.command();
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-machine", "q35", "-m", "256M"])
        .args(Accel::Kvm.qemu_args())
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-kernel")
        .arg(kernel.image())
        .args(["-append", "console=ttyS0 panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut guest = Guest::start(&mut command)?;
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        let seen = fs::read(console).unwrap_or_default();
        if String::from_utf8_lossy(&seen).contains(MARKER) {
            return Ok(true);
        }
        if !guest.runs() {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}

/// A QEMU that is killed when nobody looks at it any more.
pub(crate) struct Guest(Child);

impl Guest {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        command.spawn().map(Self).map_err(|source| Error::Spawn { program: "QEMU".to_owned(), source })
    }

    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
