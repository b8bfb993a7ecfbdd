// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Boots real guests against the real daemon.
//!
//! | module | what it is |
//! |---|---|
//! | `scenario` | the frame of every test: time limit, evidence, teardown, kernel log check |
//! | `vm`, `machine`, `slot` | a virtual machine, what its kinds have in common, what is plugged in |
//! | `qemu`, `device`, `qmp` | QEMU: its command line, hot-plug, the monitor |
//! | `uml`, `mconsole` | user-mode Linux: its command line, hot-plug, its management console |
//! | `installed` | Debian systems that boot from their own disk |
//! | `container` | a clean Debian in a container, for packages of the host |
//! | `console` | a guest's serial console, to read and type on |
//! | `power` | stopping, resetting and rebooting a whole machine |
//! | `guest`, `agent`, `window` | commands inside a guest, and the wire protocol beneath |
//! | `load` | scripts that make a guest work and check what it reads |
//! | `zhost` | requests from inside a guest to the host |
//! | `daemon`, `process` | the daemon under test; children that cannot outlive the test |
//! | `stats` | the daemon's statistics, typed |
//! | `continuity` | that a device was never away |
//! | `driver` | the driver's statistics, typed |
//! | `artefacts` | kernel, root disk, QEMU and payload, from `zcache-images` |
//! | `complaints` | what a guest's kernel log must not contain |
//! | `chaos` | everything at once, for a while |
//! | `witness` | a second device that records and checks what the driver does |

mod agent;
mod artefacts;
pub mod chaos;
mod complaints;
mod console;
mod container;
mod continuity;
mod daemon;
mod device;
mod driver;
mod guest;
mod installed;
pub mod load;
mod machine;
mod mconsole;
mod power;
mod process;
mod qemu;
mod qmp;
mod scenario;
mod slot;
mod stats;
mod uml;
mod vm;
mod window;
pub mod witness;
mod zhost;

pub use artefacts::{Artefacts, chaos_daemon_binary, development_daemon_binary, release_daemon_binary, tool_binary};
pub use console::SerialConsole;
pub use container::Container;
pub use continuity::{Continuity, random_ms};
pub use daemon::{Daemon, DaemonOptions, SocketOptions};
pub use device::Endpoint;
pub use driver::{DriverPool, DriverStats};
pub use guest::{Exit, Guest, Output, Running, Stream};
pub use installed::Installed;
pub use process::{Process, describe};
pub use qmp::{EventMark, Qmp};
pub use scenario::{Scenario, fresh_folder, lone_scenario, scenario, target_folder};
pub use stats::{DaemonStats, GuestStats, PoolStats, StoreStats};
pub use vm::{Console, DiskIo, Memory, Modules, Presence, Vm, VmOptions, tail};
pub use zcache_images::{Debian, Kernel, Sabotage, Vmm};
