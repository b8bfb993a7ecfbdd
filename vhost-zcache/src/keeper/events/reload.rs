// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The keeper goes by another configuration: guests come and go, limits change, connections stay.

use std::os::fd::RawFd;

use event_manager::{EventOps, EventSet, Events};
use log::{error, info};

use super::{Attended, Keeper, RELOAD, Watched, unwatch, watch};
use crate::admin::wish::Alteration;
use crate::config::change::{self, Plan};
use crate::config::settings::Settings;
use crate::frontend::listener::BoundSocket;
use crate::keeper::door::{Door, Way};
use crate::keeper::guest::Guest;
use crate::keeper::log::Log;
use crate::keeper::reload::{Cause, Proposal};
use crate::link::parcel;

impl Keeper {
    /// Has the configuration read again.
    pub(super) fn reload(&mut self, disconnect: bool) {
        self.begin(Cause::File { disconnect }, "Reading the configuration again");
    }

    /// Has keys of the configuration be others.
    pub(super) fn alter(&mut self, alteration: Alteration) {
        self.begin(Cause::Operator(alteration), "The configuration is to be another");
    }

    fn begin(&mut self, cause: Cause, what: &str) {
        match self.reload.begin(self.worker.spawner(), &self.config, cause) {
            Ok(()) => info!("{what}"),
            Err(why) => self.reload_is_refused(&[why]),
        }
    }

    /// A signal says that the file is another. Who sends one does not know what is under way.
    pub(super) fn reload_by_signal(&mut self) {
        if !self.reload.is_put_off() {
            self.reload(false);
        }
    }

    /// Reads it once more, if it was another meanwhile.
    fn reload_is_over(&mut self) {
        if self.reload.was_put_off() {
            self.reload(false);
        }
    }

    fn reload_is_refused(&mut self, lines: &[String]) {
        for line in lines {
            error!("The configuration stays as it is: {line}");
        }
        if let Some(control) = &mut self.control {
            control.answer_reload(&Err(lines.join("\n")));
        }
        self.reload_is_over();
    }

    /// The reader has said something.
    pub(super) fn heed_reader(&mut self, ops: &mut EventOps<'_>) {
        let taken = match self.reload.hear() {
            None => return,
            Some(read) => read.and_then(|proposal| self.take(proposal, ops)),
        };
        if let Err(lines) = taken {
            self.reload_is_refused(&lines);
        }
    }

    /// A beat has passed.
    pub(super) fn beat_of_reload(&mut self) {
        if self.reload.beat() {
            self.reload_is_refused(&["it takes too long to read".into()]);
        }
    }

    /// The worker goes by all that it was told.
    pub(super) fn reload_is_settled(&mut self) {
        let summary = self.reload.settled();
        self.reload_is_done(summary);
    }

    /// The worker goes by all that it was told at its start.
    pub(super) fn worker_begins_with_reload(&mut self) {
        let summary = self.reload.ready(self.worker.number());
        self.reload_is_done(summary);
    }

    fn reload_is_done(&mut self, summary: Option<String>) {
        let Some(summary) = summary else { return };
        info!("The configuration was taken: {summary}");
        if let Some(control) = &mut self.control {
            control.answer_reload(&Ok(summary));
        }
        self.reload_is_over();
    }

    /// Waits for what the reader says.
    pub(super) fn watch_reader(&mut self, ops: &mut EventOps<'_>) {
        let wanted: Option<RawFd> = self.reload.watched();
        if self.reader_watched != wanted {
            if let Some(fd) = self.reader_watched.take() {
                unwatch(fd, ops);
            }
            if let Some(fd) = wanted {
                watch(Events::with_data_raw(fd, RELOAD, EventSet::IN), ops);
            }
            self.reader_watched = wanted;
        }
        self.reload.close();
    }

