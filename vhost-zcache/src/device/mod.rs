// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The zcache device: from a ring to the store and back. Knows virtio, not vhost-user.
//!
//! The way of one chain:
//!
//! 1. [`ring`] takes the next head from the available ring;
//! 2. [`chain`] follows its descriptors into two lists of buffers;
//! 3. [`batch`] reads the requests once and checks the lengths;
//! 4. [`request`] turns each into a typed [`request::Request`] or refuses it;
//! 5. [`execute`] carries it out in the guest's [`session`] and the store;
//! 6. [`batch`] writes the results and pages, [`ring`] publishes the used entry.
//!
//! A ring ([`ring::Ring`]) is not tied to the thread that serves it, and can be taken back and
//! given to another between two chains. [`comeback`] tells whether one that starts again is the one
//! that stopped, on which the session depends.
//!
//! A process may die at any moment, and another goes on: [`batch`] leaves out the requests of a
//! chain that were carried out, and a [`ticket`] says of one that was begun how it will be
//! answered.
//!
//! [`guest_memory`] is the only module that touches guest memory: everything past it works on
//! owned copies that the guest can no longer change. [`guest_region`] maps it, and
//! [`memory_fault`] survives that it goes away.

pub mod batch;
pub mod chain;
pub mod comeback;
pub mod config_space;
pub mod counters;
pub mod dirty_log;
pub mod execute;
pub mod guest_memory;
pub mod guest_region;
pub mod latency;
pub mod memory_fault;
pub mod request;
pub mod ring;
pub mod session;
pub mod ticket;
