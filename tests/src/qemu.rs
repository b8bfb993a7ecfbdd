// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! QEMU: its command line, its start, and what its monitor is asked.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use zcache_images::{MODULES_SERIAL, PAYLOAD_SERIAL};

use crate::artefacts::Artefacts;
use crate::device::{self, Endpoint, Names};
use crate::guest::Guest;
use crate::installed::Installed;
use crate::machine::{Machine, Started};
use crate::process::{Process, describe, wait_readable};
use crate::qmp::Qmp;
use crate::slot::Plugged;
use crate::vm::{Console, DiskIo, Memory, VmOptions, tail};

/// The sockets on which the test listens for QEMU.
#[derive(Debug)]
struct Sockets {
    qmp: PathBuf,
    agent: PathBuf,
    host: PathBuf,
    console: PathBuf,
}

impl Sockets {
    fn in_folder(folder: &Path) -> Self {
        let path = |name: &str| folder.join(name);
        Self { qmp: path("qmp"), agent: path("agent"), host: path("host"), console: path("console") }
    }
}

/// A machine of QEMU's.
#[derive(Debug)]
struct Qemu(Qmp);

/// Starts a guest whose console goes to `serial`, and QEMU's own messages to `dir`.
pub(crate) fn start(
    options: &VmOptions,
    disks: &[PathBuf],
    cold_plugged: Option<&Endpoint>,
    serial: &Path,
    dir: &Path,
) -> Result<Started> {
    let scratch = tempfile::Builder::new().prefix("zcache-vm-").tempdir()?;
    let sockets = Sockets::in_folder(scratch.path());
    let [qmp, agent, host, console] = [&sockets.qmp, &sockets.agent, &sockets.host, &sockets.console]
        .map(|path| UnixListener::bind(path).context("Cannot bind a socket for QEMU"));
    let (qmp, agent, host, console) = (qmp?, agent?, host?, console?);
    let command = command(options, &sockets, disks, cold_plugged, serial)?;
    let log = dir.join(format!("{}-qemu.log", options.name));
    let process = match options.console {
        Console::Log => Process::spawn(&format!("QEMU of {}", options.name), command, &log)?,
        Console::Terminal => Process::spawn_on_terminal("QEMU", command)?,
    };
    let accept = |listener: &UnixListener| accept_from(&process, listener, &log);
    let console = has_typed_console(options).then(|| accept(&console)).transpose()?;
    let qmp = accept(&qmp)?;
    let (agent, host) = (accept(&agent)?, accept(&host)?);
    let qmp = Qmp::new(qmp)?;
    scratch.close()?;
    Ok(Started { machine: Box::new(Qemu(qmp)), process, agent, host, console })
}

fn accept_from(process: &Process, listener: &UnixListener, log: &Path) -> Result<UnixStream> {
    let ready = wait_readable(&[listener.as_fd(), process.exit_fd()], Duration::from_secs(30))?;
    if ready[0] {
        return Ok(listener.accept()?.0);
    }
    match process.try_wait()? {
        Some(status) => bail!("QEMU ended with {} at start:\n{}", describe(status), tail(log)),
        None => bail!("QEMU does not connect its sockets:\n{}", tail(log)),
    }
}

impl Machine for Qemu {
    fn plug(&self, _guest: &Guest, number: u32, endpoint: &Endpoint) -> Result<()> {
        device::plug(&self.0, Names(number), endpoint)
    }

    fn unplug(&self, _guest: &Guest, plugged: Plugged) -> Result<()> {
        device::unplug(&self.0, Names(plugged.number))
    }

    fn disk_io(&self, _guest: &Guest, name: &str) -> Result<DiskIo> {
        let stats = self.0.execute("query-blockstats", json!({}))?;
        let stats = stats
            .as_array()
            .and_then(|all| all.iter().find(|one| one["device"] == name))
            .map(|one| &one["stats"])
            .with_context(|| format!("QEMU has no counters of disk {name}"))?;
        let count = |field: &str| stats[field].as_u64().unwrap_or(0);
        Ok(DiskIo {
            reads: count("rd_operations"),
            writes: count("wr_operations"),
            read_bytes: count("rd_bytes"),
            written_bytes: count("wr_bytes"),
        })
    }

    fn qmp(&self) -> Result<&Qmp> {
        Ok(&self.0)
    }

