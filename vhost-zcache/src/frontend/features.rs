// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Features offered to every VMM, and what is acknowledged of them.

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::device::ring::RingFeatures;

/// Virtio features offered to every VMM.
pub const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | VhostUserVirtioFeatures::LOG_ALL.bits()
    | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// Protocol features offered to every VMM. QEMU aborts when STATUS or SHMEM is, and an inflight
/// region would say nothing that the used index does not.
pub const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    .union(VhostUserProtocolFeatures::LOG_SHMFD)
    .union(VhostUserProtocolFeatures::DEVICE_STATE);

/// Features of which SET_FEATURES has told, for the VMM and the driver in its guest together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged(u64);

impl Acknowledged {
    /// The features that a VMM sends; `None` if one was not offered.
    #[must_use]
    pub fn new(features: u64) -> Option<Self> {
        (features & !FEATURES == 0).then_some(Self(features))
    }

    /// Whether the driver is one for virtio 1, of which alone the rings are served.
    #[must_use]
    pub fn version_1(self) -> bool {
        self.has(VIRTIO_F_VERSION_1)
    }

    /// Whether rings are enabled from the start: without the protocol features there is no
    /// SET_VRING_ENABLE.
    #[must_use]
    pub fn rings_always_enabled(self) -> bool {
        self.0 & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0
    }

    /// Whether what is written to guest memory is logged.
    #[must_use]
    pub fn logs_writes(self) -> bool {
        self.0 & VhostUserVirtioFeatures::LOG_ALL.bits() != 0
    }

    /// What concerns rings.
    #[must_use]
    pub fn of_rings(self) -> RingFeatures {
        RingFeatures { event_idx: self.has(VIRTIO_RING_F_EVENT_IDX), indirect: self.has(VIRTIO_RING_F_INDIRECT_DESC) }
    }

    fn has(self, bit: u32) -> bool {
        self.0 & (1 << bit) != 0
    }
}
