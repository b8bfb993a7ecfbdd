// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A virtual machine: starting it, its disks' counters, and its end.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use serde_json::{Value, json};
use zcache_images::{Kernel, Sabotage, Vmm};

use crate::agent::{Agent, Conversation, Reply};
use crate::complaints;
use crate::console::SerialConsole;
use crate::daemon::Daemon;
use crate::device::Endpoint;
use crate::guest::Guest;
use crate::installed::Installed;
use crate::machine::{Machine, Started};
use crate::process::Process;
use crate::qmp::Qmp;
use crate::slot::Slot;
use crate::zhost::{self, Answer};
use crate::{qemu, uml};

/// Whether the zcache device is there when the guest boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is on the VMM's command line.
    ColdPlugged,
    /// Nothing is there until [`Vm::attach`].
    Later,
}

/// Whether the guest driver is loaded before anything else happens in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modules {
    /// All modules are loaded as soon as the guest is up.
    Loaded,
    /// The modules lie in `/payload/modules`; nobody has loaded them.
    NotLoaded,
}

/// What the guest's memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// A file that other processes can map, as a vhost-user device needs it.
    Shared,
    /// A file that QEMU maps for itself: `share=off`.
    PrivateFile,
    /// No file at all: what `-m` alone gives.
    Anonymous,
}

/// Where the guest's serial console goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Console {
    /// To `NAME-serial.log`.
    Log,
    /// To this process's terminal, with a shell on it.
    Terminal,
}

/// What to boot.
#[derive(Debug, Clone)]
pub struct VmOptions {
    /// The guest's name in messages and log file names.
    pub name: String,
    /// Boots from this disk; `kernel`, `sabotage` and `modules` then say nothing.
    pub installed: Option<Installed>,
    /// Which kernel.
    pub kernel: Kernel,
    /// What its driver lacks.
    pub sabotage: Option<Sabotage>,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// What that memory is.
    pub memory: Memory,
    /// MiB that can be plugged in later, with [`Vm::plug_memory`].
    pub spare_mib: u64,
    /// Virtual CPUs, or as many as is usual ([`VmOptions::cpus`]).
    pub cpus: Option<u8>,
    /// Sizes of the test disks in bytes: `/dev/vdb`, `/dev/vdc`, ...
    pub disks: Vec<u64>,
    /// The daemon whose socket the zcache device uses, and the number of that socket.
    pub daemon: Option<(Arc<Daemon>, usize)>,
    /// Whether the device is there at boot.
    pub presence: Presence,
    /// Whether the driver is loaded at boot.
    pub modules: Modules,
    /// Whether the device-mapper target puts and gets pages even where that does not pay.
    pub always: bool,
    /// Whether it is to be suspended to memory, from which a kernel that QEMU has entered past its
    /// 16-bit code does not wake up.
    pub suspends: bool,
    /// Where the console goes.
    pub console: Console,
}

impl VmOptions {
    /// A guest of 256 MiB with the driver loaded and no device.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            installed: None,
            kernel: Kernel::Classic,
            sabotage: None,
            memory_mib: 256,
            memory: Memory::Shared,
            spare_mib: 0,
            cpus: None,
            disks: Vec::new(),
            daemon: None,
            presence: Presence::Later,
            modules: Modules::Loaded,
            always: false,
            suspends: false,
            console: Console::Log,
        }
    }

    /// A guest of 1 GiB that boots from its own disk.
    pub fn installed(name: &str, installed: Installed) -> Self {
        let mut options = Self::new(name);
        options.installed = Some(installed);
        options.modules = Modules::NotLoaded;
        options.memory_mib = 1024;
        options
    }

    /// Adds a test disk of so many MiB.
    #[must_use]
    pub fn disk_mib(mut self, size: u64) -> Self {
        self.disks.push(size << 20);
        self
    }

    /// Names the daemon's socket the device will be attached to.
    #[must_use]
    pub fn daemon(mut self, daemon: &Arc<Daemon>, socket: usize) -> Self {
        self.daemon = Some((Arc::clone(daemon), socket));
        self
    }

    /// Virtual CPUs: two unless told otherwise, but one in user-mode Linux. That (as of 7.3) takes
    /// no page from a process while it runs on another CPU: the next write goes to a page that is
    /// somebody else's already (`flush_tlb_page()` only notes it), with or without our driver. So
    /// our kernel is built for one.
    pub fn cpus(&self) -> u8 {
        self.cpus.unwrap_or(match self.kernel.vmm() {
            Vmm::Qemu => 2,
            Vmm::Uml => 1,
        })
    }

    /// How much slower than an ordinary guest this is, at worst. Emulated ones have a neighbour.
    pub fn patience(&self) -> u32 {
        match (&self.installed, self.kernel.is_debug(), self.kernel.vmm()) {
            (Some(_), ..) => 15,
            (None, true, _) => 5,
            (None, false, Vmm::Qemu) => 2,
            (None, false, Vmm::Uml) => 1,
        }
    }
}

