// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! User-mode Linux: the guest's kernel is a process of the host.
//!
//! A device is a socket that the kernel's own vhost-user driver is told to connect to: by its
//! command line, or by its management console. The console takes none away: a device goes when the
//! guest unbinds it from that driver.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use tempfile::TempDir;
use zcache_images::PAYLOAD_SERIAL;

use crate::artefacts::Artefacts;
use crate::device::{Endpoint, UNPLUG_LIMIT};
use crate::guest::Guest;
use crate::machine::{Machine, Started};
use crate::mconsole::Mconsole;
use crate::process::{Process, describe, wait_readable};
use crate::qmp::Qmp;
use crate::slot::{self, Plugged};
use crate::vm::{Console, DiskIo, VmOptions, tail};

/// Where the guest sees which devices its vhost-user driver has.
const DRIVER: &str = "/sys/bus/platform/drivers/virtio-uml";
/// Bytes of a sector in the counters of disks.
const SECTOR: u64 = 512;
/// Longest from the start of the kernel to its management console.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The name of the guest's folder of sockets.
const NAME: &str = "guest";

/// A kernel that runs as a process.
#[derive(Debug)]
struct Uml(Mconsole);

/// Starts a guest whose console goes to `serial`.
pub(crate) fn start(
    options: &VmOptions,
    disks: &[PathBuf],
    cold_plugged: Option<&Endpoint>,
    serial: &Path,
) -> Result<Started> {
    let folder = tempfile::Builder::new().prefix("zcache-uml-").tempdir()?;
    let notices = UnixDatagram::bind(notices_of(&folder)).context("Cannot bind a socket for the kernel")?;
    let (agent, guests_agent) = UnixStream::pair()?;
    let (host, guests_host) = UnixStream::pair()?;
    let lines = [OwnedFd::from(guests_agent), OwnedFd::from(guests_host)];
    let mut command = command(options, disks, cold_plugged, &folder, &lines)?;
    inherit(&mut command, lines);
    let process = match options.console {
        Console::Log => Process::spawn(&format!("the kernel of {}", options.name), command, serial)?,
        Console::Terminal => Process::spawn_on_terminal("the kernel", command)?,
    };
    await_console(&process, &notices, serial)?;
    let unique = folder.path().display().to_string();
    let console = Mconsole::connect(&folder.path().join(NAME).join("mconsole"), &unique)?;
    // What has no name need not be removed later, not even after a SIGKILL.
    folder.close()?;
    Ok(Started { machine: Box::new(Uml(console)), process, agent, host, console: None })
}

/// Waits until the kernel tells of its management console.
fn await_console(process: &Process, notices: &UnixDatagram, serial: &Path) -> Result<()> {
    let ready = wait_readable(&[notices.as_fd(), process.exit_fd()], START_LIMIT)?;
    if ready[0] {
        return Ok(());
    }
    match process.try_wait()? {
        Some(status) => bail!("User-mode Linux ended with {} at start:\n{}", describe(status), tail(serial)),
        None => bail!("User-mode Linux has no management console:\n{}", tail(serial)),
    }
}

fn notices_of(folder: &TempDir) -> PathBuf {
    folder.path().join("notices")
}

fn command(
    options: &VmOptions,
    disks: &[PathBuf],
    cold_plugged: Option<&Endpoint>,
    folder: &TempDir,
    lines: &[OwnedFd; 2],
) -> Result<Command> {
    ensure!(options.cpus() == 1, "A guest of user-mode Linux has one CPU");
    let artefacts = Artefacts::with(options.kernel, options.sabotage)?;
    let mut command = artefacts.program();
    command
        // Its memory is a file there, which the daemon maps.
        .env("TMPDIR", "/dev/shm")
        .args(artefacts.cmdline().split(' '))
        .arg(format!("mem={}M", options.memory_mib))
        .arg(format!("uml_dir={}/", folder.path().display()))
        .arg(format!("umid={NAME}"))
        .arg(format!("mconsole=notify:{}", notices_of(folder).display()))
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
        command.arg(device(endpoint, slot::COLD)?);
    }
    Ok(command)
}

/// The words for a device, of the kernel's command line and of its management console.
fn device(endpoint: &Endpoint, number: u32) -> Result<String> {
    let socket = endpoint.socket.to_str().context("The name of a socket is not text")?;
    if socket.contains(':') {
        bail!("User-mode Linux takes no socket with a colon in its name: {socket}");
    }
    Ok(format!("virtio_uml.device={socket}:{}:{number}", zcache_protocol::DEFAULT_VIRTIO_ID))
}

/// The name of a device in the guest.
fn name(number: u32) -> String {
    format!("virtio-uml.{number}")
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
        self.0.execute(&format!("config {}", device(endpoint, number)?))?;
        guest
            .sh(&format!("test -e {DRIVER}/{}", name(number)))
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
