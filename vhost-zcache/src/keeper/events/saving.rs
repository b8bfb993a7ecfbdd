// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The daemon's end, at which what guests have is saved, one guest after the other.

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::RawFd;
use std::time::Instant;

use event_manager::{EventOps, EventSet, Events};
use log::{error, info, warn};

use super::{Keeper, SAVER, unwatch, watch};
use crate::keeper::guest::Guest;
use crate::keeper::process::Worker;
use crate::keeper::saver::{Failure, Saver};

/// Savers that may be killed at one end.
const SPARE_SAVERS: u32 = 3;

/// How far the end is.
pub(super) struct Ending {
    /// Guests that are not saved yet.
    left: VecDeque<usize>,
    current: Option<Current>,
    saver: Option<Saver>,
    /// Savers that may be killed before the rest is not saved.
    spare_savers: u32,
    /// When it is over, whatever is not saved.
    pub(super) until: Instant,
    /// The saver's socket, as long as it is waited on.
    watched: Option<RawFd>,
}

/// A guest that is being saved.
struct Current {
    number: usize,
    /// The worker that does it.
    by: u64,
    /// Why it is not saved, if it is not, and the ticket by which the worker is asked about it: it
    /// may have died of late.
    failed: Option<(String, u64)>,
    /// What the worker says.
    verdict: Option<Result<u16, String>>,
}

impl Keeper {
    /// A signal says that the daemon is to end. A second one means at once.
    pub(super) fn told_to_end(&mut self) {
        info!("Ending because of a signal");
        let _ = (&self.signals.end).read(&mut [0; 64]);
        self.end = Some(Ok(()));
        let Some(saving) = self.config.saving.as_ref().filter(|_| self.is_open && self.ending.is_none()) else {
            return;
        };
        let until = Instant::now() + saving.timeout;
        let mut left = VecDeque::new();
        for (number, attended) in &mut self.guests {
            attended.guest.leave();
            if has_something(&attended.guest, &self.worker, *number) || attended.guest.is_taking_back() {
                left.push_back(*number);
            }
        }
        if !left.is_empty() {
            self.end = None;
            self.ending =
                Some(Ending { left, current: None, saver: None, spare_savers: SPARE_SAVERS, until, watched: None });
        }
    }

    /// Goes on with the end, if the daemon is to end.
    pub(super) fn go_on_ending(&mut self, ops: &mut EventOps<'_>) {
        let Some(mut ending) = self.ending.take() else { return };
        while self.save_next(&mut ending) {}
        if Instant::now() >= ending.until {
            for number in ending.current.iter().map(|current| &current.number).chain(&ending.left) {
                error!("{}: not saved: there was no time (save-timeout)", self.name_of(*number));
            }
            self.end = Some(Ok(()));
        } else if ending.current.is_none() && ending.left.is_empty() {
            self.end = Some(Ok(()));
        }
        let wanted = ending.saver.as_ref().map(Saver::socket);
        if ending.watched != wanted {
            if let Some(fd) = ending.watched.take() {
                unwatch(fd, ops);
            }
            if let Some(fd) = wanted {
                watch(Events::with_data_raw(fd, SAVER, EventSet::IN), ops);
            }
            ending.watched = wanted;
        }
        self.ending = Some(ending);
    }

    /// Hears what has become of one guest, and begins with the next; whether there is more to do
    /// now.
    fn save_next(&mut self, ending: &mut Ending) -> bool {
        if let Some(current) = ending.current.take() {
            ending.current = self.hear_of(current, ending);
            if ending.current.is_some() {
                return false;
            }
        }
        let Some(number) = ending.left.front().copied() else { return false };
        let Some(attended) = self.guests.get_mut(&number) else {
            ending.left.pop_front();
            return true;
        };
        if !self.worker.is_ready() || !attended.guest.is_at_rest() {
            return false;
        }
        ending.left.pop_front();
        if !has_something(&attended.guest, &self.worker, number) {
            // Its VMM has left, and with it what it had.
            return true;
        }
        if ending.saver.is_none() {
            match Saver::start(self.worker.spawner()) {
                Ok(saver) => ending.saver = Some(saver),
                Err(error) => {
                    error!("{}: not saved: there is no process for it: {error}", attended.guest.log().name());
                    return true;
                }
            }
        }
        let Some(saver) = &ending.saver else { return false };
        match attended.guest.save(saver, &mut self.worker) {
            Ok(()) => {
                let by = self.worker.number();
                ending.current = Some(Current { number, by, failed: None, verdict: None });
            }
            Err(error) => error!("{}: not saved: {error}", attended.guest.log().name()),
        }
        true
    }

    /// Hears what has become of a guest; the guest again, if that is not known.
    fn hear_of(&mut self, mut current: Current, ending: &mut Ending) -> Option<Current> {
        let number = current.number;
        if current.failed.is_none() {
            match ending.saver.as_ref().and_then(Saver::outcome) {
                None => return Some(current),
                Some(Ok(pages)) => {
                    info!("{}: saved, {pages} pages", self.name_of(number));
                    return None;
                }
                Some(Err(Failure::Ended)) if ending.spare_savers > 0 => {
                    warn!("{}: not saved: {}; once more", self.name_of(number), Failure::Ended);
                    ending.spare_savers -= 1;
                    ending.saver.take().into_iter().for_each(|saver| self.worker.let_go(saver));
                    ending.left.push_back(number);
                    return None;
                }
                Some(Err(failure)) => {
                    let ticket = self.guests.get_mut(&number)?.guest.ask_for_state(&mut self.worker);
                    current.failed = Some((failure.to_string(), ticket));
                }
            }
        }
        let name = self.name_of(number);
        match (&current.failed, &current.verdict) {
            (Some((why, _)), Some(verdict)) => {
                // Of what was not written the worker knows only that nobody reads it any more.
                error!(
                    "{name}: not saved: {why}{}",
                    verdict.as_ref().err().map_or(String::new(), |w| format!(" ({w})"))
                );
                None
            }
            (Some((why, _)), None) if current.by != self.worker.number() => {
                warn!("{name}: not saved: {why}; once more, as the worker has died");
                ending.left.push_back(number);
                None
            }
            _ => Some(current),
        }
    }

    /// The worker has said what has become of a guest's state, if that is what it was asked.
    pub(super) fn worker_tells_of_state(&mut self, guest: usize, said: u64, verdict: &Result<u16, String>) {
        if let Some(current) = self.ending.as_mut().and_then(|ending| ending.current.as_mut())
            && current.number == guest
            && current.failed.as_ref().is_some_and(|(_, ticket)| *ticket == said)
        {
            current.verdict = Some(verdict.clone());
        }
    }

    fn name_of(&self, number: usize) -> &str {
        self.guests.get(&number).map_or("a guest that has gone", |attended| attended.guest.log().name())
    }
}

/// Whether there is something to save of a guest. What it has not taken back is saved already.
fn has_something(guest: &Guest, worker: &Worker, number: usize) -> bool {
    guest.is_connected() && !guest.has_saved() && worker.may_hold(number, guest.life())
}
