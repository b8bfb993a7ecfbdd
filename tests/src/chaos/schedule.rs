// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happens when, and to whom: the seed decides all of it.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use vhost_zcache::crash::Place;
use zcache_images::Vmm;

use super::misbehaving::{KINDS, Mischief};
use super::places::{Passed, passed};

/// Something, and how long after the start it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Timed<T> {
    pub(super) at: Duration,
    pub(super) what: T,
}

/// How one worker ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WorkerEnd {
    /// By SIGKILL, wherever it is.
    Killed,
    /// When it passes a place, or by SIGKILL if it does not come there in time.
    AtPlace(Fate),
    /// It makes room for a worker of the same program.
    Upgraded,
}

/// The place of a death.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) place: Place,
    /// How often it is passed before.
    pub(super) passes: u64,
    pub(super) way: Way,
    /// How long the worker lives before passes count.
    pub(super) after: Duration,
}

/// What a worker dies of at a place. (A panic of a queue's thread is no death: it costs the queue.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Kill,
    Abort,
}

/// What happens to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MachineEvent {
    /// Its device is unplugged, is away for so long, and is plugged in again.
    Away(Duration),
    /// It stands still for so long.
    Stopped(Duration),
}

/// A limit that is another from then on. Swapped pages that are there stay, whatever the limit;
/// what is refused goes to the guest's own disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LimitChange {
    /// The store's.
    Store { mib: u64 },
    /// That of the guest of this number, and its part of what is short.
    Guest { number: usize, mib: u64, weight: u64 },
}

/// All that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    /// How the first worker ends, the second one, and so on.
    pub(super) workers: Vec<Timed<WorkerEnd>>,
    /// What happens to each machine.
    pub(super) machines: Vec<Vec<Timed<MachineEvent>>>,
    pub(super) mischief: Vec<Timed<Mischief>>,
    pub(super) limits: Vec<Timed<LimitChange>>,
}

impl Schedule {
    /// The schedule of a seed for machines of these kinds.
    pub(super) fn new(seed: u64, length: Duration, machines: &[Vmm]) -> Self {
        let mut seeds = Rng::with_seed(seed);
        let mut stream = || Rng::with_seed(seeds.u64(..));
        let (mut workers, mut mischief) = (stream(), stream());
        let mut after_one_at_start = true;
        Self {
            workers: timed(length, || {
                let end = worker_end(&mut workers, !after_one_at_start);
                after_one_at_start = end.1.is_at_start();
                end
            }),
            machines: machines
                .iter()
                .map(|vmm| {
                    let mut random = stream();
                    timed(length, || (millis(&mut random, 5000, 13_000), machine_event(&mut random, *vmm)))
                })
                .collect(),
            mischief: timed(length, || {
                let gap = millis(&mut mischief, 300, 2000);
                (gap, Mischief { kind: *one_of(&mut mischief, KINDS), seed: mischief.u64(..) })
            }),
            limits: {
                let mut random = stream();
                timed(length, || (millis(&mut random, 1500, 6000), limit_change(&mut random, machines.len())))
            },
        }
    }

    /// For the daemon: where each worker dies by itself.
    pub(super) fn die_at(&self) -> String {
        let entries: Vec<String> = self
            .workers
            .iter()
            .map(|end| match &end.what {
                WorkerEnd::AtPlace(Fate { place, passes, way, after }) => {
                    format!("{}:{passes}:1:{}:{}", place.name(), way.name(), after.as_millis())
                }
                WorkerEnd::Killed | WorkerEnd::Upgraded => "none".to_owned(),
            })
            // The first one that nobody has planned an end for, and those after it.
            .chain(["none".to_owned()])
            .collect();
        entries.join(",")
    }
}

impl WorkerEnd {
    fn is_at_start(&self) -> bool {
        matches!(self, Self::AtPlace(fate) if passed(fate.place) == Passed::AtStart)
    }
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Abort => "abort",
        }
    }
}

/// One thing after another, as long as there is time.
fn timed<T>(length: Duration, mut next: impl FnMut() -> (Duration, T)) -> Vec<Timed<T>> {
    let mut list = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        let (gap, what) = next();
        at += gap;
        if at >= length {
            return list;
        }
        list.push(Timed { at, what });
    }
}

/// How long a worker lives, and how it ends. Most die again and again in their work; one that dies
/// at its start is followed by one that does not, as otherwise the keeper would hesitate.
///
/// A chain that is in service at two deaths is not served a third time. So nobody who serves dies
/// before it has had the time to get to the end of what was in service before.
fn worker_end(random: &mut Rng, may_be_at_start: bool) -> (Duration, WorkerEnd) {
    let gap = millis(random, 3000, 7000);
    let at = |passed_when: Passed| -> Vec<Place> {
        Place::ALL.iter().copied().filter(|place| passed(*place) == passed_when).collect()
    };
    let kill =
        |place: Place, passes: u64, after: Duration| WorkerEnd::AtPlace(Fate { place, passes, way: Way::Kill, after });
    match random.u32(0..20) {
        0..=8 => (gap, WorkerEnd::Killed),
        9..=13 => {
            let place = *one_of(random, &at(Passed::InService));
            let way = *one_of(random, &[Way::Kill, Way::Kill, Way::Kill, Way::Abort]);
            (gap, WorkerEnd::AtPlace(Fate { place, passes: random.u64(1..300), way, after: gap }))
        }
        14..=16 => {
            let place = *one_of(random, &at(Passed::OnChange));
            (gap, kill(place, random.u64(1..4), gap / 2))
        }
        17 | 18 if may_be_at_start => {
            let place = *one_of(random, &at(Passed::AtStart));
            (millis(random, 1500, 2500), kill(place, 1, Duration::ZERO))
        }
        _ => (gap, WorkerEnd::Upgraded),
    }
}

