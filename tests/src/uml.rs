// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! User-mode Linux: the guest's kernel is a process of the host.
//!
//! A device is a socket that the kernel's own vhost-user driver connects to. The command line names
//! all that will ever be, for before 6.17 nothing else can: one is plugged in when there is a socket
//! of its name and the guest binds it to that driver, and leaves when the guest unbinds it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use tempfile::TempDir;
use zcache_images::PAYLOAD_SERIAL;

use crate::artefacts::Artefacts;
use crate::device::{Endpoint, UNPLUG_LIMIT};
use crate::guest::Guest;
use crate::machine::{Machine, Started};
use crate::process::Process;
use crate::qmp::Qmp;
use crate::slot::{self, Plugged};
use crate::vm::{Console, DiskIo, VmOptions};

/// Where the guest sees which devices its vhost-user driver has.
const DRIVER: &str = "/sys/bus/platform/drivers/virtio-uml";
/// Bytes of a sector in the counters of disks.
const SECTOR: u64 = 512;
/// Devices that come later are so many, in turn.
const PLACES: u32 = 4;

/// A kernel that runs as a process.
#[derive(Debug)]
struct Uml {
    /// Where the sockets of devices have the names that the kernel knows.
    folder: TempDir,
}

/// Starts a guest whose console goes to `serial`.
pub(crate) fn start(
    options: &VmOptions,
    disks: &[PathBuf],
    cold_plugged: Option<&Endpoint>,
    serial: &Path,
) -> Result<Started> {
    let folder = tempfile::Builder::new().prefix("zcache-uml-").tempdir()?;
    let (agent, guests_agent) = UnixStream::pair()?;
    let (host, guests_host) = UnixStream::pair()?;
    let lines = [OwnedFd::from(guests_agent), OwnedFd::from(guests_host)];
    let mut command = command(options, disks, cold_plugged, &folder, &lines)?;
    inherit(&mut command, lines);
    let process = match options.console {
        Console::Log => Process::spawn(&format!("the kernel of {}", options.name), command, serial)?,
        Console::Terminal => Process::spawn_on_terminal("the kernel", command)?,
    };
    Ok(Started { machine: Box::new(Uml { folder }), process, agent, host, console: None })
}

fn command(
    options: &VmOptions,
    disks: &[PathBuf],
    cold_plugged: Option<&Endpoint>,
    folder: &TempDir,
    lines: &[OwnedFd; 2],
) -> Result<Command> {
    let artefacts = Artefacts::with(options.kernel, options.sabotage)?;
    let mut command = artefacts.program();
    command
        // Its memory is a file there, which the daemon maps.
        .env("TMPDIR", "/dev/shm")
        .args(artefacts.cmdline().split(' '))
        .arg(format!("mem={}M", options.memory_mib))
        .arg(format!("ncpus={}", options.cpus()))
        .arg(format!("uml_dir={}/", folder.path().display()))
        .args(["panic=-1", "con=null", "ssl=null"]);
    match options.console {
        Console::Log => command.arg("con0=null,fd:1"),
        Console::Terminal => command.args(["con0=fd:0,fd:1", "zcache.shell=1"]),
    };
    for (number, line) in lines.iter().enumerate() {
        command.arg(format!("ssl{number}=fd:{}", line.as_raw_fd()));
    }
    // Not locked ("c"): QEMU opens no file that somebody has locked, not even to read it.
    command.arg(disk(0, "rc", artefacts.rootfs(), "zcache-root")?);
    let mut unit = 1;
    for (index, path) in disks.iter().enumerate() {
        command.arg(disk(unit, "", path, &format!("disk{index}"))?);
        unit += 1;
    }
    command.arg(disk(unit, "rc", artefacts.payload(), PAYLOAD_SERIAL)?);
    if let Some(endpoint) = cold_plugged {
        command.arg(device(&endpoint.socket, slot::COLD)?);
    }
    for place in 1..=PLACES {
        command.arg(device(&socket(folder, place), place)?);
    }
    Ok(command)
}

/// The word for a device.
fn device(socket: &Path, place: u32) -> Result<String> {
    let socket = socket.to_str().context("The name of a socket is not text")?;
    if socket.contains(':') {
        bail!("User-mode Linux takes no socket with a colon in its name: {socket}");
    }
    Ok(format!("virtio_uml.device={socket}:{}:{place}", zcache_protocol::DEFAULT_VIRTIO_ID))
}

/// Where a device is that comes later.
fn socket(folder: &TempDir, place: u32) -> PathBuf {
    folder.path().join(format!("device{place}"))
}

/// Where the device of this number is.
fn place(number: u32) -> u32 {
    number.checked_sub(slot::COLD + 1).map_or(slot::COLD, |later| later % PLACES + 1)
}

/// The name of a device in the guest.
fn name(number: u32) -> String {
    format!("virtio-uml.{}", place(number))
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

impl Machine for Uml {
    fn plug(&self, guest: &Guest, number: u32, endpoint: &Endpoint) -> Result<()> {
        let socket = socket(&self.folder, place(number));
        if let Err(error) = fs::remove_file(&socket)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("Cannot remove {}", socket.display()));
        }
        symlink(&endpoint.socket, &socket).with_context(|| format!("Cannot make {}", socket.display()))?;
        guest
            .sh(&format!("echo {} >{DRIVER}/bind", name(number)))
            .context("The guest's kernel cannot connect to the device")
            .map(drop)
    }

    fn unplug(&self, guest: &Guest, plugged: Plugged) -> Result<()> {
        let name = name(plugged.number);
        // The kernel removes a device by itself whose backend has died amid a message.
        let script = format!("[ ! -e {DRIVER}/{name} ] || echo {name} >{DRIVER}/unbind");
        guest.sh_within(&script, UNPLUG_LIMIT).context("The guest does not give the device up").map(drop)
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

    fn qmp(&self) -> Result<&Qmp> {
        bail!("A guest of user-mode Linux has no monitor")
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