/// What one disk has done so far, as the VMM counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DiskIo {
    /// Read requests.
    pub reads: u64,
    /// Write requests.
    pub writes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

/// `zhost` was given something else than what it can do.
#[derive(Debug)]
struct UnknownRequest(String);

impl fmt::Display for UnknownRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zhost takes attach, detach, kill-daemon, restart-daemon or stats, not '{}'", self.0)
    }
}

impl std::error::Error for UnknownRequest {}

/// A running virtual machine. Dropping it kills it.
#[derive(Debug)]
pub struct Vm {
    options: VmOptions,
    guest: Guest,
    machine: Box<dyn Machine>,
    console: Option<SerialConsole>,
    slot: Slot,
    process: Process,
    dir: PathBuf,
    _disks: Vec<File>,
}

impl Vm {
    /// Boots a guest and waits until it takes commands. Its logs go to `dir`.
    pub fn boot(options: VmOptions, dir: &Path) -> Result<Arc<Self>> {
        let disks = create_disks(&options, dir)?;
        let serial = serial_log(&options, dir);
        let cold_plugged = match (options.presence, &options.daemon) {
            (Presence::ColdPlugged, Some((daemon, socket))) => Some(daemon.endpoint(*socket)?),
            (Presence::ColdPlugged, None) => bail!("A device at boot needs a daemon"),
            (Presence::Later, _) => None,
        };
        let paths: Vec<_> = disks.iter().map(path_of).collect();
        let cold_plugged = cold_plugged.as_ref();
        let vmm = if options.installed.is_some() { Vmm::Qemu } else { options.kernel.vmm() };
        let Started { machine, process, agent, host, console } = match vmm {
            Vmm::Qemu => qemu::start(&options, &paths, cold_plugged, &serial, dir)?,
            Vmm::Uml => uml::start(&options, &paths, cold_plugged, &serial)?,
        };
        let agent = Agent::new(agent)?;
        let greeting = agent.greeting()?;
        let limit = Duration::from_secs(60) * options.patience();
        let vm = Arc::new(Self {
            guest: Guest::new(&options.name, agent, limit),
            machine,
            console: console.map(SerialConsole::new).transpose()?,
            slot: Slot::new(cold_plugged.map(|endpoint| endpoint.backend)),
            process,
            dir: dir.to_owned(),
            _disks: disks,
            options,
        });
        vm.await_agent(&greeting)?;
        let weak = Arc::downgrade(&vm);
        zhost::serve(host, move |words| answer(&weak, words));
        if vm.options.modules == Modules::Loaded {
            vm.load_modules()?;
        }
        Ok(vm)
    }

    /// The inside of the guest.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// QEMU's monitor.
    pub fn qmp(&self) -> Result<&Qmp> {
        self.machine.qmp()
    }

    /// The console, of a guest that boots from its own disk.
    pub fn console(&self) -> Result<&SerialConsole> {
        self.console.as_ref().context("Nobody can type on this guest's console")
    }

    /// What was asked for.
    pub fn options(&self) -> &VmOptions {
        &self.options
    }

