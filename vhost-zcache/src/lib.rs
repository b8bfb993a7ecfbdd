// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A vhost-user back-end that gives virtual machines transcendent memory: it keeps the pages
//! their kernels evict, compressed, in memory of the host.
//!
//! | module | what it is |
//! |---|---|
//! | [`args`] | the command line |
//! | [`access`] | who may connect to a socket |
//! | [`daemon`] | start, control plane, end |
//! | [`frontend`] | sockets, connections and rings; knows vhost-user |
//! | [`device`] | chains and requests; knows virtio |
//! | [`admin`] | statistics |
//! | `zcache-store` (a crate) | pools and pages; knows neither |
//!
//! A request's way is told in [`device`]; a connection's in [`frontend`].

pub mod access;
pub mod admin;
pub mod args;
pub mod daemon;
pub mod device;
pub mod error;
pub mod frontend;
