// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ceiling: a device that copies a page for each request and does nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::{self, JoinHandle};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, poll};
use vmm_sys_util::eventfd::EventFd;
use zcache_protocol::PAGE_SIZE;

use super::queue::{ENTRIES, QUEUE_BYTES, Queue, borrow};
use super::shared::Shared;

/// How it learns of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Poll,
    Kick,
}

/// Such a device, in a thread of this process.
pub(super) struct Bare {
    pub(super) queue: Queue,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread has of the queue.
struct Server {
    memory: Arc<Shared>,
    kick: EventFd,
    call: EventFd,
    slots: usize,
    available_ring: usize,
    used_ring: usize,
    served: u16,
}

impl Bare {
    pub(super) fn start(mode: Mode) -> Result<Self> {
        let queue = Queue::new(Arc::new(Shared::new(QUEUE_BYTES)?), 0)?;
        let mut server = Server {
            memory: Arc::clone(&queue.memory),
            kick: queue.kick.try_clone()?,
            call: queue.call.try_clone()?,
            slots: queue.slot(0),
            available_ring: queue.available_ring(),
            used_ring: queue.used_ring(),
            served: 0,
        };
        let over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let over = Arc::clone(&over);
            move || {
                while !over.load(Ordering::Relaxed) {
                    match mode {
                        Mode::Poll => server.serve(),
                        Mode::Kick => server.sleep_and_serve(),
                    }
                }
            }
        });
        Ok(Self { queue, over, thread: Some(thread) })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.queue.kick.write(1);
        self.thread.take().map(JoinHandle::join);
    }
}

impl Server {
    fn serve(&mut self) {
        while self.memory.load(self.available_ring + 2) != self.served {
            let place = usize::from(self.served % ENTRIES);
            let head = self.memory.load(self.available_ring + 4 + 2 * place);
            let slot = self.slots + usize::from(head / 2) * 4 * PAGE_SIZE;
            self.memory.copy(slot, slot + 2 * PAGE_SIZE, PAGE_SIZE);
            self.memory.store(slot + 2 * PAGE_SIZE, 0);
            self.memory.store(self.used_ring + 4 + 8 * place, head);
            self.served = self.served.wrapping_add(1);
            self.memory.store(self.used_ring + 2, self.served);
            fence(Ordering::SeqCst);
            if self.memory.load(self.available_ring + 4 + 2 * usize::from(ENTRIES)) == self.served.wrapping_sub(1) {
                let _ = self.call.write(1);
            }
        }
        std::hint::spin_loop();
    }

    fn sleep_and_serve(&mut self) {
        self.memory.store(self.used_ring + 4 + 8 * usize::from(ENTRIES), self.served);
        fence(Ordering::SeqCst);
        if self.memory.load(self.available_ring + 2) == self.served {
            let _ = poll(&mut [PollFd::from_borrowed_fd(borrow(&self.kick), PollFlags::IN)], None);
            let _ = self.kick.read();
        }
        self.serve();
    }
}