    /// The folder with the guest's logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The VMM's process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Loads the driver's modules, those that are not loaded yet.
    pub fn load_modules(&self) -> Result<()> {
        let always = u8::from(self.options.always);
        self.guest.sh(&format!(
            "modprobe --quiet dm-mod || true
             for m in zcache zcache_virtio zcache_swap dm-zcache; do
                 [ -d /sys/module/${{m//-/_}} ] || [ ! -e /payload/modules/$m.ko ] || insmod /payload/modules/$m.ko
             done
             always=/sys/module/dm_zcache/parameters/always
             [ ! -e $always ] || echo {always} >$always"
        ))?;
        Ok(())
    }

    /// Plugs in the device of this guest's daemon and waits until a loaded driver uses it.
    pub fn attach(&self) -> Result<()> {
        self.attach_to(&self.daemon_endpoint()?)?;
        if self.guest.has_driver()? {
            self.guest.await_driver_state("attached", Duration::from_secs(30) * self.options.patience())?;
        }
        Ok(())
    }

    /// Plugs in a device with some other backend.
    pub fn attach_to(&self, endpoint: &Endpoint) -> Result<()> {
        self.slot.attach(&*self.machine, &self.guest, endpoint)
    }

    /// Unplugs the device and waits until it is gone, whether or not its daemon lives.
    pub fn detach(&self) -> Result<()> {
        self.slot.detach(&*self.machine, &self.guest)
    }

    /// Plugs in the memory that the guest was not given at first. What becomes of it is the
    /// guest's.
    pub fn plug_memory(&self) -> Result<()> {
        let size = self.options.spare_mib << 20;
        let qmp = self.qmp()?;
        qmp.execute(
            "object-add",
            json!({"qom-type": "memory-backend-memfd", "id": "spare", "size": size, "share": true}),
        )?;
        qmp.execute("device_add", json!({"driver": "pc-dimm", "id": "dimm", "memdev": "spare"}))?;
        Ok(())
    }

    /// Whether the device is plugged in.
    pub fn is_attached(&self) -> bool {
        self.slot.is_attached()
    }

    /// What each test disk has done, by its name in the guest (`vdb`, ...).
    pub fn disk_io(&self) -> Result<BTreeMap<String, DiskIo>> {
        let mut io = BTreeMap::new();
        for index in 0..self.options.disks.len() {
            let name = qemu::disk_name(index);
            let its = self.machine.disk_io(&self.guest, &name)?;
            io.insert(name, its);
        }
        Ok(io)
    }

    /// The daemon's statistics and the disks' counters in one document.
    pub fn stats(&self) -> Result<Value> {
        let daemon = match &self.options.daemon {
            Some((daemon, _)) => daemon.stats().unwrap_or_else(|error| json!({"error": format!("{error:#}")})),
            None => Value::Null,
        };
        Ok(json!({
            "attached": self.is_attached(),
            "disks": self.disk_io()?,
            "daemon": daemon,
        }))
    }

    /// The kernel's complaints so far: one line each, empty when there are none.
    pub fn complaints(&self) -> Result<Vec<String>> {
        Ok(complaints::in_log(&self.guest.sh("dmesg")?))
    }

    /// Ends the guest in good order.
    pub fn power_off(&self) -> Result<()> {
        if self.options.installed.is_some() {
            // It may be killed before its end is told.
            self.guest.spawn("systemctl poweroff")?;
        } else {
            self.guest.agent().power_off()?;
        }
        self.process.wait(Duration::from_secs(30) * self.options.patience())?;
        Ok(())
    }

    /// Writes what is needed to understand a failure into the log folder. What cannot be
    /// had any more is named in the file instead.
    pub fn keep_evidence(&self) {
        let limit = Duration::from_secs(10) * self.options.patience();
        let ask = |script: &str| {
            self.guest.sh_within(script, limit).unwrap_or_else(|error| format!("not available: {error:#}\n"))
        };
        let mut text = String::new();
        match self.stats() {
            Ok(stats) => writeln!(text, "{stats:#}"),
            Err(error) => writeln!(text, "not available: {error:#}"),
        }
        .unwrap_or(());
        let journal = "command -v journalctl >/dev/null || exit 0
             journalctl --no-pager -b; systemctl --no-pager list-jobs; systemctl --no-pager --failed; lsblk";
        for (what, contents) in [
            ("stats.json", text),
            ("journal.txt", ask(journal)),
            ("dmesg.txt", ask("dmesg")),
            (
                "zcache.txt",
                ask("cd /sys/kernel/debug/zcache && find . -type f | sort | while read -r f; do
                         echo \"== $f\"; cat \"$f\"
                     done
                     cat /proc/meminfo /proc/swaps /proc/mounts"),
            ),
        ] {
            let path = self.dir.join(format!("{}-{what}", self.options.name));
            if let Err(error) = fs::write(&path, contents) {
                eprintln!("Cannot keep {}: {error}", path.display());
            }
        }
    }

    /// Waits until the agent of a guest that boots greets.
    pub(crate) fn await_agent(&self, greeting: &Conversation) -> Result<()> {
        let limit = Duration::from_secs(60) * self.options.patience();
        let greeted = match greeting.next(limit) {
            Ok(Some(Reply::Hello(_))) => Ok(()),
            Ok(Some(other)) => Err(anyhow!("The agent greets with {other:?}")),
            Ok(None) => Err(anyhow!("No agent after {limit:?}")),
            Err(error) => Err(error),
        };
        greeted.with_context(|| {
            let serial = serial_log(&self.options, &self.dir);
            format!("{} does not come up; its console ends with:\n{}", self.options.name, tail(&serial))
        })
    }

    fn daemon(&self) -> Result<&(Arc<Daemon>, usize)> {
        self.options.daemon.as_ref().context("This guest was started without a daemon")
    }

    fn daemon_endpoint(&self) -> Result<Endpoint> {
        let (daemon, socket) = self.daemon()?;
        daemon.endpoint(*socket)
    }

    /// QEMU 11 aborts when the backend of a device ends that no driver has started
    /// (`memory_region_del_eventfd: Assertion ... failed`). What is to be tested is the
    /// guest, so the device goes first in that case.
    fn spare_qemu(&self) -> Result<()> {
        if self.machine.needs_driver() && self.is_attached() && !self.guest.has_driver()? {
            self.detach()?;
        }
        Ok(())
    }

    fn host_request(&self, words: &[String]) -> Result<String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["attach"] if self.slot.is_attached_to(self.daemon_endpoint()?.backend) => {
                Ok("already attached".to_owned())
            }
            ["attach"] => {
                self.attach()?;
                Ok("attached".to_owned())
            }
            ["detach"] if !self.is_attached() => Ok("not attached".to_owned()),
            ["detach"] => {
                self.detach()?;
                Ok("detached".to_owned())
            }
            ["kill-daemon"] => {
                self.spare_qemu()?;
                self.daemon()?.0.kill()?;
                Ok("killed".to_owned())
            }
            ["kill-worker"] => {
                self.daemon()?.0.kill_worker()?;
                Ok("killed".to_owned())
            }
            ["restart-daemon"] => {
                self.spare_qemu()?;
                self.daemon()?.0.restart()?;
                Ok("restarted".to_owned())
            }
            ["stats"] => Ok(self.stats()?.to_string()),
            _ => bail!(UnknownRequest(words.join(" "))),
        }
    }
}

fn answer(vm: &Weak<Vm>, words: &[String]) -> Answer {
    let Some(vm) = vm.upgrade() else {
        return Answer { status: 1, text: "the guest is being ended\n".to_owned() };
    };
    match vm.host_request(words) {
        Ok(text) => Answer { status: 0, text: text + "\n" },
        Err(error) => {
            let status = if error.is::<UnknownRequest>() { 2 } else { 1 };
            Answer { status, text: format!("{error:#}\n") }
        }
    }
}

fn serial_log(options: &VmOptions, dir: &Path) -> PathBuf {
    dir.join(format!("{}-serial.log", options.name))
}

/// Sparse files that go with their last descriptor.
fn create_disks(options: &VmOptions, folder: &Path) -> Result<Vec<File>> {
    let create = |size: &u64| {
        let disk = tempfile::tempfile_in(folder)?;
        disk.set_len(*size)?;
        Ok::<_, std::io::Error>(disk)
    };
    let disks: std::io::Result<Vec<_>> = options.disks.iter().map(create).collect();
    disks.with_context(|| format!("Cannot create the disks in {}", folder.display()))
}

/// Where a VMM finds a file that has no name, as long as we have it open. QEMU opens a disk once
/// more when a snapshot makes it read-only.
fn path_of(disk: &File) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), disk.as_raw_fd()))
}

/// The last lines of a log; empty when it cannot be read.
#[must_use]
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
