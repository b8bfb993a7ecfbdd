// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask guest`: one guest with a daemon beside it, interactive or running a script.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use zcache_tests::{
    Artefacts, Console, Daemon, DaemonOptions, Debian, Exit, Installed, Kernel, Modules, Presence, SocketOptions,
    Stream, Vm, VmOptions, fresh_folder, tail,
};

use crate::vmm::{self, Runner};
use crate::{build, size};

/// Boot a guest with the daemon beside it
///
/// Without --run there is a shell on the terminal, and the guest ends when the shell does.
/// With --run the host file SCRIPT is copied into the guest and executed as root, its output
/// is passed on, and the command exits with the script's status (128 + n when signal n killed
/// it, 125 when the guest itself failed).
#[derive(clap::Args)]
#[command(after_long_help = IN_THE_GUEST)]
pub(crate) struct Arguments {
    /// What runs the guest [default: what the kernel is for]
    #[arg(long, value_enum)]
    vmm: Option<Runner>,
    /// The guest's kernel: classic, classic-debug, debian-12, debian-13, debian-13-debug,
    /// debian-13-backports, uml or uml-debug; the debug kernels have KASAN and lockdep
    /// [default: classic, or uml on that VMM]
    #[arg(long)]
    kernel: Option<Kernel>,
    /// Boot Debian from a disk of its own instead, with the guest driver's package installed:
    /// debian-12 or debian-13; log in as root, without a password
    #[arg(long, value_name = "RELEASE", conflicts_with_all = ["kernel", "vmm", "modules"])]
    image: Option<Debian>,
    /// The guest's memory [default: 256M, or 1G with --image]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory: Option<u64>,
    /// Virtual CPUs [default: 2; 1 in user-mode Linux, which with more of them changes swapped
    /// pages]
    #[arg(long)]
    cpus: Option<u8>,
    /// An empty test disk; repeatable [default: one of 1G]
    #[arg(long = "disk", value_name = "SIZE", value_parser = size::parse)]
    disks: Vec<u64>,
    /// Whether the zcache device is there at boot, comes with 'zhost attach', or never
    #[arg(long, value_enum, default_value = "yes")]
    device: Device,
    /// The daemon's memory limit
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    limit: String,
    /// A shared pool the guest may open; repeatable
    #[arg(long, value_name = "UUID")]
    allow_shared: Vec<String>,
    /// Request queues of the device
    #[arg(long, default_value_t = 2)]
    queues: u16,
    /// Whether the driver's modules are loaded before the script runs
    #[arg(long, value_enum, default_value = "auto")]
    modules: ModulesMode,
    /// Stop the script after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// Run this file in the guest
    #[arg(long, value_name = "SCRIPT")]
    run: Option<PathBuf>,
}

/// An interactive guest ends when its user wants it to.
const NO_LIMIT: Duration = Duration::from_secs(u32::MAX as u64);

const IN_THE_GUEST: &str = "\
In the guest:
  /dev/vda              the root disk, read-only; the root folder is writable and forgets
  /dev/vdb, /dev/vdc..  the test disks in the order of --disk, empty, with the serial
                        numbers disk0, disk1.. (/sys/block/vdb/serial)
  /mnt, /mnt1..9        empty folders to mount on
  /payload/modules      zcache.ko (pool table; the hooks on classic kernels), zcache_virtio.ko (transport);
                        on newer kernels than classic dm-zcache.ko (target for clean pages) and zcache_swap.ko (swap disk)
  /payload/bin          test programs, in PATH: swaphog, coherence, ..
  /sys/kernel/debug/zcache  the driver's counters
  bash, fio, dmsetup, mkfs.ext4, mkfs.xfs, mkfs.btrfs, mkfs.ocfs2 and the usual tools are there.
  zhost attach          plug the device in; when this returns, a loaded driver uses it
  zhost detach          pull the device out, also when its daemon is dead
  zhost kill-daemon     kill -9 of the daemon
  zhost kill-worker     kill -9 of the daemon's worker, which the daemon replaces
  zhost restart-daemon  start the daemon anew, empty; the device of the dead one has to be
                        replaced by 'zhost detach' and 'zhost attach', or by 'zhost attach' alone
                        Guests of user-mode Linux notice a dead daemon when it does not answer for 10 s
                        (their kernel warns of it), and have disks called ubdb, ubdc.., to which
                        /dev/vdb, /dev/vdc.. are links.
  zhost stats           one JSON document: attached, disks.vdb.{reads,writes,..}, daemon
The script's environment has ZCACHE_DISKS='/dev/vdb ..', ZCACHE_DEVICE=yes|later|no and
ZCACHE_MODULES=/payload/modules.

