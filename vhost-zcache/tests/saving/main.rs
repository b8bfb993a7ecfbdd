// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What guests have is saved at the daemon's end, and taken back by the next one.

#[path = "../client/mod.rs"]
mod client;

mod deaths;
mod host;
mod refusals;
mod returns;
