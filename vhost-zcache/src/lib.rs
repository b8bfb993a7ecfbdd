// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A vhost-user back-end that gives virtual machines transcendent memory: it keeps the pages
//! their kernels evict, compressed, in memory of the host.
//!
//! | module | what it is |
//! |---|---|
//! | [`args`] | the command line |
//! | [`config`] | what the operator wants, from there and from a file |
//! | [`access`] | who may connect to a socket |
//! | [`keeper`] | the process that stays: sockets, connections, what VMMs have said |
//! | [`frontend`] | sockets and messages; knows vhost-user |
//! | [`link`] | what keeper and worker say to each other |
//! | [`ledger`] | what one worker leaves to the next |
//! | [`worker`] | the process that may die: rings, threads, the store |
//! | [`device`] | chains and requests; knows virtio |
//! | [`device_state`] | a guest's session and pages on their way to another daemon |
//! | [`saving`] | what guests have, in files from one daemon to the next |
//! | [`admin`] | statistics |
//! | [`spawner`] | the process that starts workers for the keeper |
//! | [`sandbox`] | what each of them may do |
//! | [`crash`] | where tests have a worker die |
//! | [`crash_report`] | files that say why one has died |
//! | `zcache-store` (a crate) | pools and pages; knows neither |
//!
//! A request's way is told in [`device`], a connection's in [`keeper`]; `docs/keeper.md` says why a
//! worker may die at any moment.

pub mod access;
pub mod admin;
pub mod args;
pub mod config;
pub mod crash;
pub mod crash_report;
pub mod device;
pub mod device_state;
pub mod error;
pub mod frontend;
pub mod keeper;
pub mod ledger;
pub mod link;
pub mod sandbox;
pub mod saving;
pub mod spawner;
pub mod worker;
