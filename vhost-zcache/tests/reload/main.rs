// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The configuration file is read again while guests are served.
//!
//! [`file`] is such a file, with the sockets beside it.

#[path = "../client/mod.rs"]
mod client;

mod file;
mod guests;
mod limits;
#[path = "../deaths/model.rs"]
#[allow(dead_code, reason = "the tests of the worker's deaths use the rest")]
mod model;
mod refusals;