With --image, /dev/vda is a disk that the system boots from, with GRUB and its own kernel. It can be rebooted; what
it writes is gone when it is powered off. /payload has package.deb ('mount /payload' if udev was too slow),
and the disk /dev/disk/by-id/virtio-zcache-more those of a newer kernel and of dracut. There is no network.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Device {
    Yes,
    Later,
    No,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModulesMode {
    Auto,
    None,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let script = arguments.run.as_deref().map(read_script).transpose()?;
    let dir = fresh_folder(&format!("guest-{}", std::process::id()))?;
    let status = boot_and_run(arguments, script.as_deref(), &dir);
    if matches!(status, Ok(0)) {
        fs::remove_dir_all(&dir).with_context(|| format!("Cannot remove {}", dir.display()))?;
    } else {
        let console = tail(&dir.join("guest-serial.log"));
        if status.is_err() && script.is_some() && !console.is_empty() {
            eprintln!("The guest's console ends with:\n{console}");
        }
        eprintln!("Logs and counters are in {}", dir.display());
    }
    Ok(ExitCode::from(status?))
}

fn read_script(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("Cannot read the script {}", path.display()))
}

fn boot_and_run(arguments: &Arguments, script: Option<&[u8]>, dir: &Path) -> Result<u8> {
    build::tool()?;
    // Before the daemon, for it may take a while.
    let mut options = match arguments.image {
        Some(debian) => VmOptions::installed("guest", Installed::with_driver(debian)?),
        None => kernel_guest(arguments)?,
    };
    if let Some(memory) = arguments.memory {
        options.memory_mib = u32::try_from(memory >> 20).context("That is too much memory")?;
    }
    options.cpus = arguments.cpus;
    options.disks.clone_from(&arguments.disks);
    if options.disks.is_empty() {
        options.disks.push(1 << 30);
    }
    if script.is_none() {
        options.console = Console::Terminal;
    }
    if arguments.device != Device::No {
        let daemon = Daemon::start(daemon_options(arguments)?, dir)?;
        options = options.daemon(&daemon.into(), 0);
    }
    if arguments.device == Device::Yes {
        options.presence = Presence::ColdPlugged;
    }
    let vm = Vm::boot(options, dir)?;
    if arguments.image.is_some() {
        vm.await_boot()?;
    }
    vm.guest().sh("mkdir -p /mnt /mnt{1..9}")?;
    let Some(script) = script else {
        vm.process().wait(NO_LIMIT)?;
        return Ok(0);
    };
    let status = run_script(&vm, arguments, script)?;
    for line in vm.complaints()? {
        eprintln!("The guest's kernel complained: {line}");
    }
    if status == 0 {
        vm.power_off()?;
    } else {
        vm.keep_evidence();
    }
    Ok(status)
}

fn kernel_guest(arguments: &Arguments) -> Result<VmOptions> {
    let kernel = vmm::kernel(arguments.vmm, arguments.kernel, Kernel::Classic)?;
    Artefacts::get(kernel)?;
    let mut options = VmOptions::new("guest");
    options.kernel = kernel;
    options.modules = match arguments.modules {
        ModulesMode::Auto => Modules::Loaded,
        ModulesMode::None => Modules::NotLoaded,
    };
    Ok(options)
}

fn daemon_options(arguments: &Arguments) -> Result<DaemonOptions> {
    Ok(DaemonOptions {
        binary: build::daemon()?,
        sockets: vec![SocketOptions { memory_limit: None, allow_shared: arguments.allow_shared.clone() }],
        memory_limit: Some(arguments.limit.clone()),
        queues: arguments.queues,
        workers: None,
        die_at: None,
        arguments: Vec::new(),
    })
}

fn run_script(vm: &Vm, arguments: &Arguments, script: &[u8]) -> Result<u8> {
    const PATH: &str = "/root/script";
    vm.guest().push(PATH, 0o755, script)?;
    let disks: Vec<_> = vm.disk_io()?.into_keys().map(|name| format!("/dev/{name}")).collect();
    let device = arguments.device.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    // Bash also takes a script without a first line that names its interpreter.
    let running = vm.guest().spawn_program(&[
        "/usr/bin/env",
        &format!("ZCACHE_DISKS={}", disks.join(" ")),
        &format!("ZCACHE_DEVICE={device}"),
        "ZCACHE_MODULES=/payload/modules",
        "HOME=/root",
        "/bin/bash",
        "-c",
        &format!("cd /root && exec {PATH}"),
    ])?;
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let exit = running.stream(Duration::from_secs(arguments.timeout), |stream, bytes| {
        // Whoever closed our output does not want it; the status still counts.
        let _ = match stream {
            Stream::Out => out.write_all(bytes).and_then(|()| out.flush()),
            Stream::Err => err.write_all(bytes),
        };
    })?;
    let code = match exit {
        Exit::Status(status) => status,
        Exit::Signal(signal) => 128 + signal,
    };
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
