// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest's figures, of what two documents say of it.

use std::time::Duration;

use zcache_report::{Contents, Counters, GuestReport, Histogram, PoolKind, Refusals};

/// What needs a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Workers have died of it.
    Quarantined,
    /// A part of its memory has gone away.
    LostMemory,
    /// A queue is not served.
    StoppedQueue,
    /// Nothing new is stored for it.
    Frozen,
    /// No VMM is connected.
    Absent,
    /// No driver has said HELLO.
    NoSession,
}

impl Trouble {
    /// A letter before the guest's name.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Quarantined => 'Q',
            Self::LostMemory => 'L',
            Self::StoppedQueue => 'S',
            Self::Frozen => 'f',
            Self::Absent => '-',
            Self::NoSession => 'n',
        }
    }

    /// In words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined: workers have died of it",
            Self::LostMemory => "a part of its memory has gone away",
            Self::StoppedQueue => "a queue is not served, as its ring made no sense",
            Self::Frozen => "frozen: nothing new is stored",
            Self::Absent => "not connected",
            Self::NoSession => "no driver has a session",
        }
    }

    /// Whether a person has to see to it.
    #[must_use]
    pub fn is_serious(self) -> bool {
        matches!(self, Self::Quarantined | Self::LostMemory | Self::StoppedQueue)
    }

    fn of(guest: &GuestReport) -> Option<Self> {
        let signs = [
            (guest.quarantined, Self::Quarantined),
            (guest.lost_regions > 0, Self::LostMemory),
            (guest.queues.iter().any(|queue| queue.stopped), Self::StoppedQueue),
            (guest.frozen, Self::Frozen),
            (!guest.connected, Self::Absent),
            (!guest.session, Self::NoSession),
        ];
        signs.into_iter().find(|(is_so, _)| *is_so).map(|(_, trouble)| trouble)
    }
}

/// Rates of refused puts by reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct RefusalRates {
    /// Each reason, in words, with what it comes to a second.
    pub by_reason: [(&'static str, Option<f64>); 5],
}

impl RefusalRates {
    /// All reasons together.
    #[must_use]
    pub fn total(&self) -> Option<f64> {
        self.by_reason.iter().map(|(_, rate)| *rate).reduce(sum).flatten()
    }
}

/// What a guest, or all of them together, have and do. Rates are numbers a second, and not known
/// before the second document.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// What needs a look.
    pub trouble: Option<Trouble>,
    /// Puts.
    pub puts: Option<f64>,
    /// Gets.
    pub gets: Option<f64>,
    /// Of these, gets that found a page.
    pub hits: Option<f64>,
    /// Refused puts.
    pub refused: RefusalRates,
    /// Pages dropped to make room.
    pub evicted: Option<f64>,
    /// Memory charged.
    pub physical_bytes: u64,
    /// Limit of it.
    pub memory_limit: Option<u64>,
    /// Pages held.
    pub contents: Contents,
    /// Of these, swap.
    pub persistent_pages: u64,
    /// How long puts took since the document before, or since the start.
    pub put_times: Histogram,
    /// How long gets took.
    pub get_times: Histogram,
}

impl Figures {
    /// Of a guest; rates refer to what was `before`, that long ago.
    pub(super) fn of(guest: &GuestReport, before: Option<&GuestReport>, passed: Duration) -> Self {
        let rate = |now: u64, then: fn(&GuestReport) -> u64| {
            let then = then(before?);
            // A counter that went back has begun anew.
            let counted = now.checked_sub(then).unwrap_or(now);
            (!passed.is_zero()).then(|| counted as f64 / passed.as_secs_f64())
        };
        let reason = |name: &'static str, of: fn(&Refusals) -> u64| {
            let then = before.map(|before| of(&before.refused));
            let now = of(&guest.refused);
            let counted = then.map(|then| now.checked_sub(then).unwrap_or(now));
            (name, counted.filter(|_| !passed.is_zero()).map(|counted| counted as f64 / passed.as_secs_f64()))
        };
        let since =
            |now: &Histogram, then: Option<&Histogram>| then.map_or_else(|| now.clone(), |then| now.since(then));
        Self {
            trouble: Trouble::of(guest),
            puts: rate(guest.answered("put"), |guest| guest.answered("put")),
            gets: rate(guest.answered("get"), |guest| guest.answered("get")),
            hits: rate(guest.answers("get", "ok"), |guest| guest.answers("get", "ok")),
            refused: RefusalRates {
                by_reason: [
                    reason("limit", |refused| refused.guest_limit),
                    reason("share", |refused| refused.share),
                    reason("full", |refused| refused.store_full),
                    reason("no memory", |refused| refused.no_memory),
                    reason("frozen", |refused| refused.frozen),
                ],
            },
            evicted: rate(evicted(guest), evicted),
            physical_bytes: guest.physical_bytes,
            memory_limit: guest.memory_limit,
            contents: guest.contents,
            persistent_pages: guest.contents_of(PoolKind::Persistent).pages,
            put_times: since(&guest.latency.put, before.map(|before| &before.latency.put)),
            get_times: since(&guest.latency.get, before.map(|before| &before.latency.get)),
        }
    }

    /// Adds another guest's rates; the rest of the whole is the store's.
    pub(super) fn add(&mut self, other: &Self) {
        for (rate, others) in [
            (&mut self.puts, other.puts),
            (&mut self.gets, other.gets),
            (&mut self.hits, other.hits),
            (&mut self.evicted, other.evicted),
        ] {
            *rate = sum(*rate, others);
        }
        for (own, others) in self.refused.by_reason.iter_mut().zip(other.refused.by_reason) {
            *own = (others.0, sum(own.1, others.1));
        }
    }

    /// Bytes of guest pages held per byte of memory charged.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let pages = self.contents.pages as f64 * 4096.0;
        (self.physical_bytes > 0).then(|| pages / self.physical_bytes as f64)
    }
}

/// Pages dropped from a guest's own pools; of shared ones nobody knows whose they were.
fn evicted(guest: &GuestReport) -> u64 {
    let counters: Counters = guest.counters_of(PoolKind::Ephemeral);
    counters.evicted
}

/// The sum of what is known.
fn sum(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
}