    fn needs_driver(&self) -> bool {
        true
    }
}

/// What the guest calls test disk number `index`: the root disk is `vda`.
pub(crate) fn disk_name(index: usize) -> String {
    let letter = b'b'.saturating_add(u8::try_from(index).unwrap_or(u8::MAX));
    format!("vd{}", char::from(letter))
}

/// The whole command line of a guest.
fn command(
    options: &VmOptions,
    sockets: &Sockets,
    disks: &[PathBuf],
    cold_plugged: Option<&Endpoint>,
    serial: &Path,
) -> Result<Command> {
    let boot = Boot::of(options)?;
    let mut line = Line { command: boot.program() };
    line.words(["-nodefaults", "-display", "none"]);
    line.option("-smp", &options.cpus().to_string(), &[]);
    line.memory(options);
    boot.begin(&mut line, options);

    match options.console {
        Console::Log if has_typed_console(options) => line.option(
            "-chardev",
            "socket",
            &[("id", "console".into()), ("path", (&sockets.console).into()), ("logfile", serial.into())],
        ),
        Console::Log => line.option("-chardev", "file", &[("id", "console".into()), ("path", serial.into())]),
        Console::Terminal => {
            line.option(
                "-chardev",
                "stdio",
                &[("id", "console".into()), ("signal", "off".into()), ("logfile", serial.into())],
            );
        }
    }
    line.option("-serial", "chardev:console", &[]);
    line.socket("monitor", &sockets.qmp);
    line.option("-qmp", "chardev:monitor", &[]);
    line.option("-device", "virtio-serial-pci", &[("id", "ports".into()), ("addr", "0x2".into())]);
    for (id, socket) in [("agent", &sockets.agent), ("host", &sockets.host)] {
        line.socket(id, socket);
        line.option(
            "-device",
            "virtserialport",
            &[("bus", "ports.0".into()), ("chardev", id.into()), ("name", format!("org.zcache.{id}").into())],
        );
    }
    line.option("-device", "virtio-rng-pci", &[("addr", "0x3".into())]);
    line.option(
        "-device",
        "pcie-root-port",
        &[("id", device::PORT.into()), ("addr", "0x4".into()), ("chassis", "1".into()), ("slot", "1".into())],
    );
    // The guest names its disks in the order of their addresses: root, test disks, payload,
    // modules.
    boot.root_disk(&mut line);
    let mut address = 6;
    for (index, disk) in disks.iter().enumerate() {
        line.disk(&disk_name(index), disk, false, address, &format!("disk{index}"));
        address += 1;
    }
    boot.other_disks(&mut line, address);
    if let Some(endpoint) = cold_plugged {
        line.socket(&device::COLD.chardev(), &endpoint.socket);
        let mut properties = vec![
            ("id", device::COLD.device().into()),
            ("bus", device::PORT.into()),
            ("chardev", device::COLD.chardev().into()),
        ];
        for (key, value) in device::properties(endpoint.queues) {
            properties.push((key, value.to_string().into()));
        }
        line.option("-device", device::DRIVER, &properties);
    }
    Ok(line.command)
}

/// Whether a guest's console is a connection, on which passphrases can be typed.
fn has_typed_console(options: &VmOptions) -> bool {
    options.installed.is_some() && options.console == Console::Log
}

/// What a guest boots from.
enum Boot<'a> {
    /// A kernel that QEMU loads itself.
    Kernel(Artefacts),
    /// Firmware, boot loader and kernel of its disk.
    Disk(&'a Installed),
}

/// Where the root disk is; the others come after it.
const ROOT_ADDRESS: u8 = 5;

impl<'a> Boot<'a> {
    fn of(options: &'a VmOptions) -> Result<Self> {
        Ok(match &options.installed {
            Some(installed) => Self::Disk(installed),
            None => Self::Kernel(Artefacts::with(options.kernel, options.sabotage)?),
        })
    }

    fn program(&self) -> Command {
        match self {
            Self::Kernel(artefacts) => artefacts.program(),
            Self::Disk(installed) => installed.program(),
        }
    }

