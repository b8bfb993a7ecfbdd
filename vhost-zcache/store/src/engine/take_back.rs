// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the host would like guests to take back of their persistent pages, when what it is short of
//! is more than ephemeral pages can give.
//!
//! Persistent pages beyond reservations are wanted in the proportions in which ephemeral ones are
//! given ([`victim`](super::victim)), and within them last, when an operator wants so much. Guests
//! count that have asked of late: who never asks has nowhere else to put a page, or nothing to take
//! back. It is advice. What is wanted becomes less with each persistent page that goes, and lapses
//! when nobody has repeated it for a while.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::give_back::Cause;
use super::guest_state::GuestState;
use super::victim::{Claim, split};
use super::{Engine, PERSISTENT};

/// When a guest is to ask again of which nothing is wanted: it costs an idle guest a request.
const CALM: Duration = Duration::from_secs(10);
/// When a guest is to ask again of which something is.
const BUSY: Duration = Duration::from_millis(250);
/// A guest that has not asked for so long takes nothing back.
const SILENCE: Duration = Duration::from_secs(30);
/// The kernel says every few seconds that memory is short, as long as it is, and a guest that was
/// calm has to get to know of it.
const PRESSURE_LASTS: Duration = Duration::from_secs(15);
/// An operator says it once.
const ORDER_LASTS: Duration = Duration::from_secs(60);

/// The answer to a guest that asks what it is to take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Persistent pages.
    pub pages: u32,
    /// When it is to ask again.
    pub again: Duration,
}

/// What one guest is to take back.
#[derive(Debug, Default)]
pub(crate) struct TakeBack {
    /// Pages; changed with the lock held, and looked at without it.
    wanted: AtomicU64,
    taken: AtomicU64,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    /// When the guest asked last.
    asked: Option<Instant>,
    /// When nothing is wanted any more.
    lapses: Option<Instant>,
}

impl TakeBack {
    /// Persistent pages that went while they were wanted.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// Pages that are wanted.
    pub(crate) fn wanted(&self, now: Instant) -> u64 {
        if self.wanted.load(Relaxed) == 0 {
            return 0;
        }
        self.wanted_in(&self.times(), now)
    }

    /// The guest asks.
    fn ask(&self, now: Instant) -> u64 {
        let mut times = self.times();
        times.asked = Some(now);
        self.wanted_in(&times, now)
    }

    /// Whether the guest asks.
    fn asks(&self, now: Instant) -> bool {
        self.times().asked.is_some_and(|asked| now.saturating_duration_since(asked) < SILENCE)
    }

    /// So many pages are wanted, or as many as before if those were more; for how long.
    fn want(&self, pages: u64, now: Instant, lasts: Duration) {
        let mut times = self.times();
        let before = self.wanted_in(&times, now);
        self.wanted.store(before.max(pages), Relaxed);
        times.lapses = times.lapses.max(now.checked_add(lasts));
    }

    /// Persistent pages have gone.
    pub(super) fn count_gone(&self, pages: u64) {
        if pages == 0 || self.wanted.load(Relaxed) == 0 {
            return;
        }
        let times = self.times();
        let taken = self.wanted_in(&times, Instant::now()).min(pages);
        self.wanted.fetch_sub(taken, Relaxed);
        self.taken.fetch_add(taken, Relaxed);
    }

