// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How often the device allocates memory for a request: it is a part of this thread here.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use vhost_zcache::device::batch::Batch;
use vhost_zcache::device::chain::Chain;
use vhost_zcache::device::execute::Executor;
use vhost_zcache::device::guest_memory::Memory;
use vhost_zcache::device::guest_region::GuestRegion;
use vhost_zcache::device::ring::{Ring, RingFeatures, RingPlace};
use vhost_zcache::device::session::Session;
use vhost_zcache::ledger::Ledger;
use vm_memory::GuestAddress;
use zcache_protocol::{PAGE_SIZE, Request, Status};
use zcache_store::{Background, GuestConfig, Page, Store, StoreConfig};

use super::device::{get, hello, pool, put};
use super::queue::{ENTRIES, QUEUE_BYTES, Queue};
use super::shared::Shared;

/// A device without its reactor.
struct Device {
    memory: Memory,
    ring: Ring,
    executor: Executor,
    chain: Chain,
    batch: Batch,
    allocations: u64,
}

impl Device {
    /// Serves the chain that is there, and counts.
    fn serve(&mut self) -> Result<()> {
        let mut served = Ok(());
        let counted = allocation_counter::measure(|| served = self.serve_one());
        self.allocations += counted.count_total;
        served
    }

    fn serve_one(&mut self) -> Result<()> {
        self.ring.disable_kicks(&self.memory)?;
        let head = self.ring.take(&self.memory, &mut self.chain)?.context("no chain is there")?;
        self.executor.queue().take(head.index);
        let served = self.batch.serve(&self.memory, &self.chain, &self.executor, 0)?;
        self.ring.complete(&self.memory, head, served.written)?;
        self.executor.queue().complete();
        self.ring.needs_notification(&self.memory)?;
        Ok(())
    }
}

/// Allocations for a request, of as many puts that replace a page as gets.
pub(super) fn per_request(pages: &[Page]) -> Result<f64> {
    let shared = Arc::new(Shared::new(QUEUE_BYTES)?);
    let region = GuestRegion::map(shared.file(), 0, GuestAddress(0), QUEUE_BYTES as u64)?;
    let memory = Memory::from_regions(vec![region])?;
    let mut queue = Queue::new(Arc::clone(&shared), 0)?;
    let place = RingPlace {
        size: ENTRIES,
        descriptors: queue.descriptors() as u64,
        available: queue.available_ring() as u64,
        used: queue.used_ring() as u64,
    };
    let ring = Ring::start(place, RingFeatures { event_idx: true, indirect: false }, &memory)?;
    let (ledger, _) = Ledger::create(1, 1)?;
    let store = Store::new(StoreConfig { background: Background::Manual, ..StoreConfig::new(1 << 30) })?;
    let session = Session::new(store.register_guest(GuestConfig::new("bench")), Vec::new(), ledger.session(0), 1);
    let executor = Executor::new(Arc::new(session), &ledger.queues(0)[0]);
    let (chain, batch) = (Chain::default(), Batch::default());
    let mut device = Device { memory, ring, executor, chain, batch, allocations: 0 };
    let mut ask = |request: &Request, page: Option<&[u8; PAGE_SIZE]>| -> Result<u64> {
        queue.submit(request, page)?;
        device.serve()?;
        let used = queue.poll().context("a chain was not used")?;
        ensure!(used.status == Status::Ok as u16, "{} was answered with {}", queue.asked(used.slot), used.status);
        Ok(device.allocations)
    };
    ask(&hello(), None)?;
    ask(&pool(), None)?;
    let mut round = || {
        pages.iter().enumerate().try_fold(0, |_, (number, page)| {
            ask(&put(number), Some(page))?;
            ask(&get(number), None)
        })
    };
    // What grows with what is stored has grown after the first one.
    let before = round()?;
    let after = round()?;
    Ok((after - before) as f64 / (2 * pages.len()) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_allocate_nothing() {
        let mut pages = vec![[0; PAGE_SIZE]; 1024];
        for (number, page) in pages.iter_mut().enumerate() {
            for (at, byte) in page.iter_mut().enumerate() {
                *byte = u8::try_from((at * at + number * 31) / 3 % 251).unwrap_or(0) >> (number % 5);
            }
        }
        // Tables that grow with what is stored may still do so.
        let allocations = per_request(&pages).expect("the device answers");
        assert!(allocations < 0.01, "{allocations} allocations for a request");
    }
}
