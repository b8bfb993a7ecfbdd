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
mod queues;
mod sessions;
mod wanted;

use client::page;
use client::wire::Req;

/// UUID of a shared pool, and the socket option that allows it.
const UUID: [u8; 16] = [0xab; 16];
const ALLOW: &str = "allow-shared=abababab-abab-abab-abab-abababababab";

/// One well-formed request of each kind that needs the pool to exist; the last destroys it.
fn requests_on(pool: u32) -> Vec<Req> {
    vec![
        Req::put(pool, 1, 1, &page(1)),
        Req::get(pool, 1, 1, 0),
        Req::flush_page(pool, 1, 1),
        Req::flush_range(pool, 1, 1, 1),
        Req::flush_object(pool, 1),
        Req::flush_pool(pool),
        Req::destroy(pool),
    ]
}
