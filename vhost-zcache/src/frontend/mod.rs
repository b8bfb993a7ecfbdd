// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sockets and messages as vhost-user sees them.
//!
//! [`listener`] makes a socket, [`message`] finds the messages of a VMM that has connected, and
//! [`features`] is what it is offered. What a guest may take of the process is in [`budget`], and
//! what it may write to the log in [`log_limit`].
//!
//! The protocol's types are those of the `vhost` crate; [`message`] says why its reader is not
//! used. Its companion `vhost-user-backend` is not used, because it cannot take over a connected
//! socket, ends a queue's thread for good at the first odd kick, and leaks a file descriptor per
//! queue and connection.

pub mod budget;
pub mod features;
pub mod listener;
pub mod log_limit;
pub mod message;
