// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests and pools as they are found in an earlier process's arena, and then their pages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::domain::Domain;
use super::guest_state::{Entry, GuestState};
use super::pending::{Journal, Pending, Pools};
use super::pools::add_own;
use super::roster::{self, Roster};
use super::{EPHEMERAL, Engine, PERSISTENT, SHARD_OVERHEAD};
use crate::accounting::{Charge, Use};
use crate::arena::header::{Lane, Origin, Role};
use crate::arena::memory::Segment;
use crate::guest::GuestConfig;
use crate::pool::PoolKind;
use crate::shard::space::adopt::Remains;
use crate::store::StoreError;

/// How a guest of an earlier process is to be taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Care {
    /// Beside others.
    #[default]
    Usual,
    /// When all others are there, and before anybody is served: what the guest has stored may be
    /// what the earlier process died of.
    Alone,
    /// Not at all. All it has stored is dropped unseen.
    Never,
}

/// Who is told whose pages are being found again, by the guests' numbers. It may be told of several
/// parts of a guest at once, by any thread.
pub trait Watch: Send + Sync {
    /// How a guest is to be taken over.
    fn care(&self, guest: u32) -> Care;

    /// A part of what a guest has stored is looked at from now on.
    fn begins(&self, guest: u32);

    /// That was all of the part.
    fn ends(&self, guest: u32);
}

/// Nobody is told, and no guest is suspected.
pub struct Unwatched;

impl Watch for Unwatched {
    fn care(&self, _: u32) -> Care {
        Care::Usual
    }

    fn begins(&self, _: u32) {}

    fn ends(&self, _: u32) {}
}

/// A segment of records, as it is found.
struct Record {
    purpose: Use,
    lane: Lane,
    era: u32,
    segment: Segment,
}

/// One guest's segments.
#[derive(Default)]
struct Found {
    roster: Option<Segment>,
    /// By shard.
    records: BTreeMap<usize, Vec<Record>>,
}

/// A shard whose pages are to be found.
struct Job {
    domain: Arc<Domain>,
    shard: usize,
    segments: usize,
}

/// The pages of an earlier process that nobody has asked for yet.
#[must_use = "pages are found when somebody asks for them, but memory goes back only when all are"]
pub struct Recovery {
    engine: Arc<Engine>,
    guests: Vec<Arc<GuestState>>,
    jobs: Vec<Job>,
    journal: Arc<Journal>,
    thread_start: fn(),
}

impl Recovery {
    /// Makes the guests of an earlier process's arena again, with their pools, from the arena
    /// alone.
    pub(crate) fn begin(
        engine: &Arc<Engine>,
        segments: Vec<(Origin, Segment)>,
        mut config: impl FnMut(u32) -> GuestConfig,
        watch: Box<dyn Watch>,
        thread_start: fn(),
    ) -> Result<Self, StoreError> {
        let journal = Arc::new(Journal::new(watch));
        let mut guests = Vec::new();
        let (mut jobs, mut alone) = (Vec::new(), Vec::new());
        for (number, found) in engine.sort(segments) {
            let care = journal.watch().care(number);
            if care == Care::Never {
                continue;
            }
            // A guest without a roster had left, and only its memory had not been given back.
            let Some(roster) = found.roster else { continue };
            let guest = engine.guest_state(number, config(number));
            journal.watch().begins(number);
            let own = engine.recover_pools(&guest, roster, found.records, &journal);
            journal.watch().ends(number);
            match care {
                Care::Alone => alone.push(own),
                _ => jobs.extend(own),
            }
            engine.registry.add(&guest);
            guests.push(guest);
        }
        jobs.sort_by_key(|job| job.segments);
        let mut recovery = Self { engine: Arc::clone(engine), guests, jobs, journal, thread_start };
        if !alone.is_empty() {
            run(std::mem::take(&mut recovery.jobs), thread_start, || {})?;
        }
        for jobs in alone {
            run(jobs, thread_start, || {})?;
        }
        Ok(recovery)
    }

    /// The guests.
    pub(crate) fn guests(&self) -> &[Arc<GuestState>] {
        &self.guests
    }

