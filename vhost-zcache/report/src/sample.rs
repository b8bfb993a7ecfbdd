// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A document in which nothing is left out, for tests.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::latency::{BUCKETS, Histogram, bucket_of};
use crate::{
    BackgroundReport, Contents, Counters, EndedPools, EvictionPolicy, GuestReport, Latencies, PoolKind, PoolReport,
    QueueReport, Refusals, Report, StoreReport,
};

/// A document of so many guests, each with figures of its own. A later `age` has more of
/// everything that is counted.
#[must_use]
pub fn report(guests: u64, age: u64) -> Report {
    Report {
        version: "0.1.0".into(),
        uptime_seconds: age,
        worker_restarts: 1,
        store: StoreReport {
            physical_bytes: 3 << 30,
            memory_limit: 4 << 30,
            index_bytes: 12 << 20,
            reserved_bytes: 2 << 30,
            garbage_bytes: 1 << 20,
            background_failures: 0,
            guests,
            contents: contents(guests * 1000),
            ratio: 3.25,
            background: BackgroundReport {
                compacted_segments: 7 * age,
                cold_tried: 100 * age,
                cold_smaller: 60 * age,
                relief_steps: age,
                relief_bytes: age << 20,
            },
        },
        guests: (1..=guests).map(|number| guest(number, age)).collect(),
    }
}

fn guest(number: u64, age: u64) -> GuestReport {
    let counted = number * age;
    let row = |answers: &[(&str, u64)]| answers.iter().map(|(status, count)| ((*status).to_owned(), *count)).collect();
    GuestReport {
        name: format!("vm-{number:03}"),
        connected: true,
        session: true,
        physical_bytes: number << 20,
        memory_limit: Some(1 << 30),
        reserved_bytes: 512 << 20,
        weight: 100,
        trust_domain: "default".into(),
        wanted_pages: 50 * number,
        taken_back_pages: 7 * counted,
        eviction: EvictionPolicy::Clock,
        contents: contents(number * 1000),
        queues: vec![QueueReport { chains: 30 * counted, requests: 40 * counted, ..QueueReport::default() }; 2],
        requests: BTreeMap::from([
            ("put".to_owned(), row(&[("ok", 25 * counted), ("refused", 10 * counted)])),
            ("get".to_owned(), row(&[("ok", 30 * counted), ("miss", 10 * counted)])),
        ]),
        refused: refusals(counted),
        latency: Latencies { put: histogram(35 * counted, 9_000), get: histogram(40 * counted, 5_000) },
        pools: vec![
            pool(1, PoolKind::Ephemeral, counted),
            pool(2, PoolKind::Ephemeral, counted),
            pool(3, PoolKind::Persistent, counted),
            PoolReport { uuid: Some(Uuid::from_u128(number.into())), ..pool(4, PoolKind::Shared, counted) },
        ],
        ended_pools: EndedPools { ephemeral: counters(counted), persistent: counters(counted) },
        ..GuestReport::default()
    }
}

fn pool(id: u32, kind: PoolKind, counted: u64) -> PoolReport {
    PoolReport { id, kind, uuid: None, contents: contents(250), counters: counters(counted) }
}

fn contents(pages: u64) -> Contents {
    let (same_filled, raw, cold) = (pages / 10, pages / 20, pages / 5);
    Contents { pages, same_filled, raw, cold, compressed_bytes: pages * 1200 }
}

fn counters(counted: u64) -> Counters {
    Counters {
        puts: 35 * counted,
        refused: refusals(counted),
        gets: 40 * counted,
        hits: 30 * counted,
        corrupt: 0,
        flushed: 5 * counted,
        evicted: 2 * counted,
    }
}

fn refusals(counted: u64) -> Refusals {
    let [guest_limit, share, store_full] = [4 * counted, 3 * counted, 2 * counted];
    Refusals { guest_limit, share, store_full, no_memory: counted, frozen: counted }
}

/// So many times around one.
fn histogram(count: u64, ns: u64) -> Histogram {
    let mut counts = [0; BUCKETS];
    let bucket = bucket_of(ns);
    counts[bucket] = count - count / 10;
    counts[bucket + 4] = count / 10;
    Histogram::new(&counts, count * ns)
}
