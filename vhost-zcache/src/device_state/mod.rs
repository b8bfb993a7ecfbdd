// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest's session and persistent pages on their way to another daemon: what vhost-user calls the
//! device's state.
//!
//! A VMM that takes a snapshot, or moves its guest, stops all rings, passes a pipe, and reads the
//! state from it ([`save`]) or writes it into it ([`load`]), as a [`stream`] with checksums. A
//! [`transfer`] has a thread of its own, so that a VMM that is slow at its end of the [`pipe`], or
//! does nothing at all, holds up nobody. `docs/device-state.md` says why it is right.

pub mod load;
pub mod pipe;
pub mod save;
pub mod stop;
pub mod stream;
pub mod transfer;

use thiserror::Error;
use zcache_store::{ExportError, ImportError, NoPool, PoolError};

use self::pipe::PipeError;
use self::stream::Damage;
use crate::device::session::handover::{Disturbed, NotEmpty};

/// Why a state was not moved.
#[derive(Debug, Error)]
pub enum TransferError {
    /// The VMM's end of the pipe.
    #[error(transparent)]
    Pipe(#[from] PipeError),
    /// A ring has started meanwhile.
    #[error(transparent)]
    Disturbed(#[from] Disturbed),
    /// What is to be saved is not there as it was stored.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// There is something already.
    #[error(transparent)]
    NotEmpty(#[from] NotEmpty),
    /// What comes is no state.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// A page that comes is none, or there is no room for it.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A pool that comes cannot be had.
    #[error("pool {0} cannot be created: {1}")]
    Pool(u32, PoolError),
    /// The operator has not allowed the guest this shared pool.
    #[error("pool {0} is shared, by a UUID that the guest is not allowed here (allow-shared)")]
    NotAllowed(u32),
    /// The guest uses more queues than there are.
    #[error("the guest uses queue {0}, which there is not here (--queues)")]
    Queue(usize),
}

impl From<NoPool> for TransferError {
    fn from(error: NoPool) -> Self {
        Self::Export(error.into())
    }
}

/// What was moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Pages.
    pub pages: u64,
    /// Bytes of them as they are stored.
    pub bytes: u64,
}