    /// Finds all pages that nobody has asked for, on all processors, while guests are served; then
    /// gives back the memory in which nothing is, and has limits hold. This thread does first what
    /// threads of the store do. Returns how many records were dropped: damaged ones, and copies of
    /// pages that were being moved.
    ///
    /// # Errors
    /// [`StoreError::Rebuild`]. The store is of no use then, and is left to the next process.
    pub fn finish(self) -> Result<u64, StoreError> {
        run(self.jobs, self.thread_start, self.thread_start)?;
        self.engine.common.arena.settle();
        for guest in &self.guests {
            self.engine.keep_guest_within_limit(guest);
        }
        self.engine.keep_within_limit();
        Ok(self.journal.dropped())
    }
}

impl Engine {
    /// Whose the segments are, and of which shard.
    fn sort(&self, segments: Vec<(Origin, Segment)>) -> BTreeMap<u32, Found> {
        let mut found: BTreeMap<u32, Found> = BTreeMap::new();
        for (Origin { label, role }, segment) in segments {
            if label.seed != self.common.seed || usize::from(label.shards) != self.common.shards {
                continue;
            }
            let guest = found.entry(label.guest).or_default();
            match role {
                Role::Roster => guest.roster = Some(segment),
                Role::Records(purpose, lane) => {
                    let record = Record { purpose, lane, era: label.era, segment };
                    guest.records.entry(usize::from(label.shard)).or_default().push(record);
                }
            }
        }
        found
    }

    /// Makes a guest's pools again; returns in which shards pages are to be found.
    fn recover_pools(
        &self,
        guest: &GuestState,
        roster: Segment,
        records: BTreeMap<usize, Vec<Record>>,
        journal: &Arc<Journal>,
    ) -> Vec<Job> {
        let mut known = guest.pools();
        // What is there is there, whatever the limits are now.
        known.base.grow_regardless(self.common.shards as u64 * SHARD_OVERHEAD);
        let (roster, pools) = Roster::adopt(roster, known.base.another());
        known.roster = Some(roster);
        let domain = guest.domain.get_or_init(|| self.own_domain(guest));
        for (id, roster::Entry { life, purpose }) in &pools {
            let kind = if *purpose == Use::Kept { PoolKind::Persistent } else { PoolKind::Ephemeral };
            add_own(domain, *id, *life, kind);
            known.note_life(*life);
            known.entries.insert(*id, Entry::Own { kind, life: *life });
        }
        let pools: Arc<Pools> = Arc::new(pools);
        let remains = |Record { purpose, lane, era, segment }| {
            let heap = if purpose == Use::Evictable { EPHEMERAL } else { PERSISTENT };
            let mut charge = Charge::none(Arc::clone(&guest.account), purpose);
            charge.grow_regardless((segment.populated() * 8) as u64);
            Remains { segment, charge, heap, lane, era }
        };
        let job = |(shard, records): (usize, Vec<Record>)| {
            let segments = records.len();
            let remains = records.into_iter().map(remains).collect();
            domain.set_pending(shard, Pending::new(guest, remains, Arc::clone(&pools), Arc::clone(journal)));
            Job { domain: Arc::clone(domain), shard, segments }
        };
        records.into_iter().map(job).collect()
    }
}

/// Does all jobs, the last first, on all processors. Threads that help do `first` before anything
/// else; this one does `then` when they are there.
fn run(jobs: Vec<Job>, first: fn(), then: impl FnOnce()) -> Result<(), StoreError> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    let jobs = Mutex::new(jobs);
    let take = || jobs.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work =
        || std::iter::from_fn(take).try_for_each(|job| job.domain.find(job.shard).map_err(|_| StoreError::Rebuild));
    thread::scope(|scope| {
        let help = || {
            first();
            work()
        };
        // This thread does what others cannot be had for.
        let helpers = (1..threads).map_while(|_| thread::Builder::new().spawn_scoped(scope, help).ok());
        let helpers: Vec<_> = helpers.collect();
        then();
        work()?;
        for helper in helpers {
            helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    })
}
