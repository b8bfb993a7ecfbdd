// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long a guest waits when its worker is killed. A measurement, not a test: a machine that is
//! busy takes longer. `docs/testing.md` says how to run it.

use std::env;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::daemon::Daemon;
use crate::client::wire::{PERSISTENT, Req, status};
use crate::client::{Client, page};

/// Requests of a chain.
const BATCH: u64 = 32;

/// Fills a store to `mib` MiB of compressed pages; the pages.
fn fill(daemon: &Daemon, guest: &mut Client, mib: u64) -> u64 {
    guest.create(1, PERSISTENT);
    let mut pages = 0;
    while daemon.stats()["store"]["compressed_bytes"].as_u64().expect("a number") < mib << 20 {
        for _ in 0..1024 {
            let put = |n| Req::put(1, 0, pages + n, &page((pages + n) % 1021));
            let requests: Vec<Req> = (0..BATCH).map(put).collect();
            assert!(guest.submit(0, &requests).iter().all(|answer| answer.status == status::OK), "a put is refused");
            pages += BATCH;
        }
    }
    pages
}

/// How long the answer to a question takes that is asked just after something has happened.
fn pause(guest: &mut Client, happens: impl FnOnce()) -> Duration {
    let start = Instant::now();
    happens();
    assert!(guest.get(1, 0, 1).is_ok());
    start.elapsed()
}

#[test]
#[ignore = "a measurement"]
fn the_pause_of_a_kill_and_of_an_upgrade() {
    let mib = env::var("ZCACHE_PAUSE_MIB").map_or(1024, |mib| mib.parse().expect("a number of MiB"));
    let daemon = Daemon::with(&[""], &["--memory-limit", "16G"]);
    let mut guest = Client::attach(&daemon.socket(0));
    let pages = fill(&daemon, &mut guest, mib);
    println!("{mib} MiB, {pages} pages");
    for _ in 0..5 {
        let took = pause(&mut guest, || daemon.signal_worker(Signal::KILL));
        println!("the first answer {took:?} after a kill");
        std::thread::sleep(Duration::from_secs(3));
    }
    for upgrade in 1..=5 {
        daemon.signal_keeper(Signal::USR2);
        let mut longest = Duration::ZERO;
        while daemon.lines("has taken over") < upgrade {
            longest = longest.max(pause(&mut guest, || ()));
        }
        println!("the longest answer {longest:?} during an upgrade");
        // All pages are found until the next.
        std::thread::sleep(Duration::from_secs(3));
    }
}
