// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which device is plugged into a running guest.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};

use crate::device::Endpoint;
use crate::guest::Guest;
use crate::machine::Machine;

/// The number of a device that was there at boot.
pub(crate) const COLD: u32 = 0;

/// The place for one zcache device.
#[derive(Debug)]
pub(crate) struct Slot(Mutex<State>);

#[derive(Debug)]
struct State {
    plugged: Option<Plugged>,
    next: u32,
}

/// A device that was plugged in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plugged {
    /// No two devices of a guest's life have the same.
    pub(crate) number: u32,
    /// The process it was connected to, which may have died since.
    pub(crate) backend: i32,
}

impl Slot {
    /// A slot, with the backend of the device of the VMM's command line if there is one.
    pub(crate) fn new(cold_plugged: Option<i32>) -> Self {
        let plugged = cold_plugged.map(|backend| Plugged { number: COLD, backend });
        Self(Mutex::new(State { plugged, next: COLD + 1 }))
    }

    /// Plugs a device in. A device whose backend has died is unplugged first.
    pub(crate) fn attach(&self, machine: &dyn Machine, guest: &Guest, endpoint: &Endpoint) -> Result<()> {
        let mut state = self.lock();
        match state.plugged {
            Some(plugged) if plugged.backend == endpoint.backend => bail!("The device is attached already"),
            Some(plugged) => {
                machine.unplug(guest, plugged)?;
                state.plugged = None;
            }
            None => {}
        }
        let number = state.next;
        state.next += 1;
        machine.plug(guest, number, endpoint)?;
        state.plugged = Some(Plugged { number, backend: endpoint.backend });
        Ok(())
    }

    /// Unplugs the device and waits until it is gone.
    pub(crate) fn detach(&self, machine: &dyn Machine, guest: &Guest) -> Result<()> {
        let mut state = self.lock();
        machine.unplug(guest, state.plugged.context("No device is attached")?)?;
        state.plugged = None;
        Ok(())
    }

    /// Whether a device is plugged in, with or without a living daemon behind it.
    pub(crate) fn is_attached(&self) -> bool {
        self.lock().plugged.is_some()
    }

    /// Whether a device is plugged in whose backend is this process.
    pub(crate) fn is_attached_to(&self, backend: i32) -> bool {
        self.lock().plugged.is_some_and(|plugged| plugged.backend == backend)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
