// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Plugging the zcache device into a running guest and pulling it out.
//!
//! QEMU's generic vhost-user device aborts the VM when its backend reconnects, so the
//! character device never does: the death of a daemon is the death of the device, which
//! then has to be unplugged before a new daemon can be attached.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::qmp::Qmp;
use crate::slot;

/// QEMU's generic vhost-user device.
pub(crate) const DRIVER: &str = "vhost-user-test-device-pci";
/// The PCI Express root port that the device is plugged into.
pub(crate) const PORT: &str = "zport";
/// Names of a device that was there at boot.
pub(crate) const COLD: Names = Names(slot::COLD);

/// The longest unplugging may take: the driver first drains the swap pages the device
/// holds back into the guest. `zhost` itself gives up after 120 s.
pub(crate) const UNPLUG_LIMIT: Duration = Duration::from_secs(110);

/// The names of one plugged device; no two of a guest's life are equal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names(pub(crate) u32);

impl Names {
    pub(crate) fn device(self) -> String {
        format!("zcache{}", self.0)
    }

    pub(crate) fn chardev(self) -> String {
        format!("zchar{}", self.0)
    }
}

/// Where a device's backend is reached.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The backend's listening socket.
    pub socket: PathBuf,
    /// Request queues it serves.
    pub queues: u16,
    /// The process that listens.
    pub backend: i32,
}

/// Bytes of config space that the guest sees; `struct zcache_config` is at their start.
const CONFIG_SIZE: u64 = 64;

/// Properties of the device besides its connection: what the daemon serves, and config
/// space.
pub(crate) fn properties(queues: u16) -> [(&'static str, u64); 4] {
    [
        ("virtio-id", u64::from(zcache_protocol::DEFAULT_VIRTIO_ID)),
        ("num_vqs", u64::from(queues)),
        // The most QEMU takes.
        ("vq_size", 1024),
        ("config_size", CONFIG_SIZE),
    ]
}

/// Plugs a device in.
pub(crate) fn plug(qmp: &Qmp, names: Names, endpoint: &Endpoint) -> Result<()> {
    qmp.execute(
        "chardev-add",
        json!({"id": names.chardev(), "backend": {"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": endpoint.socket}},
            "server": false,
        }}}),
    )?;
    let mut arguments = json!({
        "driver": DRIVER,
        "id": names.device(),
        "bus": PORT,
        "chardev": names.chardev(),
    });
    for (key, value) in properties(endpoint.queues) {
        arguments[key] = Value::from(value);
    }
    if let Err(error) = qmp.execute("device_add", arguments) {
        remove_chardev(qmp, names)?;
        return Err(error);
    }
    Ok(())
}

/// Unplugs a device and waits until it is gone.
pub(crate) fn unplug(qmp: &Qmp, names: Names) -> Result<()> {
    let device = names.device();
    let mark = qmp.mark();
    qmp.execute("device_del", json!({"id": device}))?;
    // Two DEVICE_DELETED come; the one of the inner virtio device names no device, and
    // the character device is busy until the other one.
    let deleted = qmp
        .wait_event(mark, UNPLUG_LIMIT, |event, data| {
            let ours = data["device"] == device.as_str();
            match event {
                "DEVICE_DELETED" if ours => Some(true),
                "DEVICE_UNPLUG_GUEST_ERROR" if ours => Some(false),
                _ => None,
            }
        })
        .context("The guest does not give the device up")?;
    if !deleted {
        bail!("The guest refuses to give the device up");
    }
    remove_chardev(qmp, names)
}

fn remove_chardev(qmp: &Qmp, names: Names) -> Result<()> {
    qmp.execute("chardev-remove", json!({"id": names.chardev()}))?;
    Ok(())
}
