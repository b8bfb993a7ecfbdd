// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every metric, with its place in the statistics' document.
//!
//! Values of labels are names of guests, of which there are as many as the operator has set up, and
//! words of the daemon. What a guest chooses, such as the number of a pool, is none: its pools are
//! added up by their kind.

use zcache_report::{EvictionPolicy, GuestReport, PoolKind, QueueReport, Report};

use crate::metric::Kind::{Counter, Gauge, Histogram, Info};
use crate::metric::Unit::{Bytes, Seconds};
use crate::metric::{Kind, Metric, Samples, Unit, Value};

/// All of them, in the order in which they are written.
pub const METRICS: &[Metric] = &[
    metric("zcache_daemon", Info, None, &["version"], "Release of the daemon", |report, out| {
        out.add([report.version.as_str()], true);
    }),
    metric("zcache_uptime", Gauge, Some(Seconds), &[], "Time since the daemon's start", |report, out| {
        out.add([], report.uptime_seconds);
    }),
    metric(
        "zcache_worker_restarts",
        Counter,
        None,
        &[],
        "Workers that were started in place of one before",
        |report, out| out.add([], report.worker_restarts),
    ),
    metric("zcache_store_physical", Gauge, Some(Bytes), &[], "Memory charged to all guests", |report, out| {
        out.add([], report.store.physical_bytes);
    }),
    metric(
        "zcache_store_limit",
        Gauge,
        Some(Bytes),
        &[],
        "Limit of the memory charged to all guests",
        |report, out| out.add([], report.store.memory_limit),
    ),
    metric("zcache_store_index", Gauge, Some(Bytes), &[], "Of the memory charged, that of the index", |report, out| {
        out.add([], report.store.index_bytes);
    }),
    metric(
        "zcache_store_reserved",
        Gauge,
        Some(Bytes),
        &[],
        "Of the limit, what guests can count on for their persistent pages",
        |report, out| out.add([], report.store.reserved_bytes),
    ),
    metric(
        "zcache_store_garbage",
        Gauge,
        Some(Bytes),
        &[],
        "Of the memory charged, that of pools and guests that are gone",
        |report, out| out.add([], report.store.garbage_bytes),
    ),
    metric(
        "zcache_store_compressed",
        Gauge,
        Some(Bytes),
        &[],
        "Stored sizes of all pages, without overhead",
        |report, out| out.add([], report.store.contents.compressed_bytes),
    ),
    metric("zcache_store_pages", Gauge, None, &[], "Pages held", |report, out| {
        out.add([], report.store.contents.pages);
    }),
    metric(
        "zcache_store_same_filled_pages",
        Gauge,
        None,
        &[],
        "Pages held that are of one repeated word",
        |report, out| out.add([], report.store.contents.same_filled),
    ),
    metric("zcache_store_raw_pages", Gauge, None, &[], "Pages held that do not compress", |report, out| {
        out.add([], report.store.contents.raw);
    }),
    metric("zcache_store_cold_pages", Gauge, None, &[], "Pages held in the denser, slower tier", |report, out| {
        out.add([], report.store.contents.cold);
    }),
    metric(
        "zcache_store_ratio",
        Gauge,
        None,
        &[],
        "Bytes of guest pages held per byte of memory charged, 0 when empty",
        |report, out| out.add([], report.store.ratio),
    ),
    metric("zcache_store_guests", Gauge, None, &[], "Guests that are connected", |report, out| {
        out.add([], report.store.guests);
    }),
    metric(
        "zcache_background_failures",
        Counter,
        None,
        &[],
        "Times the store's background failed by a defect, and was started again",
        |report, out| out.add([], report.store.background_failures),
    ),
    metric(
        "zcache_compacted_segments",
        Counter,
        None,
        &[],
        "Segments of memory emptied into holes of others, and given back",
        |report, out| out.add([], report.store.background.compacted_segments),
    ),
    metric(
        "zcache_cold_tried_pages",
        Counter,
        None,
        &[],
        "Pages that had become cold, and were tried with the denser codec",
        |report, out| out.add([], report.store.background.cold_tried),
    ),
    metric(
        "zcache_cold_smaller_pages",
        Counter,
        None,
        &[],
        "Pages that had become cold, and that the denser codec made smaller",
        |report, out| out.add([], report.store.background.cold_smaller),
    ),
    metric(
        "zcache_relief_steps",
        Counter,
        None,
        &[],
        "Times that a host which was short of memory got some back",
        |report, out| out.add([], report.store.background.relief_steps),
    ),
    metric(
        "zcache_relief",
        Counter,
        Some(Bytes),
        &[],
        "Memory that a host which was short of it got",
        |report, out| {
            out.add([], report.store.background.relief_bytes);
        },
    ),
    metric("zcache_guest_connected", Gauge, None, &["guest"], "1 while a VMM is connected", |report, out| {
        of_guests(report, out, |guest| guest.connected);
    }),
    metric("zcache_guest_session", Gauge, None, &["guest"], "1 while the driver has a session", |report, out| {
        of_guests(report, out, |guest| guest.session);
    }),
    metric(
        "zcache_guest_quarantined",
        Gauge,
        None,
        &["guest"],
        "1 when the guest is not served because workers have died of it",
        |report, out| of_guests(report, out, |guest| guest.quarantined),
    ),
    metric(
        "zcache_guest_lost_regions",
        Gauge,
        None,
        &["guest"],
        "Regions of the guest's memory that have gone away under the daemon",
        |report, out| of_guests(report, out, |guest| guest.lost_regions),
    ),
    metric("zcache_guest_physical", Gauge, Some(Bytes), &["guest"], "Memory charged to the guest", |report, out| {
        of_guests(report, out, |guest| guest.physical_bytes);
    }),
    metric(
        "zcache_guest_limit",
        Gauge,
        Some(Bytes),
        &["guest"],
        "Limit of the memory charged to the guest, if it has one of its own",
        |report, out| {
            for guest in &report.guests {
                if let Some(limit) = guest.memory_limit {
                    out.add([guest.name.as_str()], limit);
                }
            }
        },
    ),
    metric(
        "zcache_guest_reserved",
        Gauge,
        Some(Bytes),
        &["guest"],
        "What the guest can count on for its persistent pages",
        |report, out| of_guests(report, out, |guest| guest.reserved_bytes),
    ),
    metric(
        "zcache_guest_weight",
        Gauge,
        None,
        &["guest"],
        "How much ephemeral memory the guest is to have beside others",
        |report, out| of_guests(report, out, |guest| u64::from(guest.weight)),
    ),
    metric("zcache_guest_frozen", Gauge, None, &["guest"], "1 while nothing new is stored", |report, out| {
        of_guests(report, out, |guest| guest.frozen);
    }),
    metric(
        "zcache_guest_wanted_pages",
        Gauge,
        None,
        &["guest"],
        "Persistent pages that the guest is asked to take back",
        |report, out| of_guests(report, out, |guest| guest.wanted_pages),
    ),
    metric(
        "zcache_guest_taken_back_pages",
        Counter,
        None,
        &["guest"],
        "Persistent pages that the guest let go of while it was asked to take some back",
        |report, out| of_guests(report, out, |guest| guest.taken_back_pages),
    ),
    metric(
        "zcache_guest_compressed",
        Gauge,
        Some(Bytes),
        &["guest"],
        "Stored sizes of the guest's pages, without overhead",
        |report, out| of_guests(report, out, |guest| guest.contents.compressed_bytes),
    ),
    metric("zcache_guest_pages", Gauge, None, &["guest"], "Pages of the guest", |report, out| {
        of_guests(report, out, |guest| guest.contents.pages);
    }),
    metric(
        "zcache_guest_same_filled_pages",
        Gauge,
        None,
        &["guest"],
        "Pages of the guest that are of one repeated word",
        |report, out| of_guests(report, out, |guest| guest.contents.same_filled),
    ),
    metric(
        "zcache_guest_raw_pages",
        Gauge,
        None,
        &["guest"],
        "Pages of the guest that do not compress",
        |report, out| of_guests(report, out, |guest| guest.contents.raw),
    ),
    metric(
        "zcache_guest_cold_pages",
        Gauge,
        None,
        &["guest"],
        "Pages of the guest in the denser, slower tier",
        |report, out| of_guests(report, out, |guest| guest.contents.cold),
    ),
    metric(
        "zcache_guest_eviction",
        Gauge,
        None,
        &["guest", "policy"],
        "1 for how the guest's ephemeral pages make room for others at the moment",
        |report, out| {
            for guest in &report.guests {
                for policy in EvictionPolicy::ALL {
                    out.add([guest.name.as_str(), policy.name()], guest.eviction == policy);
                }
            }
        },
    ),
    metric("zcache_guest_queues", Gauge, None, &["guest"], "Queues of the guest's device", |report, out| {
        of_guests(report, out, |guest| guest.queues.len() as u64);
    }),
    metric(
        "zcache_guest_stopped_queues",
        Gauge,
        None,
        &["guest"],
        "Queues that are not served because their ring made no sense",
        |report, out| of_guests(report, out, |guest| of_queues(guest, |queue| queue.stopped.into())),
    ),
    metric("zcache_guest_chains", Counter, None, &["guest"], "Chains put on used rings", |report, out| {
        of_guests(report, out, |guest| of_queues(guest, |queue| queue.chains));
    }),
    metric("zcache_guest_malformed_chains", Counter, None, &["guest"], "Chains that were no batch", |report, out| {
        of_guests(report, out, |guest| of_queues(guest, |queue| queue.malformed_chains));
    }),
    metric("zcache_guest_ring_errors", Counter, None, &["guest"], "Times a ring made no sense", |report, out| {
        of_guests(report, out, |guest| of_queues(guest, |queue| queue.ring_errors));
    }),
    metric(
        "zcache_guest_requests",
        Counter,
        None,
        &["guest", "operation", "status"],
        "Requests answered; those that never happened are left out",
        |report, out| {
            for guest in &report.guests {
                for (operation, row) in &guest.requests {
                    for (status, answers) in row {
                        out.add([guest.name.as_str(), operation, status], *answers);
                    }
                }
            }
        },
    ),
    metric(
        "zcache_guest_refused_puts",
        Counter,
        None,
        &["guest", "reason"],
        "Puts that were refused, over all workers",
        |report, out| {
            for guest in &report.guests {
                for (reason, puts) in guest.refused.by_reason() {
                    out.add([guest.name.as_str(), reason], puts);
                }
            }
        },
    ),
    metric(
        "zcache_guest_request_duration",
        Histogram,
        Some(Seconds),
        &["guest", "operation"],
        "Time from taking a put or get from the ring to its answer being there",
        |report, out| {
            for guest in &report.guests {
                for (operation, times) in guest.latency.by_operation() {
                    out.add([guest.name.as_str(), operation], times);
                }
            }
        },
    ),
    metric("zcache_guest_pools", Gauge, None, &["guest", "kind"], "Pools of the guest", |report, out| {
        of_pools(report, out, |guest, kind| guest.pools_of(kind).count() as u64);
    }),
    metric(
        "zcache_guest_pool_compressed",
        Gauge,
        Some(Bytes),
        &["guest", "kind"],
        "Stored sizes of the pages in the guest's pools, without overhead",
        |report, out| of_pools(report, out, |guest, kind| guest.contents_of(kind).compressed_bytes),
    ),
    metric("zcache_guest_pool_pages", Gauge, None, &["guest", "kind"], "Pages in the guest's pools", |report, out| {
        of_pools(report, out, |guest, kind| guest.contents_of(kind).pages);
    }),
    metric(
        "zcache_guest_pool_same_filled_pages",
        Gauge,
        None,
        &["guest", "kind"],
        "Pages in the guest's pools that are of one repeated word",
        |report, out| of_pools(report, out, |guest, kind| guest.contents_of(kind).same_filled),
    ),
    metric(
        "zcache_guest_pool_raw_pages",
        Gauge,
        None,
        &["guest", "kind"],
        "Pages in the guest's pools that do not compress",
        |report, out| of_pools(report, out, |guest, kind| guest.contents_of(kind).raw),
    ),
    metric(
        "zcache_guest_pool_cold_pages",
        Gauge,
        None,
        &["guest", "kind"],
        "Pages in the guest's pools in the denser, slower tier",
        |report, out| of_pools(report, out, |guest, kind| guest.contents_of(kind).cold),
    ),
    metric(
        "zcache_guest_pool_puts",
        Counter,
        None,
        &["guest", "kind"],
        "Puts, refused ones included",
        |report, out| of_pools(report, out, |guest, kind| guest.counters_of(kind).puts),
    ),
    metric(
        "zcache_guest_pool_refused_puts",
        Counter,
        None,
        &["guest", "kind", "reason"],
        "Puts that were refused",
        |report, out| {
            for guest in &report.guests {
                for kind in PoolKind::ALL {
                    for (reason, puts) in guest.counters_of(kind).refused.by_reason() {
                        out.add([guest.name.as_str(), kind.name(), reason], puts);
                    }
                }
            }
        },
    ),
    metric("zcache_guest_pool_gets", Counter, None, &["guest", "kind"], "Gets", |report, out| {
        of_pools(report, out, |guest, kind| guest.counters_of(kind).gets);
    }),
    metric(
        "zcache_guest_pool_hits",
        Counter,
        None,
        &["guest", "kind"],
        "Gets that found a page, damaged ones included",
        |report, out| of_pools(report, out, |guest, kind| guest.counters_of(kind).hits),
    ),
    metric(
        "zcache_guest_pool_corrupt_gets",
        Counter,
        None,
        &["guest", "kind"],
        "Gets that found the stored page damaged",
        |report, out| of_pools(report, out, |guest, kind| guest.counters_of(kind).corrupt),
    ),
    metric(
        "zcache_guest_pool_flushed_pages",
        Counter,
        None,
        &["guest", "kind"],
        "Pages removed by flushes",
        |report, out| of_pools(report, out, |guest, kind| guest.counters_of(kind).flushed),
    ),
    metric(
        "zcache_guest_pool_evicted_pages",
        Counter,
        None,
        &["guest", "kind"],
        "Pages dropped to make room",
        |report, out| of_pools(report, out, |guest, kind| guest.counters_of(kind).evicted),
    ),
];

const fn metric(
    stem: &'static str,
    kind: Kind,
    unit: Option<Unit>,
    labels: &'static [&'static str],
    help: &'static str,
    find: for<'a> fn(&'a Report, &mut Samples<'a>),
) -> Metric {
    Metric { stem, kind, unit, labels, help, find }
}

/// A sample of each guest.
fn of_guests<'a, V: Into<Value<'a>>>(report: &'a Report, out: &mut Samples<'a>, value: impl Fn(&'a GuestReport) -> V) {
    for guest in &report.guests {
        out.add([guest.name.as_str()], value(guest));
    }
}

/// A sample of each guest's pools of each kind.
fn of_pools<'a>(report: &'a Report, out: &mut Samples<'a>, value: impl Fn(&GuestReport, PoolKind) -> u64) {
    for guest in &report.guests {
        for kind in PoolKind::ALL {
            out.add([guest.name.as_str(), kind.name()], value(guest, kind));
        }
    }
}

/// A figure of all queues of a guest.
fn of_queues(guest: &GuestReport, figure: impl Fn(&QueueReport) -> u64) -> u64 {
    guest.queues.iter().fold(0, |total, queue| total.saturating_add(figure(queue)))
}
