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
use crate::keeper::saver::Saver;

/// How far the end is.
pub(super) struct Ending {
    /// Guests that are not saved yet.
    left: VecDeque<usize>,
    /// The guest that is being saved, and the worker that does it.
    current: Option<(usize, u64)>,
    saver: Option<Saver>,
    /// When it is over, whatever is not saved.
    pub(super) until: Instant,
    /// The saver's socket, as long as it is waited on.
    watched: Option<RawFd>,
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
            self.ending = Some(Ending { left, current: None, saver: None, until, watched: None });
        }
    }

    /// Goes on with the end, if the daemon is to end.
    pub(super) fn go_on_ending(&mut self, ops: &mut EventOps<'_>) {
        let Some(mut ending) = self.ending.take() else { return };
        while self.save_next(&mut ending) {}
        if Instant::now() >= ending.until {
            for number in ending.current.iter().map(|(number, _)| number).chain(&ending.left) {
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
        if let Some((number, by)) = ending.current {
            let Some(outcome) = ending.saver.as_ref().and_then(Saver::outcome) else { return false };
            ending.current = None;
            match outcome {
                Ok(pages) => info!("{}: saved, {pages} pages", self.name_of(number)),
                Err(why) if by != self.worker.number() => {
                    warn!("{}: not saved: {why}; once more, as the worker has died", self.name_of(number));
                    ending.left.push_back(number);
                }
                Err(why) => error!("{}: not saved: {why}", self.name_of(number)),
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
            Ok(()) => ending.current = Some((number, self.worker.number())),
            Err(error) => error!("{}: not saved: {error}", attended.guest.log().name()),
        }
        true
    }

    fn name_of(&self, number: usize) -> &str {
        self.guests.get(&number).map_or("a guest that has gone", |attended| attended.guest.log().name())
    }
}

/// Whether there is something to save of a guest. What it has not taken back is saved already.
fn has_something(guest: &Guest, worker: &Worker, number: usize) -> bool {
    guest.is_connected() && !guest.has_saved() && worker.may_hold(number, guest.life())
}
