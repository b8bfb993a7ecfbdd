// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What of a guest is left to the next keeper, and how it goes on there.

use std::collections::BTreeMap;
use std::fs::File;
use std::rc::Rc;
use std::time::Instant;

use super::{Connection, Guest, MOST_ATTEMPTS, Pending, State};
use crate::frontend::budget::DescriptorBudget;
use crate::frontend::log_limit::Occasion;
use crate::frontend::message::{Channel, Message, Progress};
use crate::keeper::dispatch::{Dispatcher, Facts};
use crate::keeper::handover::Snapshot;
use crate::keeper::handover::found::Left;
use crate::keeper::handover::note::{ChangeNote, ConnectionNote, GuestNote, MessageNote, PendingNote};
use crate::keeper::mirror::{Carried, Mirror};
use crate::keeper::state::Loading;

/// Gives a file its number.
type Numbers<'a> = dyn FnMut(&Rc<File>) -> u64 + 'a;

impl Guest {
    /// All that is known of it.
    #[must_use]
    pub fn snapshot(&self, number_of: &mut Numbers<'_>) -> Snapshot {
        let (connection, socket) = match &self.state {
            // What a worker drops is gone with the worker.
            State::Vacant | State::Leaving { .. } => (None, None),
            State::Connected(connection) => (Some(connection.note(number_of)), Some(connection.channel.socket())),
        };
        Snapshot { note: GuestNote { lives: self.lives, connection }, socket }
    }

    /// Goes on where the keeper before has ended.
    pub fn resume(&mut self, left: Left, files: &BTreeMap<u64, Rc<File>>, budget: &DescriptorBudget, facts: Facts) {
        let Left { note: GuestNote { lives, connection }, touched, socket, .. } = left;
        self.lives = lives;
        let Some(note) = connection else { return };
        let ended = |why: &str| self.log.say(Occasion::Ended, format_args!("connection ended: {why}"));
        if touched {
            return ended("the daemon was killed while it answered a message");
        }
        let Some(socket) = socket else { return ended("disconnected while there was no daemon") };
        let Some(admission) = budget.admit() else {
            return ended("there are not enough file descriptors for it (RLIMIT_NOFILE)");
        };
        let Some(parts) = Parts::of(note, files, facts) else {
            return ended("the service manager has not kept all of its files (FileDescriptorStoreMax)");
        };
        self.log.say(Occasion::Connected, format_args!("goes on"));
        let Parts { progress, dispatcher, mirror, pending, waiting } = parts;
        self.tickets += 1;
        let pending = pending.map(|pending| Pending { ticket: self.tickets, ..pending });
        let channel = Channel::at(socket, progress);
        // A state that was being loaded has ended with the worker.
        let loading = Loading::default();
        self.state = State::Connected(Box::new(Connection {
            channel,
            dispatcher,
            mirror,
            pending,
            waiting,
            admission,
            loading,
        }));
    }
}

impl Connection {
    fn note(&self, number_of: &mut Numbers<'_>) -> ConnectionNote {
        let mut number = |files: &[Rc<File>]| files.iter().map(&mut *number_of).collect::<Vec<u64>>();
        let mut change = |(change, files): &Carried| (change.clone(), number(files));
        let set_up = self.mirror.changes().iter().map(&mut change).collect();
        let pending = self.pending.as_ref().map(|pending| PendingNote {
            change: change(&pending.carried),
            request: pending.request,
            answer: pending.answer,
            attempts: pending.attempts,
        });
        let waiting = self.waiting.as_ref().map(|message| MessageNote {
            request: message.request,
            need_reply: message.need_reply,
            is_reply: message.is_reply,
            body: message.body.clone(),
            files: number(&message.files),
        });
        let Progress { incoming, files, outgoing } = self.channel.progress();
        let incoming_files = number(&files);
        let reply_ack = self.dispatcher.reply_ack();
        ConnectionNote { reply_ack, set_up, pending, waiting, incoming, incoming_files, outgoing }
    }
}

/// What a connection is made of, but its socket.
struct Parts {
    progress: Progress,
    dispatcher: Dispatcher,
    mirror: Mirror,
    pending: Option<Pending>,
    waiting: Option<Message>,
}

impl Parts {
    /// `None` if a file is missing.
    fn of(note: ConnectionNote, files: &BTreeMap<u64, Rc<File>>, facts: Facts) -> Option<Self> {
        let find = |numbers: Vec<u64>| -> Option<Vec<Rc<File>>> {
            numbers.iter().map(|number| files.get(number).cloned()).collect()
        };
        let carried = |(change, numbers): ChangeNote| -> Option<Carried> { Some((change, find(numbers)?)) };
        let mut mirror = Mirror::new(facts.num_queues);
        for change in note.set_up {
            mirror.commit(carried(change)?, 0);
        }
        let pending = match note.pending {
            None => None,
            Some(PendingNote { change, request, answer, attempts }) => {
                let (carried, since) = (carried(change)?, Instant::now());
                // A state that was on its way is not moved by another worker, as after any death.
                let attempts = if carried.0.is_of_state() { MOST_ATTEMPTS } else { attempts };
                Some(Pending { carried, request, answer, ticket: 0, since, attempts })
            }
        };
        let waiting = match note.waiting {
            None => None,
            Some(MessageNote { request, need_reply, is_reply, body, files }) => {
                Some(Message { request, need_reply, is_reply, body, files: find(files)? })
            }
        };
        let progress = Progress { incoming: note.incoming, files: find(note.incoming_files)?, outgoing: note.outgoing };
        Some(Self { progress, dispatcher: Dispatcher::at(facts, note.reply_ack), mirror, pending, waiting })
    }
}
