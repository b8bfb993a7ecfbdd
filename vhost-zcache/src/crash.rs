// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Places at which tests have a worker die: after each store that somebody else can see.
//!
//! In a build for tests the environment variable [`VARIABLE`] names a place, how often it is passed
//! before it kills, how many workers it kills, and how if not by SIGKILL (`abort`, `panic`; `hang`
//! does not kill): `used-published:3:1`, `changed:1:2:panic`. A fifth part says how many
//! milliseconds a worker lives before its passes count: `executed:1:1:kill:2000`. After a comma
//! comes what is for the workers after these; a place that there is not (`none`) kills nobody. In a
//! release it is nothing.

/// Names the place.
pub const VARIABLE: &str = "ZCACHE_DIE_AT";

macro_rules! places {
    ($($(#[$doc:meta])* $place:ident $name:literal,)*) => {
        /// A place.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Place {
            $($(#[$doc])* $place,)*
        }

        impl Place {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$place),*];

            /// Whether it is passed only when a guest's state moves to another daemon.
            #[must_use]
            pub fn is_of_transfers(self) -> bool {
                matches!(self, Self::StateMoved | Self::StateLoaded)
            }

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$place => $name),* }
            }
        }
    };
}

places! {
    /// The store is made, and the keeper does not know it yet.
    ArenaMade "arena-made",
    /// The keeper was given the store's memory.
    ArenaGiven "arena-given",
    /// A guest's part of the index is made again.
    Rebuilding "rebuilding",
    /// Guests and pools were found again, and no guest was let in.
    Reopened "reopened",
    /// All pages were found again, while guests were served.
    PagesFound "pages-found",
    /// A guest's session was taken over.
    SessionRestored "session-restored",
    /// All sessions were taken over.
    Ready "ready",
    /// A connection's session is noted.
    Connected "connected",
    /// All that a connection had was dropped.
    Dropped "dropped",
    /// A change was carried out, and the keeper does not know it yet.
    Changed "changed",
    /// The keeper was told of a change.
    Acknowledged "acknowledged",
    /// A ring has given up its thread, and the session does not know it.
    RingPaused "ring-paused",
    /// The session knows where the ring has stopped.
    StopNoted "stop-noted",
    /// A ring is about to be served.
    RingStarted "ring-started",
    /// A chain is noted to be in service.
    ChainTaken "chain-taken",
    /// What will be answered is noted.
    AnswerPlanned "answer-planned",
    /// A HELLO has closed the session before.
    SessionClosed "session-closed",
    /// A HELLO has destroyed pools.
    PoolsDestroyed "pools-destroyed",
    /// A HELLO has opened its session.
    SessionOpened "session-opened",
    /// A pool was made, and it is not noted that it was.
    PoolMade "pool-made",
    /// A shared pool is noted.
    PoolNoted "pool-noted",
    /// A pool was destroyed, and it is not noted that it was.
    PoolGone "pool-gone",
    /// Half of a record is written.
    HalfARecord "half-a-record",
    /// A record is written, and not valid.
    RecordWritten "record-written",
    /// A record is valid.
    RecordValid "record-valid",
    /// A request had its effect.
    Executed "executed",
    /// The page of a GET is in the guest's memory.
    PageWritten "page-written",
    /// A result is written, and does not count.
    ResultNoted "result-noted",
    /// A request is noted to be done.
    RequestDone "request-done",
    /// All results are in the guest's memory.
    ResultsWritten "results-written",
    /// The used index is written, and the ledger does not know it.
    UsedPublished "used-published",
    /// The chain is not in service any more, and the driver was not told.
    ChainForgotten "chain-forgotten",
    /// The driver was told.
    Notified "notified",
    /// A part of a state was written to the VMM, or read from it.
    StateMoved "state-moved",
    /// A state was loaded, and the keeper does not know it yet.
    StateLoaded "state-loaded",
}

/// Passes a place.
#[inline]
pub fn point(place: Place) {
    #[cfg(debug_assertions)]
    armed::pass(place);
    #[cfg(not(debug_assertions))]
    let _ = place;
}

/// Takes note of what the environment says, in the worker of this number.
pub fn arm(worker: u64) {
    #[cfg(debug_assertions)]
    armed::arm(worker);
    #[cfg(not(debug_assertions))]
    let _ = worker;
}

#[cfg(debug_assertions)]
mod armed {
    use std::env;
    use std::process;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use log::warn;
    use rustix::process::{Signal, getpid, kill_process};

    use super::{Place, VARIABLE};

    static ARMED: OnceLock<Fate> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    /// What this worker dies of.
    #[derive(Debug)]
    struct Fate {
        place: Place,
        passes: u64,
        way: Way,
        /// When they begin to count.
        from: Instant,
    }

    #[derive(Debug, Clone, Copy)]
    enum Way {
        Kill,
        Abort,
        Panic,
        Hang,
    }

    pub(super) fn arm(worker: u64) {
        let Ok(text) = env::var(VARIABLE) else { return };
        let mut workers_before = 0;
        for entry in text.split(',') {
            let parts: Vec<&str> = entry.split(':').collect();
            let number = |at: usize| parts.get(at).and_then(|part| part.parse::<u64>().ok());
            workers_before += number(2).unwrap_or(1);
            if worker > workers_before {
                continue;
            }
            let way = match parts.get(3) {
                Some(&"panic") => Way::Panic,
                Some(&"abort") => Way::Abort,
                Some(&"hang") => Way::Hang,
                _ => Way::Kill,
            };
            if let Some(place) = Place::ALL.iter().find(|place| place.name() == parts[0]) {
                let from = Instant::now() + Duration::from_millis(number(4).unwrap_or(0));
                let _ = ARMED.set(Fate { place: *place, passes: number(1).unwrap_or(1), way, from });
            }
            return;
        }
    }

    pub(super) fn pass(place: Place) {
        if let Some(Fate { place: armed, passes, way, from }) = ARMED.get()
            && *armed == place
            && Instant::now() >= *from
            && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *passes
        {
            warn!("This worker ends at {}, as a test has asked for", place.name());
            match way {
                Way::Kill => drop(kill_process(getpid(), Signal::KILL)),
                Way::Abort => process::abort(),
                Way::Panic => panic!("a test has asked for it"),
                Way::Hang => loop {
                    thread::park();
                },
            }
        }
    }
}
