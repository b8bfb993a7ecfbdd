// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the statistics say of what guests do.

mod client;

use client::daemon::Daemon;
use client::wire::{PERSISTENT, Req, status};
use client::{Client, eventually, page};
use rustix::process::Signal;
use zcache_report::{GuestReport, Histogram, PoolKind, Report};

fn report(daemon: &Daemon) -> Report {
    serde_json::from_value(daemon.stats()).expect("the document is of the types that tools have")
}

fn guest_report(daemon: &Daemon) -> GuestReport {
    report(daemon).guests.remove(0)
}

/// A histogram's answers, if it is true to itself.
fn answers(histogram: &Histogram) -> u64 {
    assert_eq!(histogram.count, histogram.buckets.iter().map(|bucket| bucket.count).sum::<u64>());
    assert_eq!(histogram.sum_ns > 0, histogram.count > 0, "{histogram:?}");
    histogram.count
}

#[test]
fn every_put_and_get_has_its_time_counted_over_workers() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    assert_eq!(guest.get(1, 1, 2), Err(status::MISS));
    // All requests of a chain.
    guest.submit(1, &[Req::get(1, 1, 1, 0), Req::put(1, 1, 2, &page(2)), Req::get(1, 1, 2, 0)]);
    eventually("all answers are counted", || guest_report(&daemon).latency.get.count == 3);
    let latency = guest_report(&daemon).latency;
    assert_eq!((answers(&latency.put), answers(&latency.get)), (2, 3));

    daemon.signal_worker(Signal::KILL);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    eventually("the get is counted", || guest_report(&daemon).latency.get.count == 4);
    assert_eq!(guest_report(&daemon).latency.put, latency.put, "times are lost with the worker");
    assert_eq!(report(&daemon).worker_restarts, 1);
}

#[test]
fn refusals_are_counted_by_reason_and_outlive_their_pool() {
    let daemon = Daemon::with(&["memory-limit=256K"], &["--memory-limit", "16M"]);
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    let refused = (0..1000).filter(|index| guest.put(1, 1, *index, &page(*index)) == status::REFUSED).count() as u64;
    assert!(refused > 0, "1000 pages were accepted within 256 KiB");
    guest.one(Req::destroy(1));
    let report = guest_report(&daemon);
    assert_eq!((report.refused.guest_limit, report.refused.total()), (refused, refused));
    assert_eq!(report.answers("put", "refused"), refused);
    let counters = report.counters_of(PoolKind::Persistent);
    assert_eq!((counters.puts, counters.refused.guest_limit), (1000, refused), "what was counted in the pool");
}
