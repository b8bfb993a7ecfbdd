// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the daemon's processes may still do, and whether it suffices.
//!
//! [`kinds`] has each kind of thread do what it may not; [`usage`] compares all that is done with
//! the rules, and [`table`] the documentation; [`processes`] looks at what the kernel says of the
//! processes.

#[path = "../client/mod.rs"]
mod client;

mod kinds;
mod observer;
mod processes;
mod table;
mod usage;
