// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is fuzzed: each target is a function that takes any bytes, and panics if something is
//! wrong.
//!
//! `libfuzzer/` has a program for each, which `cargo xtask fuzz` builds and runs. `corpus/` has for
//! each what was found worth keeping, and the ordinary tests replay it (`tests/replay.rs`). A new
//! target is a module here, a line of [`TARGETS`], a file in `libfuzzer/fuzz_targets/`, and a
//! folder of the corpus.

pub mod arena;
pub mod ledger;
pub mod link;
pub mod message;
pub mod request;
pub mod ring;
pub mod state;
pub mod store;

#[path = "../../vhost-zcache/store/tests/common/mod.rs"]
#[allow(dead_code, reason = "it belongs to the store's tests, which use all of it")]
mod common;
#[path = "../../vhost-zcache/store/tests/oracle/mod.rs"]
#[allow(dead_code, reason = "it belongs to the store's tests, which use all of it")]
mod oracle;

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus and its program.
    pub name: &'static str,
    /// What is done with the bytes.
    pub run: fn(&[u8]),
    /// Most bytes that make sense.
    pub most_bytes: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "arena", run: arena::run, most_bytes: 512 },
    Target { name: "ledger", run: ledger::run, most_bytes: 4096 },
    Target { name: "link", run: link::run, most_bytes: 2048 },
    Target { name: "message", run: message::run, most_bytes: 4096 },
    Target { name: "request", run: request::run, most_bytes: 48 },
    Target { name: "ring", run: ring::run, most_bytes: 2048 },
    Target { name: "state", run: state::run, most_bytes: 8192 },
    Target { name: "store", run: store::run, most_bytes: 2048 },
];
