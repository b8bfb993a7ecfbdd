// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Answers the VMM's messages on one connection.
//!
//! All of it runs on the connection's thread. It waits for a queue's thread only to stop it, and
//! never to answer a read of the configuration space, during which QEMU stands still.

use std::fs::File;
use std::io;
use std::sync::Arc;

use log::debug;
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::guest::{Connected, GuestSocket};
use super::log_limit::Occasion;
use super::memory_table::MemoryTable;
use super::vring::{Addresses, Settings, Vring};
use super::worker::queue::{QueueSetup, QueueWorker};
use crate::device::config_space::ConfigSpace;
use crate::device::execute::Executor;
use crate::device::ring::MAX_QUEUE_SIZE;
use crate::device::session::Session;

/// Virtio features offered to every VMM.
pub const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// Protocol features offered to every VMM. QEMU aborts when STATUS or SHMEM is, and an inflight
/// region would say nothing that the used index does not.
pub const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// State of one connection.
pub struct Backend {
    // Declared, and so dropped, before the memory they use.
    vrings: Vec<Vring>,
    memory: MemoryTable,
    guest: Arc<GuestSocket>,
    session: Arc<Session>,
    config_space: ConfigSpace,
    acked_features: u64,
}

impl Backend {
    /// The state of a new connection.
    #[must_use]
    pub fn new(guest: Arc<GuestSocket>, connected: &Connected<'_>) -> Self {
        let config_space = guest.config_space();
        let memory = MemoryTable::new(connected.memory().clone(), guest.memory_budget());
        Self {
            vrings: guest.queues().iter().map(|_| Vring::unset()).collect(),
            memory,
            guest,
            session: Arc::clone(connected.session()),
            config_space,
            acked_features: 0,
        }
    }

    fn acked(&self, bit: u32) -> bool {
        self.acked_features & (1 << bit) != 0
    }

    /// Changes a ring's settings. A ring that is being served is stopped for that long.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut Settings)) -> Result<()> {
        change(vring(&mut self.vrings, index)?.pause());
        self.resume(index)
    }

    /// Serves a ring if it is to be served.
    fn resume(&mut self, index: u32) -> Result<()> {
        let event_idx = self.acked(VIRTIO_RING_F_EVENT_IDX);
        let memory = self.memory.memory();
        let vring = vring(&mut self.vrings, index)?;
        let Some((layout, kick)) = vring.wants_worker(event_idx) else {
            return Ok(());
        };
        let counters =
            self.guest.queues().get(usize::try_from(index).unwrap_or(usize::MAX)).ok_or(Error::InvalidParam)?;
        let setup = QueueSetup {
            name: format!("Queue {index} of {}", self.guest.name()),
            layout,
            memory,
            kick: kick.try_clone().map_err(Error::ReqHandlerError)?,
            call: Arc::clone(vring.call()),
            executor: Executor::new(Arc::clone(&self.session), Arc::clone(self.guest.epochs()), Arc::clone(counters)),
            counters: Arc::clone(counters),
            log_limit: Arc::clone(self.guest.log_limit()),
        };
        let worker = QueueWorker::start(setup).map_err(Error::ReqHandlerError)?;
        vring.serve(worker);
        Ok(())
    }

    /// Starts every ring anew, with what has changed for all of them.
    fn restart_all(&mut self, change: impl Fn(&mut Settings)) -> Result<()> {
        (0u32..).zip(0..self.vrings.len()).try_for_each(|(index, _)| self.change(index, &change))
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
        if features & !FEATURES != 0 {
            return Err(Error::InvalidParam);
        }
        if features == self.acked_features {
            return Ok(());
        }
        self.acked_features = features;
        // Without protocol features there is no SET_VRING_ENABLE, and rings are enabled.
        let always_enabled = features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0;
        self.restart_all(|ring| ring.enabled |= always_enabled)
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
        self.memory.replace(regions, &files)?;
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
        self.memory.add(region, &file)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        Ok(self.memory.remove(region)?)
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
        let vring = vring(&mut self.vrings, index)?;
        let was_started = vring.is_started();
        let settings = vring.pause();
        settings.kick = None;
        let base = settings.base;
        vring.call().replace(None);
        if was_started && !self.vrings.iter().any(Vring::is_started) {
            debug!("{}: all queues are stopped, the session is over", self.guest.name());
            self.session.end();
        }
        Ok(VhostUserVringState::new(index, base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.change(index.into(), |ring| ring.kick = file)
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        vring(&mut self.vrings, index.into())?.call().replace(file);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _file: Option<File>) -> Result<()> {
        vring(&mut self.vrings, index.into()).map(|_| ())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let vring = vring(&mut self.vrings, index)?;
        if vring.settings().enabled == enable {
            return Ok(());
        }
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
