// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Answers the VMM's messages on one connection.
//!
//! All of it runs on the connection's thread. It waits for a queue's thread only to stop it, and
//! never to answer a read of the configuration space, during which QEMU stands still.

use std::fs::File;
use std::io;
use std::sync::Arc;

use log::Level;
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

use super::features::{Acknowledged, FEATURES, PROTOCOL_FEATURES};
use super::guest::{Connected, GuestSocket};
use super::log_limit::Occasion;
use super::memory_table::MemoryTable;
use super::vring::{Addresses, Settings, Vring};
use super::worker::event::PeerEvent;
use crate::device::config_space::ConfigSpace;
use crate::device::ring::MAX_QUEUE_SIZE;

/// State of one connection.
pub struct Backend {
    // Declared, and so dropped, before the memory they use.
    vrings: Vec<Vring>,
    memory: MemoryTable,
    guest: Arc<GuestSocket>,
    config_space: ConfigSpace,
    /// `None` until the VMM has said so.
    features: Option<Acknowledged>,
}

impl Backend {
    /// The state of a new connection.
    #[must_use]
    pub fn new(guest: Arc<GuestSocket>, connected: &Connected<'_>) -> Self {
        let config_space = guest.config_space();
        let memory = MemoryTable::new(connected.memory().clone(), guest.memory_budget());
        let session = connected.session();
        let vrings = guest.queues().iter().enumerate();
        let vrings = vrings
            .map(|(queue, counters)| Vring::unset(queue, Arc::clone(counters), &guest, Arc::clone(session)))
            .collect();
        Self { vrings, memory, guest, config_space, features: None }
    }

    /// Changes a ring's settings. A ring that is being served is paused for that long.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut Settings)) -> Result<()> {
        let vring = vring(&mut self.vrings, index)?;
        change(vring.pause());
        vring.resume(self.features, &self.memory.memory()).map_err(Error::ReqHandlerError)
    }

    /// Changes what concerns all rings, while none is served.
    fn change_all<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        for vring in &mut self.vrings {
            vring.pause();
        }
        let changed = change(self);
        let memory = self.memory.memory();
        // All of them go on that can.
        let resumed: Vec<_> = self.vrings.iter_mut().map(|vring| vring.resume(self.features, &memory)).collect();
        let changed = changed?;
        resumed.into_iter().collect::<io::Result<()>>().map_err(Error::ReqHandlerError)?;
        Ok(changed)
    }

    /// An event that the VMM passes for a ring. One that is none counts as if it had passed none:
    /// the ring is not served, or gives no interrupts, and the connection goes on.
    fn event(&self, index: u8, file: Option<File>) -> Option<Arc<PeerEvent>> {
        PeerEvent::new(file?)
            .map(Arc::new)
            .inspect_err(|error| {
                let text = format_args!("{}: an event of queue {index} is {error}", self.guest.name());
                self.guest.log_limit().log(Level::Warn, text);
            })
            .ok()
    }
}

fn vring(vrings: &mut [Vring], index: u32) -> Result<&mut Vring> {
    usize::try_from(index).ok().and_then(|index| vrings.get_mut(index)).ok_or(Error::InvalidParam)
}

fn not_offered<T>() -> Result<T> {
    Err(Error::InvalidOperation("not offered"))
}

impl VhostUserBackendReqHandlerMut for Backend {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        not_offered()
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let acknowledged = Acknowledged::new(features).ok_or(Error::InvalidParam)?;
        if self.features == Some(acknowledged) {
            return Ok(());
        }
        self.change_all(|device| {
            device.features = Some(acknowledged);
            Ok(())
        })
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(PROTOCOL_FEATURES)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.vrings.len() as u64)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        self.change_all(|device| Ok(device.memory.replace(regions, &files)?))?;
        Ok(None)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(self.memory.max_regions())
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        self.change_all(|device| Ok(device.memory.add(region, &file)?))?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        self.change_all(|device| Ok(device.memory.remove(region)?))
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let size = u16::try_from(num).ok().filter(|size| size.is_power_of_two() && *size <= MAX_QUEUE_SIZE);
        if size.is_none() {
            let text = format_args!("queue {index} cannot have {num} entries, and is not served");
            self.guest.log(Occasion::Placement, text);
        }
        // No ring is served with 0 entries. An error would be no use to QEMU, which does not ask,
        // and would end the virtual machine of Cloud Hypervisor.
        self.change(index, |ring| ring.size = size.unwrap_or(0))
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let place = |vmm_address| self.memory.guest_address(vmm_address);
        let addresses = place(descriptor)
            .zip(place(available))
            .zip(place(used))
            .map(|((descriptors, available), used)| Addresses { descriptors, available, used });
        if addresses.is_none() {
            let missing = if self.memory.is_empty() {
                "the VMM shares no memory; give the virtual machine shared memory (QEMU: share=on of its memory \
                 backend, Cloud Hypervisor: shared=on of --memory) and start it again"
            } else {
                "that is in no memory region"
            };
            let text = format_args!("queue {index} is not served: it is at {descriptor:#x}, but {missing}");
            self.guest.log(Occasion::Placement, text);
        }
        // The ring is left alone. An error here would end the virtual machine.
        self.change(index, |ring| ring.addresses = addresses)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        // Only kept for a ring that is never served: one that is starts at its used index.
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.change(index, |ring| ring.base = base)
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let base = vring(&mut self.vrings, index)?.stop();
        Ok(VhostUserVringState::new(index, base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let kick = self.event(index, file);
        self.change(index.into(), |ring| ring.kick = kick)
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let call = self.event(index, file);
        self.change(index.into(), |ring| ring.call = call)
    }

    fn set_vring_err(&mut self, index: u8, _file: Option<File>) -> Result<()> {
        vring(&mut self.vrings, index.into()).map(|_| ())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.change(index, |ring| ring.enabled = enable)
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Ok(self.config_space.read(offset, size))
    }

    fn set_config(&mut self, _offset: u32, _buf: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        // Read-only; QEMU sends the whole area when the guest writes to it, and an error would
        // end the virtual machine of Cloud Hypervisor.
        Ok(())
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        not_offered()
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        not_offered()
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        not_offered()
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        not_offered()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        not_offered()
    }

    fn check_device_state(&mut self) -> Result<()> {
        not_offered()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        not_offered()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        Err(Error::ReqHandlerError(io::ErrorKind::Unsupported.into()))
    }
}
