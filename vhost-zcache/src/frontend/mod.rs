// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sockets, connections and rings as vhost-user sees them.
//!
//! Each socket belongs to one [`guest::GuestSocket`], served by one thread: [`listener`] makes
//! the socket, [`connection`] talks to one VMM at a time, [`message`] finds its messages,
//! [`dispatch`] passes them on, [`backend`] carries them out and keeps the [`memory_table`] and a
//! [`vring`] per queue. What a guest may take of the process is in [`budget`]. While a ring is
//! started and enabled a [`worker::queue`] thread owns it; stopping the ring joins the thread, so
//! that nothing is written to guest memory afterwards.
//!
//! The protocol's types are those of the `vhost` crate; [`message`] says why its reader is not
//! used. Its companion `vhost-user-backend` is not used, because it cannot take over a connected
//! socket, ends a queue's thread for good at the first odd kick, and leaks a file descriptor per
//! queue and connection.

pub mod backend;
pub mod budget;
pub mod connection;
pub mod dispatch;
pub mod guest;
pub mod listener;
pub mod log_limit;
pub mod memory_table;
pub mod message;
pub mod vring;
pub mod worker;