    fn wanted_in(&self, times: &Times, now: Instant) -> u64 {
        if times.lapses.is_none_or(|lapses| lapses <= now) {
            self.wanted.store(0, Relaxed);
        }
        self.wanted.load(Relaxed)
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        // What is in it is whole whenever the lock is free.
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guest that takes pages back, and its persistent pages.
struct Taker {
    guest: Arc<GuestState>,
    pages: u64,
    /// Stored bytes of these.
    bytes: u64,
    /// What of these is beyond the reservation.
    claim: Claim,
}

impl Taker {
    fn of(guest: Arc<GuestState>) -> Option<Self> {
        let contents = guest.domain.get()?.heap_contents(PERSISTENT);
        let (pages, bytes) = (contents.pages, contents.compressed_bytes);
        let claim = Claim { excess: bytes.min(guest.account.beyond()), weight: guest.weight.get() };
        Some(Self { guest, pages, bytes, claim })
    }

    /// About as many pages as have so many bytes.
    fn pages_of(&self, bytes: u64) -> u64 {
        let pages = (u128::from(bytes) * u128::from(self.pages)).div_ceil(u128::from(self.bytes.max(1)));
        u64::try_from(pages).unwrap_or(u64::MAX).min(self.pages)
    }
}

/// What of so many bytes each is to take back. An order asks for what is within reservations, too,
/// when all else is asked for: it is the guest who decides.
fn shares(takers: &[Taker], bytes: u64, cause: Cause) -> Vec<u64> {
    let beyond: Vec<Claim> = takers.iter().map(|taker| taker.claim).collect();
    let mut shares = split(&beyond, bytes);
    let missing = bytes.saturating_sub(shares.iter().sum());
    if cause == Cause::Order && missing > 0 {
        let within = |taker: &Taker| Claim { excess: taker.bytes - taker.claim.excess, ..taker.claim };
        let more = split(&takers.iter().map(within).collect::<Vec<_>>(), missing);
        shares.iter_mut().zip(more).for_each(|(share, more)| *share += more);
    }
    shares
}

impl Engine {
    /// What a guest is to take back, which it asks.
    pub(crate) fn wanted_of(&self, guest: &GuestState) -> Wanted {
        let wanted = guest.take_back.ask(Instant::now());
        if wanted == 0 {
            return Wanted { pages: 0, again: CALM };
        }
        // What went in another way than by a flush is not wanted either.
        let has = guest.domain.get().map_or(0, |domain| domain.heap_contents(PERSISTENT).pages);
        Wanted { pages: u32::try_from(wanted.min(has)).unwrap_or(u32::MAX), again: BUSY }
    }

    /// Bytes of persistent pages beyond reservations that guests could take back.
    pub(super) fn takeable(&self) -> u64 {
        self.takers(Instant::now()).iter().map(|taker| taker.claim.excess).sum()
    }

    /// Wants guests to take so many bytes of persistent pages back, each its part; how many pages
    /// by the name of the guest.
    pub(super) fn want_back(&self, bytes: u64, cause: Cause) -> BTreeMap<String, u64> {
        let now = Instant::now();
        let mut by_guest = BTreeMap::new();
        if bytes == 0 {
            return by_guest;
        }
        let takers = self.takers(now);
        for (taker, share) in takers.iter().zip(shares(&takers, bytes, cause)) {
            let pages = taker.pages_of(share);
            if pages > 0 {
                let lasts = if cause == Cause::Order { ORDER_LASTS } else { PRESSURE_LASTS };
                taker.guest.take_back.want(pages, now, lasts);
                *by_guest.entry(taker.guest.name.clone()).or_default() += pages;
            }
        }
        by_guest
    }

    fn takers(&self, now: Instant) -> Vec<Taker> {
        let guests = self.registry.guests().into_iter();
        guests.filter(|guest| guest.take_back.asks(now)).filter_map(Taker::of).collect()
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_lapses_unless_it_is_repeated() {
        let (take_back, start) = (TakeBack::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        take_back.want(7, start, PRESSURE_LASTS);
        assert_eq!(take_back.ask(after(14)), 7);
        take_back.want(3, after(14), PRESSURE_LASTS);
        assert_eq!(take_back.ask(after(28)), 7, "fewer were wanted, and the rest is forgotten");
        assert_eq!(take_back.ask(after(29)), 0, "it is wanted for ever");
        take_back.want(3, after(29), ORDER_LASTS);
        assert_eq!(take_back.ask(after(30)), 3, "what had lapsed is wanted again");
        take_back.want(4, after(31), PRESSURE_LASTS);
        assert_eq!(take_back.ask(after(88)), 4, "a word of the kernel's has ended an order");
    }

    #[test]
    fn what_goes_is_not_wanted_any_more() {
        let take_back = TakeBack::default();
        take_back.count_gone(5);
        assert_eq!(take_back.taken(), 0, "pages count that nobody wanted");
        take_back.want(7, Instant::now(), ORDER_LASTS);
        take_back.count_gone(5);
        assert_eq!((take_back.wanted(Instant::now()), take_back.taken()), (2, 5));
        take_back.count_gone(5);
        assert_eq!((take_back.wanted(Instant::now()), take_back.taken()), (0, 7));
    }

    #[test]
    fn who_has_not_asked_of_late_does_not_ask() {
        let (take_back, start) = (TakeBack::default(), Instant::now());
        assert!(!take_back.asks(start));
        take_back.ask(start);
        assert!(take_back.asks(start + CALM * 2));
        assert!(!take_back.asks(start + SILENCE));
    }
}
