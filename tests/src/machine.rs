// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What runs a guest: how its device comes and goes, and what its disks have done.

use std::fmt::Debug;
use std::os::unix::net::UnixStream;

use anyhow::Result;

use crate::device::Endpoint;
use crate::guest::Guest;
use crate::process::Process;
use crate::qmp::Qmp;
use crate::vm::DiskIo;

/// One kind of virtual machine.
pub(crate) trait Machine: Debug + Send + Sync {
    /// Plugs a device in.
    fn attach(&self, guest: &Guest, endpoint: &Endpoint) -> Result<()>;

    /// Unplugs the device and waits until it is gone.
    fn detach(&self, guest: &Guest) -> Result<()>;

    /// Whether a device is plugged in, with or without a living daemon behind it.
    fn is_attached(&self) -> bool;

    /// Whether a device is plugged in whose backend is this process.
    fn is_attached_to(&self, backend: i32) -> bool;

    /// What a test disk has done; `name` is the guest's.
    fn disk_io(&self, guest: &Guest, name: &str) -> Result<DiskIo>;

    /// The monitor, if there is one.
    fn qmp(&self) -> Option<&Qmp>;

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
}
