// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A second device, written from SPEC.md and not from the daemon, that holds a
//! real guest's driver to the rules of the specification.
//!
//! It answers as the specification says, or misbehaves as a test asks
//! ([`Behaviour`]), and writes down every request, every access to the
//! configuration space and every broken rule ([`Ledger`]).

mod backend;
mod ledger;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{Bytes, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use zcache_protocol::Opcode;

pub use ledger::{Ledger, Seen};

/// How the device departs from the specification.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// First word of the configuration space.
    pub magic: u32,
    /// Second word of the configuration space.
    pub version: u32,
    /// Features that are offered.
    pub features: u32,
    /// A HELLO that acknowledges any of these is refused, as by a device that knows of none.
    pub forgets_features: bool,
    /// Answer to WANTED: pages, and milliseconds until the next.
    pub wanted: (u32, u32),
    /// Requests of this opcode are not executed but answered with this status.
    pub answer: Option<(Opcode, u16)>,
    /// Chains are taken and never answered.
    pub silent: bool,
    /// How long the device thinks about each chain.
    pub delay: Duration,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            magic: zcache_protocol::MAGIC,
            version: zcache_protocol::VERSION,
            features: zcache_protocol::F_TAKE_BACK,
            forgets_features: false,
            wanted: (0, 500),
            answer: None,
            silent: false,
            delay: Duration::ZERO,
        }
    }
}

/// A running witness device on a socket; it serves one connection after the other.
pub struct Witness {
    ledger: Arc<Mutex<Ledger>>,
    behaviour: Arc<Mutex<Behaviour>>,
    memory: Arc<Mutex<Option<backend::Memory>>>,
    socket: PathBuf,
    _server: JoinHandle<()>,
}

impl Witness {
    /// Listens on `socket`; the VMM may connect as soon as this returns.
    pub fn start(socket: &Path, behaviour: Behaviour) -> Result<Self> {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let behaviour = Arc::new(Mutex::new(behaviour));
        let memory = Arc::new(Mutex::new(None));
        let mut listener = vhost::vhost_user::Listener::new(socket, true)
            .with_context(|| format!("The witness cannot listen on {}", socket.display()))?;
        let server = {
            let (ledger, behaviour, guest) = (ledger.clone(), behaviour.clone(), memory.clone());
            std::thread::Builder::new().name("witness".into()).spawn(move || {
                loop {
                    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
                    let backend = Arc::new(backend::Backend::new(ledger.clone(), behaviour.clone(), guest.clone()));
                    let Ok(mut daemon) = VhostUserDaemon::new("witness".into(), backend, memory) else { return };
                    if daemon.start(&mut listener).is_err() {
                        return;
                    }
                    // However a connection ends, the next one starts afresh.
                    let _ = daemon.wait();
                }
            })?
        };
        Ok(Self { ledger, behaviour, memory, socket: socket.to_owned(), _server: server })
    }

    /// Path of the socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Changes what the device does from the next chain on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut locked(&self.behaviour));
    }

    /// Writes garbage into every device-writable buffer of the chains that a silent device holds,
    /// the late answer of a device that the driver gave up on, and says how many buffers those
    /// were.
    ///
    /// # Errors
    ///
    /// A buffer is not in the guest's memory.
    pub fn scribble(&self) -> Result<usize> {
        let memory = locked(&self.memory).as_ref().context("No guest is connected")?.memory();
        let held = std::mem::take(&mut self.ledger().held);
        for (address, length) in &held {
            memory.write_slice(&vec![0xdb; *length as usize], *address)?;
        }
        Ok(held.len())
    }

    /// What the device saw so far.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        locked(&self.ledger)
    }
}

/// The ledger stays readable when a serving thread panicked: the test then reports what it holds.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
