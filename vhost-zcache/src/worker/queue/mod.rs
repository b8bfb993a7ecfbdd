// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Threads of the data path.
//!
//! [`reactors`] are threads that get rings and serve many each ([`reactor`]), a turn of one
//! ([`service`]) after a turn of another, until a ring is wanted back. What they are told is in a
//! [`mailbox`]. For how long they look at empty rings is a matter of [`patience`].
//!
//! What they wait for are [`event`]s, which belong to VMMs: an [`interrupt`] gets a reactor out of
//! a system call that a VMM has made to block, after which that guest is served apart from the
//! others ([`conduct`]), and a [`backoff`] keeps it from running in circles because of an event
//! that is always ready.

pub mod backoff;
pub mod conduct;
pub mod event;
pub mod interrupt;
pub mod mailbox;
pub mod patience;
pub mod reactor;
pub mod reactors;
pub mod service;
