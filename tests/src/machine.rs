// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What runs a guest: how its device comes and goes, and what its disks have done.

use std::fmt::Debug;
use std::os::unix::net::UnixStream;

use anyhow::Result;

use crate::device::Endpoint;
use crate::guest::Guest;
use crate::process::Process;
use crate::qmp::Qmp;
use crate::slot::Plugged;
use crate::vm::DiskIo;

/// One kind of virtual machine.
pub(crate) trait Machine: Debug + Send + Sync {
    /// Plugs device `number` in.
    fn plug(&self, guest: &Guest, number: u32, endpoint: &Endpoint) -> Result<()>;

    /// Unplugs a device and waits until it is gone.
    fn unplug(&self, guest: &Guest, plugged: Plugged) -> Result<()>;

    /// What a test disk has done; `name` is the guest's.
    fn disk_io(&self, guest: &Guest, name: &str) -> Result<DiskIo>;

    /// QEMU's monitor; only a machine of QEMU's has one.
    fn qmp(&self) -> Result<&Qmp>;

    /// Whether the machine ends together with the backend of a device that no driver uses.
    fn needs_driver(&self) -> bool;
}

/// A machine that has been started, and the ways into its guest.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) machine: Box<dyn Machine>,
    pub(crate) process: Process,
    /// Connected to the guest's agent.
    pub(crate) agent: UnixStream,
    /// Connected to the guest's `zhost`.
    pub(crate) host: UnixStream,
    /// Connected to the guest's console, if somebody may type there.
    pub(crate) console: Option<UnixStream>,
}
