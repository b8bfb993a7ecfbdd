// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The keeper dies or is replaced, and a guest notices a pause.
//!
//! [`manager`] is a service manager as systemd is one: it keeps the files that the daemon gives it,
//! and gives them to the next.

#[path = "../client/mod.rs"]
mod client;

mod conversation;
mod deaths;
mod manager;
#[path = "../deaths/model.rs"]
#[allow(dead_code, reason = "the tests of the worker's deaths use the rest")]
mod model;
mod refusals;
mod reload;
mod saving;
