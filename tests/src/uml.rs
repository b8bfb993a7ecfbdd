// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! User-mode Linux: the guest's kernel is a process of the host.
//!
//! There is no hot-plug: the device is named on the kernel's command line. What comes and
//! goes is its driver `virtio_uml`, which connects when it is bound to the device and
//! disconnects when it is unbound; the guest driver sees a device that comes and goes. The
//! socket's name on the command line is a link that exists while it is bound.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use tempfile::TempDir;
use zcache_images::PAYLOAD_SERIAL;

use crate::artefacts::Artefacts;
use crate::device::Endpoint;
use crate::guest::Guest;
use crate::machine::{Machine, Started};
use crate::process::Process;
use crate::qmp::Qmp;
use crate::vm::{Console, DiskIo, VmOptions};

/// Where the guest binds the device to its driver.
const DRIVER: &str = "/sys/bus/platform/drivers/virtio-uml";
/// The device of the command line.
const DEVICE: &str = "virtio-uml.0";
/// Bytes of a sector in the counters of disks.
const SECTOR: u64 = 512;

/// A kernel that runs as a process.
#[derive(Debug)]
pub(crate) struct Uml {
    /// Has the link to the backend's socket.
    folder: TempDir,
    /// The backend of the device while it is bound.
    backend: Mutex<Option<i32>>,
}

/// Starts a guest whose console goes to `serial`.
pub(crate) fn start(
    options: &VmOptions,
    disks: &[PathBuf],
    cold_plugged: Option<&Endpoint>,
    serial: &Path,
) -> Result<Started> {
    let folder = tempfile::Builder::new().prefix("zcache-uml-").tempdir()?;
    let uml = Uml { folder, backend: Mutex::new(cold_plugged.map(|endpoint| endpoint.backend)) };
    if let Some(endpoint) = cold_plugged {
        symlink(&endpoint.socket, uml.socket())?;
    }
    let (agent, guests_agent) = UnixStream::pair()?;
    let (host, guests_host) = UnixStream::pair()?;
    let lines = [OwnedFd::from(guests_agent), OwnedFd::from(guests_host)];
    let mut command = command(options, disks, &uml, &lines)?;
    inherit(&mut command, lines);
    let process = match options.console {
        Console::Log => Process::spawn(&format!("the kernel of {}", options.name), command, serial)?,
        Console::Terminal => Process::spawn_on_terminal("the kernel", command)?,
    };
    Ok(Started { machine: Box::new(uml), process, agent, host })
}

fn command(options: &VmOptions, disks: &[PathBuf], uml: &Uml, lines: &[OwnedFd; 2]) -> Result<Command> {
    let artefacts = Artefacts::with(options.kernel, options.sabotage)?;
    let mut command = artefacts.program();
    command
        // Its memory is a file there, which the daemon maps.
        .env("TMPDIR", "/dev/shm")
        .args(artefacts.cmdline().split(' '))
        .arg(format!("mem={}M", options.memory_mib))
        .arg(format!("ncpus={}", options.cpus))
        .arg(format!("uml_dir={}/", uml.folder.path().display()))
        .args(["panic=-1", "con=null", "ssl=null"]);
    match options.console {
        Console::Log => command.arg("con0=null,fd:1"),
        Console::Terminal => command.args(["con0=fd:0,fd:1", "zcache.shell=1"]),
    };
    for (number, line) in lines.iter().enumerate() {
        command.arg(format!("ssl{number}=fd:{}", line.as_raw_fd()));
    }
    command.arg(disk(0, "r", artefacts.rootfs(), "zcache-root")?);
    let mut unit = 1;
    for (index, path) in disks.iter().enumerate() {
        command.arg(disk(unit, "", path, &format!("disk{index}"))?);
        unit += 1;
    }
    command.arg(disk(unit, "r", artefacts.payload(), PAYLOAD_SERIAL)?);
    let id = zcache_protocol::DEFAULT_VIRTIO_ID;
    command.arg(format!("virtio_uml.device={}:{id}", uml.socket().display()));
    Ok(command)
}

/// The word for a disk that is the file `path`.
fn disk(unit: usize, flags: &str, path: &Path, serial: &str) -> Result<String> {
    let path = path.to_str().context("The name of a disk is not text")?;
    if path.contains([',', ':']) {
        bail!("User-mode Linux takes no disk with a comma or colon in its name: {path}");
    }
    Ok(format!("ubd{unit}{flags}={path},,{serial}"))
}

/// Lets the new process have these descriptors under the numbers they have here.
fn inherit<const N: usize>(command: &mut Command, fds: [OwnedFd; N]) {
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls
    // are allowed: it makes one system call (fcntl) for each descriptor, which it owns,
    // and allocates nothing.
    unsafe {
        command
            .pre_exec(move || fds.iter().try_for_each(|fd| fcntl_setfd(fd, FdFlags::empty()).map_err(io::Error::from)));
    }
}

impl Uml {
    fn socket(&self) -> PathBuf {
        self.folder.path().join("device")
    }

    fn lock(&self) -> MutexGuard<'_, Option<i32>> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unbind(&self, guest: &Guest) -> Result<()> {
        guest.sh(&format!("echo {DEVICE} >{DRIVER}/unbind")).context("The guest does not give the device up")?;
        fs::remove_file(self.socket())?;
        Ok(())
    }
}

impl Machine for Uml {
    fn attach(&self, guest: &Guest, endpoint: &Endpoint) -> Result<()> {
        let mut backend = self.lock();
        match *backend {
            Some(its) if its == endpoint.backend => bail!("The device is attached already"),
            Some(_) => self.unbind(guest)?,
            None => {}
        }
        *backend = None;
        symlink(&endpoint.socket, self.socket())?;
        if let Err(error) = guest.sh(&format!("echo {DEVICE} >{DRIVER}/bind")) {
            fs::remove_file(self.socket())?;
            return Err(error.context("The guest cannot connect to the device"));
        }
        *backend = Some(endpoint.backend);
        Ok(())
    }

    fn detach(&self, guest: &Guest) -> Result<()> {
        let mut backend = self.lock();
        backend.context("No device is attached")?;
        self.unbind(guest)?;
        *backend = None;
        Ok(())
    }

    fn is_attached(&self) -> bool {
        self.lock().is_some()
    }

    fn is_attached_to(&self, backend: i32) -> bool {
        *self.lock() == Some(backend)
    }

    /// As the guest counts it: there is nobody between its block layer and the file.
    fn disk_io(&self, guest: &Guest, name: &str) -> Result<DiskIo> {
        let unit = name.strip_prefix("vd").unwrap_or(name);
        let text = guest.sh(&format!("cat /sys/block/ubd{unit}/stat"))?;
        let fields: Vec<u64> = text.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        // See Documentation/block/stat.rst.
        let [reads, _, sectors_read, _, writes, _, sectors_written, ..] = fields[..] else {
            bail!("Not the counters of a disk: {text}");
        };
        Ok(DiskIo { reads, writes, read_bytes: sectors_read * SECTOR, written_bytes: sectors_written * SECTOR })
    }

    fn qmp(&self) -> Option<&Qmp> {
        None
    }

    fn needs_driver(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_named_with_its_serial_number() {
        let word = disk(2, "r", Path::new("/a/b"), "disk1").expect("a plain name");
        assert_eq!(word, "ubd2r=/a/b,,disk1");
        disk(2, "", Path::new("/a,b"), "disk1").expect_err("the comma would end the name");
    }
}
