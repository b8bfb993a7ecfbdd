// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The vhost-user side of the witness: rings in, ledger, rings out.

use std::io;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VringRwLock, VringT};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT};
use vm_memory::{Bytes, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};
use zcache_protocol::{Batch, Config, Opcode, PAGE_SIZE, Request, RequestHeader, RequestResult};
use zerocopy::{FromBytes, IntoBytes};

use super::ledger::{Ledger, Page, Terms, Waiting};
use super::{Behaviour, locked};

const QUEUES: u16 = 4;
const MAX_BATCH: u16 = 32;

pub(super) type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

pub(super) struct Backend {
    ledger: Arc<Mutex<Ledger>>,
    behaviour: Arc<Mutex<Behaviour>>,
    memory: Arc<Mutex<Option<Memory>>>,
}

impl Backend {
    pub(super) fn new(
        ledger: Arc<Mutex<Ledger>>,
        behaviour: Arc<Mutex<Behaviour>>,
        memory: Arc<Mutex<Option<Memory>>>,
    ) -> Self {
        Self { ledger, behaviour, memory }
    }

    /// Takes and answers what is available on one queue.
    fn serve(&self, queue: usize, vrings: &[VringRwLock<Memory>]) -> Result<()> {
        let memory = locked(&self.memory).as_ref().context("No guest memory")?.memory();
        let vring = &vrings[queue];
        loop {
            vring.disable_notification()?;
            loop {
                let Some(chain) = vring.get_mut().get_queue_mut().iter(memory.clone())?.next() else { break };
                self.answer(queue, vrings, chain)?;
            }
            if !vring.enable_notification()? {
                return Ok(());
            }
        }
    }

    fn answer(&self, queue: usize, vrings: &[VringRwLock<Memory>], chain: Chain) -> Result<()> {
        let head = chain.head_index();
        let readable = read(&chain)?;
        let behaviour = locked(&self.behaviour).clone();
        std::thread::sleep(behaviour.delay);
        if behaviour.silent {
            locked(&self.ledger).held.extend(writable(&chain).map(|buffer| (buffer.addr(), buffer.len())));
            return Ok(());
        }

        let (batch, rest) = Batch::read_from_prefix(&readable).ok().context("No batch header")?;
        let count = usize::from(batch.count.get());
        ensure!(count >= 1 && count <= usize::from(MAX_BATCH), "A batch of {count} requests");
        let (requests, mut pages) = rest.split_at_checked(count * size_of::<Request>()).context("Short batch")?;
        // What waits elsewhere matters to the requests that concern more than one object.
        let concerns_all = |request: &[u8]| {
            [Opcode::Hello, Opcode::PoolDestroy, Opcode::FlushPool]
                .iter()
                .any(|op| request.starts_with(&(*op as u16).to_le_bytes()))
        };
        let wide = requests.chunks(size_of::<Request>()).any(concerns_all);
        let waiting = if wide { waiting(queue, vrings, chain.memory()) } else { Vec::new() };

        let (mut results, mut gets) = (Vec::new(), Vec::new());
        let mut answered_gets = 0;
        for request in requests.chunks(size_of::<Request>()) {
            let request = Request::read_from_bytes(request).ok().context("Short request")?;
            let opcode = Opcode::from_wire(request.header.opcode.get());
            let put = if opcode == Some(Opcode::Put) {
                let (page, rest) = pages.split_at_checked(PAGE_SIZE).context("A PUT without its page")?;
                pages = rest;
                Some(Page::new(page.try_into()?))
            } else {
                None
            };
            let known = if behaviour.forgets_features { 0 } else { behaviour.features };
            let terms = Terms { features: behaviour.features, known, wanted: behaviour.wanted };
            let (mut result, mut page) = locked(&self.ledger).execute(queue, &waiting, terms, &request, put);
            if let Some((_, status)) = behaviour.answer.filter(|(which, _)| Some(*which) == opcode) {
                (result, page) = (RequestResult { status: status.into(), ..RequestResult::default() }, None);
            }
            results.extend_from_slice(result.as_bytes());
            if opcode == Some(Opcode::Get) {
                // What a GET that failed leaves in its page is poison: a driver that looks at it
                // shows (ZC-DRV-5).
                let hit = page.is_some();
                gets.extend_from_slice(page.unwrap_or_else(|| Page::new([0xa5; PAGE_SIZE])).as_slice());
                answered_gets = if hit { gets.len() } else { answered_gets };
            }
        }
        ensure!(pages.is_empty(), "{} readable bytes too many", pages.len());
        let used = u32::try_from(results.len() + answered_gets)?;
        results.extend_from_slice(&gets);
        write(&chain, &results)?;

        // The driver must not have touched what it gave away (ZC-DRV-6).
        if read(&chain)? != readable {
            locked(&self.ledger).violation("ZC-DRV-6", "a readable buffer changed before its chain was used");
        }
        vrings[queue].add_used(head, used)?;
        if vrings[queue].needs_notification()? {
            vrings[queue].signal_used_queue()?;
        }
        Ok(())
    }
}

