// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! HTTP for operators, beside a daemon that serves guests.
//!
//! [`http`] asks; [`file`] is the daemon's configuration, with the sockets beside it.

#[path = "../client/mod.rs"]
mod client;
mod crowd;

#[path = "../reload/file.rs"]
#[allow(dead_code, reason = "the tests of reloading use the rest")]
mod file;
mod guests;
mod http;
mod limits;
mod mistakes;
#[path = "../deaths/model.rs"]
#[allow(dead_code, reason = "the tests of the worker's deaths use the rest")]
mod model;
mod schemas;
