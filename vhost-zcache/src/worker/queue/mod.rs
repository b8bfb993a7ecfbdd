// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Threads of the data path.
//!
//! A [`server::IdleServer`] is a thread that gets a ring, serves it ([`service`]) until it is told
//! to stop, and gives it back. What it waits for while it serves are [`event`]s, which belong to
//! the VMM: an [`interrupt`] gets it out of a system call that the VMM has made to block, and a
//! [`backoff`] keeps it from running in circles because of one that is always ready.

pub mod backoff;
pub mod event;
pub mod interrupt;
pub mod server;
pub mod service;
pub mod stop;
