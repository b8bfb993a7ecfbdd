// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device keeps the numbered sentences of protocol/SPEC.md.
//!
//! Tests of rings and of several guests that stand elsewhere carry the same marker; a test of
//! the protocol crate fails when a sentence has none.

#[path = "../client/mod.rs"]
mod client;

mod chains;
mod device;
mod ordering;
mod pages;
mod pools;
mod sessions;
