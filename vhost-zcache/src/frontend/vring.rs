// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One ring as the VMM sets it up, with the thread that serves it.

use std::fs::File;
use std::sync::Arc;

use super::worker::call::Call;
use super::worker::queue::QueueWorker;
use crate::device::ring::{MAX_QUEUE_SIZE, RingLayout};

/// What the VMM says about a ring. It is *started* while it has a kick event, and *served* while
/// it is started, enabled and placed.
#[derive(Debug)]
pub struct Settings {
    /// Where it is; `None` until the VMM has said so.
    pub addresses: Option<Addresses>,
    /// Number of entries.
    pub size: u16,
    /// Index of the next chain, for the VMM to keep while the ring is stopped.
    pub base: u16,
    /// Event by which the driver kicks.
    pub kick: Option<File>,
    /// Whether the VMM lets the ring run.
    pub enabled: bool,
}

/// A ring. Its settings can be changed only while no thread serves it.
pub struct Vring {
    settings: Settings,
    call: Arc<Call>,
    worker: Option<QueueWorker>,
}

/// Guest-physical addresses of a ring's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
}

impl Vring {
    /// A ring that the VMM has not set up.
    #[must_use]
    pub fn unset() -> Self {
        let settings = Settings { addresses: None, size: MAX_QUEUE_SIZE, base: 0, kick: None, enabled: false };
        Self { settings, call: Arc::default(), worker: None }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The ring's interrupt, which may be changed at any time.
    #[must_use]
    pub fn call(&self) -> &Arc<Call> {
        &self.call
    }

    /// Whether the VMM has started the ring.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.settings.kick.is_some()
    }

    /// Stops serving the ring, and gives its settings to be changed. When this returns nothing is
    /// written to guest memory on behalf of the ring any more.
    pub fn pause(&mut self) -> &mut Settings {
        if let Some(worker) = self.worker.take()
            && let Some(position) = worker.stop()
        {
            self.settings.base = position;
        }
        &mut self.settings
    }

    /// The layout to serve the ring with and its kick event, if it is to be served and is not.
    #[must_use]
    pub fn wants_worker(&self, event_idx: bool) -> Option<(RingLayout, &File)> {
        let addresses = self.settings.addresses?;
        let kick = self.settings.kick.as_ref()?;
        let layout = RingLayout {
            size: self.settings.size,
            descriptors: addresses.descriptors,
            available: addresses.available,
            used: addresses.used,
            event_idx,
        };
        (self.settings.enabled && self.worker.is_none()).then_some((layout, kick))
    }

    /// The ring is served from now on.
    pub fn serve(&mut self, worker: QueueWorker) {
        self.worker = Some(worker);
    }
}

impl Drop for Vring {
    fn drop(&mut self) {
        self.pause();
    }
}