    fn begin(&self, line: &mut Line, options: &VmOptions) {
        let Self::Kernel(artefacts) = self else { return };
        line.words(["-no-reboot"]);
        let mut words = vec![artefacts.cmdline().to_owned()];
        if options.console == Console::Terminal {
            words.push("zcache.shell=1".to_owned());
        }
        let image = if options.suspends { artefacts.packed_image() } else { artefacts.kernel_image() };
        line.option("-kernel", &image.to_string_lossy(), &[]);
        if let Some(initrd) = artefacts.initrd() {
            line.option("-initrd", &initrd.to_string_lossy(), &[]);
        }
        line.option("-append", &words.join(" "), &[]);
    }

    fn root_disk(&self, line: &mut Line) {
        match self {
            Self::Kernel(artefacts) => line.disk("root", artefacts.rootfs(), true, ROOT_ADDRESS, "zcache-root"),
            Self::Disk(installed) => line.own_disk(installed),
        }
    }

    fn other_disks(&self, line: &mut Line, address: u8) {
        match self {
            Self::Kernel(artefacts) => {
                line.disk("payload", artefacts.payload(), true, address, PAYLOAD_SERIAL);
                if let Some(modules) = artefacts.modules_disk() {
                    line.disk("modules", modules, true, address + 1, MODULES_SERIAL);
                }
            }
            Self::Disk(installed) => {
                line.disk("payload", installed.payload(), true, address, PAYLOAD_SERIAL);
                line.disk("more", installed.more(), true, address + 1, "zcache-more");
            }
        }
    }
}

/// A command line in the making.
struct Line {
    command: Command,
}

impl Line {
    fn words<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) {
        self.command.args(words);
    }

    /// Adds `-option value,key=value,...`.
    fn option(&mut self, option: &str, value: &str, properties: &[(&str, OsString)]) {
        let mut word = value.to_owned();
        for (key, value) in properties {
            // A comma inside a value is written twice.
            word.push_str(&format!(",{key}={}", value.to_string_lossy().replace(',', ",,")));
        }
        self.command.arg(option).arg(word);
    }

    /// Adds the machine with its memory.
    fn memory(&mut self, options: &VmOptions) {
        let size = format!("{}M", options.memory_mib);
        match options.spare_mib {
            0 => self.words(["-m", &size]),
            spare => self.words(["-m", &format!("{size},slots=1,maxmem={}M", u64::from(options.memory_mib) + spare)]),
        }
        // The daemon maps the guest's memory.
        let share = match options.memory {
            Memory::Shared => "on",
            Memory::PrivateFile => "off",
            Memory::Anonymous => return self.option("-machine", "q35", &[]),
        };
        self.option(
            "-object",
            "memory-backend-memfd",
            &[("id", "mem".into()), ("size", size.into()), ("share", share.into())],
        );
        self.option("-machine", "q35", &[("memory-backend", "mem".into())]);
    }

    /// Adds a character device connected to a socket that listens already.
    fn socket(&mut self, id: &str, path: &Path) {
        self.option("-chardev", "socket", &[("id", id.into()), ("path", path.into())]);
    }

    /// The disk of an installed system. What the guest writes is gone with QEMU.
    fn own_disk(&mut self, installed: &Installed) {
        let drive = [
            ("id", "root".into()),
            ("file", installed.disk().into()),
            ("format", "qcow2".into()),
            ("snapshot", "on".into()),
        ];
        self.option("-drive", "if=none", &drive);
        let device =
            [("drive", "root".into()), ("addr", format!("{ROOT_ADDRESS:#x}").into()), ("bootindex", "0".into())];
        self.option("-device", "virtio-blk-pci", &device);
    }

    fn disk(&mut self, id: &str, image: &Path, read_only: bool, address: u8, serial: &str) {
        let mut drive: Vec<(&str, OsString)> =
            vec![("id", id.into()), ("file", image.into()), ("format", "raw".into())];
        if read_only {
            drive.push(("read-only", "on".into()));
        } else {
            drive.push(("discard", "unmap".into()));
        }
        self.option("-drive", "if=none", &drive);
        self.option(
            "-device",
            "virtio-blk-pci",
            &[("drive", id.into()), ("serial", serial.into()), ("addr", format!("{address:#x}").into())],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::disk_name;

    #[test]
    fn test_disks_come_after_the_root_disk() {
        assert_eq!([0, 1, 24].map(disk_name), ["vdb", "vdc", "vdz"]);
    }
}