    /// Takes all of what was read, or nothing.
    fn take(&mut self, mut proposal: Proposal, ops: &mut EventOps<'_>) -> Result<(), Vec<String>> {
        let plan = change::between(&self.config, &proposal.config)?;
        self.check_removed(&plan, proposal.cause.disconnects())?;
        if plan.added.len() > self.numbers.free() {
            return Err(vec![format!(
                "there is room for {} guests until the daemon is started again (max-guests)",
                self.numbers.room()
            )]);
        }
        let mut sockets = Vec::new();
        for guest in &plan.added {
            let files = proposal.sockets.remove(&guest.name).unwrap_or_default();
            let path = guest.path().ok_or_else(|| vec![format!("{} has no path", guest.name)])?;
            sockets.push(BoundSocket::received(path, files).map_err(|error| vec![error.to_string()])?);
        }
        let mut numbers = self.numbers.clone();
        // Of guests that go the numbers are given to others when nobody does anything for them.
        let new: Vec<usize> = plan.added.iter().filter_map(|guest| numbers.give(&guest.name)).collect();
        let mut settings: Settings = self.worker.settings().clone();
        settings.become_of(&proposal.config, |name| numbers.of(name));
        let parcel = parcel::pack(&settings).map_err(|error| vec![format!("it cannot be passed on: {error}")])?;

        // From here on nothing fails.
        proposal.take();
        let removed: Vec<(usize, String)> =
            plan.removed.iter().filter_map(|name| Some((numbers.of(name)?, name.clone()))).collect();
        let gone = removed.iter().filter_map(|(number, _)| self.remove(*number, ops)).collect();
        removed.iter().for_each(|(number, _)| numbers.take_back(*number));
        self.numbers = numbers;
        self.config = proposal.config;
        ::log::set_max_level(self.config.log_level);
        self.worker.settle(settings, parcel, &new);
        if let Some(handover) = &mut self.handover {
            handover.rename(&self.numbers, &self.config, &removed);
        }
        for guest in &self.config.guests {
            let number = self.numbers.of(&guest.name);
            if let Some(attended) = number.and_then(|number| self.guests.get_mut(&number)) {
                attended.guest.set_peers(guest.peers.clone());
            }
        }
        for ((number, guest), socket) in new.into_iter().zip(&plan.added).zip(sockets) {
            let door = Door::new(Way::Bound(socket.take()));
            self.descriptors.add_guest();
            if let Some(handover) = &mut self.handover {
                handover.keep_door(&guest.name, door.listener());
            }
            let mut guest = Guest::new(number, Log::new(guest.name.clone()), Some(door), guest.peers.clone());
            guest.find_saved(&mut self.saved);
            info!("{}: ready", guest.log().name());
            self.guests.insert(number, Attended { guest, watched: Watched::default() });
            self.watch_guest(number, ops);
        }
        let lasts = match proposal.cause {
            Cause::File { .. } => "",
            Cause::Operator(_) if plan.is_empty() => "",
            Cause::Operator(_) if self.reload.has_file() => " (until the file is read again, unless it says so too)",
            Cause::Operator(_) => " (until the daemon is started anew)",
        };
        self.reload.taken(gone, format!("{plan}{lasts}"), self.worker.number());
        Ok(())
    }

    /// Whether guests can go.
    fn check_removed(&self, plan: &Plan, disconnect: bool) -> Result<(), Vec<String>> {
        let is_connected = |name: &&String| {
            let attended = self.numbers.of(name).and_then(|number| self.guests.get(&number));
            attended.is_some_and(|attended| attended.guest.is_connected())
        };
        let refusal = |name: &String| {
            format!(
                "guest.{name} is not removed while its VMM is connected: unplug the device, or end the connection by \
                 --disconnect"
            )
        };
        let refused: Vec<String> = plan.removed.iter().filter(is_connected).map(refusal).collect();
        if refused.is_empty() || disconnect { Ok(()) } else { Err(refused) }
    }

    /// A guest goes, with its socket.
    fn remove(&mut self, number: usize, ops: &mut EventOps<'_>) -> Option<Guest> {
        let Attended { mut guest, watched } = self.guests.remove(&number)?;
        for fd in watched.door.into_iter().chain(watched.vmm.map(|(fd, _)| fd)).chain(watched.saver) {
            unwatch(fd, ops);
        }
        guest.dismiss(&mut self.worker);
        guest.leave_saved(&mut self.saved);
        info!("{}: removed", guest.log().name());
        guest.close();
        self.descriptors.remove_guest();
        Some(guest)
    }
}