/// The chains on the other queues that were made available and not taken yet, by queue and by the
/// pool of their first request.
fn waiting(queue: usize, vrings: &[VringRwLock<Memory>], memory: &GuestMemoryMmap) -> Vec<Waiting> {
    let mut found = Vec::new();
    for (other, vring) in vrings.iter().enumerate().filter(|(other, _)| *other != queue) {
        // A copy of the queue, so that looking does not take.
        let Ok(mut copy) = Queue::try_from(vring.get_ref().get_queue().state()) else { continue };
        let Ok(chains) = copy.iter(memory) else { continue };
        for chain in chains {
            let mut head = [0; size_of::<Batch>() + size_of::<RequestHeader>()];
            let first = chain.readable().next();
            if first.is_some_and(|buffer| memory.read_slice(&mut head, buffer.addr()).is_ok())
                && let Ok(header) = RequestHeader::read_from_bytes(&head[size_of::<Batch>()..])
            {
                found.push(Waiting { queue: other, pool: header.pool.get() });
            }
        }
    }
    found
}

fn readable(chain: &Chain) -> impl Iterator<Item = Descriptor> {
    chain.clone().readable()
}

fn writable(chain: &Chain) -> impl Iterator<Item = Descriptor> {
    chain.clone().writable()
}

fn read(chain: &Chain) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for buffer in readable(chain) {
        let at = bytes.len();
        bytes.resize(at + buffer.len() as usize, 0);
        chain.memory().read_slice(&mut bytes[at..], buffer.addr())?;
    }
    Ok(bytes)
}

fn write(chain: &Chain, mut bytes: &[u8]) -> Result<()> {
    for buffer in writable(chain) {
        let (now, later) = bytes.split_at(bytes.len().min(buffer.len() as usize));
        chain.memory().write_slice(now, buffer.addr())?;
        bytes = later;
    }
    ensure!(bytes.is_empty(), "No room for {} bytes of the answer", bytes.len());
    Ok(())
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = VringRwLock<Memory>;

    fn num_queues(&self) -> usize {
        usize::from(QUEUES)
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        1 << virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1
            | vhost::vhost_user::VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        locked(&self.ledger).config_reads += 1;
        let behaviour = locked(&self.behaviour).clone();
        let config = Config {
            magic: behaviour.magic.into(),
            version: behaviour.version.into(),
            features: behaviour.features.into(),
            num_queues: u32::from(QUEUES).into(),
            max_batch: u32::from(MAX_BATCH).into(),
            max_pools: 64.into(),
            page_size: 4096.into(),
            reserved: 0.into(),
        };
        let zeros = std::iter::repeat(0);
        config.as_bytes().iter().copied().chain(zeros).skip(offset as usize).take(size as usize).collect()
    }

    fn set_config(&self, _offset: u32, _bytes: &[u8]) -> io::Result<()> {
        locked(&self.ledger).config_writes += 1;
        Ok(())
    }

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        *locked(&self.memory) = Some(memory);
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(&self, event: u16, _: EventSet, vrings: &[Self::Vring], _: usize) -> io::Result<()> {
        // An error ends the thread that serves the rings, so it becomes a finding instead.
        if let Err(error) = self.serve(usize::from(event), vrings) {
            locked(&self.ledger).violation("format", format_args!("{error:#}"));
        }
        Ok(())
    }
}
