// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests and pools as they are found in an earlier process's arena.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::domain::Domain;
use super::guest_state::{Entry, GuestState};
use super::pools::add_own;
use super::roster::{self, Roster};
use super::{EPHEMERAL, Engine, PERSISTENT, SHARD_OVERHEAD};
use crate::accounting::Use;
use crate::arena::header::{Origin, Role};
use crate::arena::memory::Segment;
use crate::guest::GuestConfig;
use crate::key::{ObjectId, PoolId};
use crate::op::Refusal;
use crate::pool::PoolKind;
use crate::shard::recover::{Alive, Remains};

/// How a guest of an earlier process is to be taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Care {
    /// Beside others.
    #[default]
    Usual,
    /// When all others are there: what the guest has stored may be what the earlier process died
    /// of.
    Alone,
    /// Not at all. All it has stored is dropped unseen.
    Never,
}

/// Who is told whose pages are being found again, by the guests' numbers. It may be told of several
/// parts of a guest at once.
pub trait Watch: Sync {
    /// How a guest is to be taken over.
    fn care(&self, guest: u32) -> Care;

    /// A part of what a guest has stored is looked at from now on.
    fn begins(&self, guest: u32);

    /// That was all of the part.
    fn ends(&self, guest: u32);
}

/// Nobody.
pub(crate) struct Unwatched;

impl Watch for Unwatched {
    fn care(&self, _: u32) -> Care {
        Care::Usual
    }

    fn begins(&self, _: u32) {}

    fn ends(&self, _: u32) {}
}

/// A guest's private pools.
type Pools = BTreeMap<PoolId, roster::Entry>;

/// One guest's segments.
#[derive(Default)]
struct Found {
    roster: Option<Segment>,
    /// By shard.
    remains: BTreeMap<usize, Vec<Remains>>,
}

/// One shard to be made again.
struct Job {
    guest: u32,
    domain: Arc<Domain>,
    shard: usize,
    remains: Vec<Remains>,
    pools: Arc<Pools>,
}

impl Job {
    fn run(self, watch: &dyn Watch) -> Result<u64, Refusal> {
        let guest = self.guest;
        watch.begins(guest);
        let dropped = self.recover();
        watch.ends(guest);
        dropped
    }

    fn recover(self) -> Result<u64, Refusal> {
        let mut stripe = self.domain.lock(self.shard);
        let mut alive = BTreeMap::new();
        for (id, roster::Entry { life, purpose }) in self.pools.iter() {
            if let Some(pool) = stripe.names.own(*id) {
                let heap = if *purpose == Use::Kept { PERSISTENT } else { EPHEMERAL };
                alive.insert(id.0, Alive { pool, heap, life: *life });
            }
        }
        let hash = |pool, object: &ObjectId| self.domain.hash(pool, object);
        stripe.shard.recover(self.remains, &hash, &alive)
    }
}

impl Engine {
    /// Makes the guests of an earlier process's arena again, from the arena alone, on all
    /// processors. Returns them and how many records were dropped.
    pub(crate) fn recover(
        &self,
        segments: Vec<(Origin, Segment)>,
        mut config: impl FnMut(u32) -> GuestConfig,
        watch: &dyn Watch,
    ) -> Result<(Vec<Arc<GuestState>>, u64), Refusal> {
        let mut guests = Vec::new();
        let (mut jobs, mut last) = (Vec::new(), Vec::new());
        for (number, found) in self.sort(segments) {
            let care = watch.care(number);
            if care == Care::Never {
                continue;
            }
            // A guest without a roster had left, and only its memory had not been given back.
            let Some(roster) = found.roster else { continue };
            let config = config(number);
            let limit = config.memory_limit;
            // Its limit applies once everything is back.
            let guest = self.guest_state(number, GuestConfig { memory_limit: None, ..config });
            watch.begins(number);
            let own = self.recover_pools(&guest, roster, found.remains)?;
            watch.ends(number);
            match care {
                Care::Alone => last.push(own),
                _ => jobs.extend(own),
            }
            guests.push((guest, limit));
        }
        let mut dropped = run_all(jobs, watch)?;
        for jobs in last {
            dropped += run_all(jobs, watch)?;
        }
        for (guest, limit) in &guests {
            self.registry.add(guest);
            self.set_guest_limit(guest, *limit);
        }
        Ok((guests.into_iter().map(|(guest, _)| guest).collect(), dropped))
    }

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
                    let heap = if purpose == Use::Evictable { EPHEMERAL } else { PERSISTENT };
                    let remains = Remains { heap, lane, era: label.era, segment };
                    guest.remains.entry(usize::from(label.shard)).or_default().push(remains);
                }
            }
        }
        found
    }

    /// Makes a guest's pools again, empty; returns what is to be made again in them.
    fn recover_pools(
        &self,
        guest: &GuestState,
        roster: Segment,
        remains: BTreeMap<usize, Vec<Remains>>,
    ) -> Result<Vec<Job>, Refusal> {
        let mut known = guest.pools();
        known.base.grow(self.common.shards as u64 * SHARD_OVERHEAD)?;
        let (roster, pools) = Roster::adopt(roster, known.base.another())?;
        known.roster = Some(roster);
        let domain = guest.domain.get_or_init(|| self.own_domain(guest));
        for (id, roster::Entry { life, purpose }) in &pools {
            let kind = if *purpose == Use::Kept { PoolKind::Persistent } else { PoolKind::Ephemeral };
            add_own(domain, *id, *life, kind);
            known.note_life(*life);
            known.entries.insert(*id, Entry::Own { kind, life: *life });
        }
        let pools = Arc::new(pools);
        let job = |(shard, remains)| {
            let (domain, pools) = (Arc::clone(domain), Arc::clone(&pools));
            Job { guest: guest.number, domain, shard, remains, pools }
        };
        Ok(remains.into_iter().map(job).collect())
    }
}

/// Does all jobs, the largest first, on all processors; how many records were dropped.
fn run_all(mut jobs: Vec<Job>, watch: &dyn Watch) -> Result<u64, Refusal> {
    jobs.sort_by_key(|job| job.remains.len());
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    let jobs = Mutex::new(jobs);
    let take = || jobs.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        let mut dropped = 0;
        while let Some(job) = take() {
            dropped += job.run(watch)?;
        }
        Ok(dropped)
    };
    thread::scope(|scope| {
        // This thread does what others cannot be had for.
        let helpers = (1..threads).map_while(|_| thread::Builder::new().spawn_scoped(scope, work).ok());
        let helpers: Vec<_> = helpers.collect();
        let mut dropped = work()?;
        for helper in helpers {
            dropped += helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(dropped)
    })
}