fn machine_event(random: &mut Rng, vmm: Vmm) -> MachineEvent {
    match vmm {
        Vmm::Qemu if random.bool() => MachineEvent::Stopped(millis(random, 100, 1500)),
        Vmm::Qemu | Vmm::Uml => MachineEvent::Away(millis(random, 100, 2000)),
    }
}

/// The store and the guests that behave always have room for some of what they swap; the guest
/// behind them, which does not behave, has as little as nothing at times.
fn limit_change(random: &mut Rng, behaving: usize) -> LimitChange {
    if random.u32(0..4) == 0 {
        return LimitChange::Store { mib: random.u64(256..=448) };
    }
    let number = random.usize(..=behaving);
    let mib = if number == behaving { random.u64(4..=64) } else { random.u64(80..=320) };
    LimitChange::Guest { number, mib, weight: random.u64(10..=1000) }
}

fn millis(random: &mut Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(random.u64(least..most))
}

fn one_of<'a, T>(random: &mut Rng, choices: &'a [T]) -> &'a T {
    &choices[random.usize(..choices.len())]
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (worker, end) in (1..).zip(&self.workers) {
            writeln!(f, "{:8.3} s  worker {worker}: {:?}", end.at.as_secs_f64(), end.what)?;
        }
        for (machine, events) in self.machines.iter().enumerate() {
            for event in events {
                writeln!(f, "{:8.3} s  machine {machine}: {:?}", event.at.as_secs_f64(), event.what)?;
            }
        }
        for event in &self.limits {
            writeln!(f, "{:8.3} s  {:?}", event.at.as_secs_f64(), event.what)?;
        }
        for event in &self.mischief {
            writeln!(f, "{:8.3} s  {:?}", event.at.as_secs_f64(), event.what)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MACHINES: [Vmm; 3] = [Vmm::Uml, Vmm::Uml, Vmm::Qemu];

    fn of(seed: u64) -> Schedule {
        Schedule::new(seed, Duration::from_secs(15 * 60), &MACHINES)
    }

    #[test]
    fn a_seed_has_one_schedule() {
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn fifteen_minutes_have_a_hundred_kills_and_something_of_everything() {
        for seed in 0..200 {
            let schedule = of(seed);
            let kills = schedule.workers.iter().filter(|end| end.what != WorkerEnd::Upgraded).count();
            assert!(kills >= 100, "seed {seed} has {kills} kills");
            let kinds: BTreeSet<_> = schedule.mischief.iter().map(|event| format!("{:?}", event.what.kind)).collect();
            assert_eq!(kinds.len(), KINDS.len(), "seed {seed} has these only: {kinds:?}");
            let stops = |events: &[Timed<MachineEvent>]| {
                events.iter().filter(|event| matches!(event.what, MachineEvent::Stopped(_))).count()
            };
            assert!(stops(&schedule.machines[2]) > 20, "seed {seed} hardly stops a machine");
            assert_eq!(stops(&schedule.machines[0]), 0, "user-mode Linux cannot be stopped");
            let of_store = |event: &&Timed<LimitChange>| matches!(event.what, LimitChange::Store { .. });
            assert!(schedule.limits.iter().filter(of_store).count() > 20, "seed {seed} hardly changes the store");
            for number in 0..=MACHINES.len() {
                let of_guest = |event: &&Timed<LimitChange>| matches!(event.what, LimitChange::Guest { number: whose, .. } if whose == number);
                let changes = schedule.limits.iter().filter(of_guest).count();
                assert!(changes > 20, "seed {seed} hardly changes guest {number}");
            }
        }
    }

    #[test]
    fn each_place_that_all_workers_pass_has_its_deaths() {
        let mut places = BTreeSet::new();
        for seed in 0..20 {
            for end in of(seed).workers {
                if let WorkerEnd::AtPlace(fate) = end.what {
                    places.insert(fate.place.name());
                }
            }
        }
        let all: BTreeSet<_> =
            Place::ALL.iter().filter(|place| passed(**place) != Passed::NotHere).map(|place| place.name()).collect();
        assert_eq!(places, all);
    }

    #[test]
    fn nobody_dies_at_its_start_after_one_that_did() {
        for seed in 0..200 {
            let workers = of(seed).workers;
            assert!(!workers[0].what.is_at_start());
            assert!(workers.windows(2).all(|pair| !(pair[0].what.is_at_start() && pair[1].what.is_at_start())));
        }
    }
}
