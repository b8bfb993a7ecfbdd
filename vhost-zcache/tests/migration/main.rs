// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest's session and persistent pages move from one daemon to another.
//!
//! The machine itself, its memory and its rings, is the same before and after; the connection is
//! another one, at another daemon.

#[path = "../client/mod.rs"]
mod client;

mod damage;
mod deaths;
mod dirty;
mod guest;
mod misuse;
mod moves;
mod slow;
