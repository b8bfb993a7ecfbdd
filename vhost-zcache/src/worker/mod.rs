// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The worker: the store and the data path.
//!
//! It owns nothing that cannot be given to the next one. What guests have is in the store's memory
//! and in the ledger; sockets, guest memory and events it has from the keeper, who gives them to
//! the next worker when this one dies, at whatever moment that is.
//!
//! [`start`] makes a store, or makes it again of what the worker before has left, and [`control`]
//! does what the keeper says; an [`errand`] is done beside that, and so is giving memory back when
//! the host is under [`pressure`]. A guest has a [`guest::GuestPlace`] ([`places`] are all of
//! them), and while its VMM is connected a [`device::Device`] with a [`vring`] per queue. While a
//! ring is started and enabled a thread of [`queue`] has it. Whatever changes about it, the guest's
//! memory included, changes while the thread has given it back, so that nothing is done with what
//! was before.

pub mod control;
pub mod device;
pub mod errand;
pub mod guest;
pub mod last_words;
pub mod memory_table;
pub mod places;
pub mod pressure;
pub mod queue;
pub mod sentinel;
pub mod start;
pub mod vring;
