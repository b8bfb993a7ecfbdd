// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One guest's connections, one after the other.
//!
//! A thread serves the socket: it waits for a VMM, then for that VMM's messages, and turns others
//! away meanwhile. It never waits for a VMM in the middle of a message or of an answer.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::FrontendReq;

use super::backend::Backend;
use super::budget::DescriptorBudget;
use super::dispatch::Dispatcher;
use super::guest::GuestSocket;
use super::listener::Endpoint;
use super::log_limit::Occasion;
use super::message::{Channel, End, Message};

/// How long to wait when a connection cannot be accepted, which mostly means that the process
/// has no file descriptor left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves a guest until no VMM can come (back): for ever if it connects to a listening socket.
pub fn serve(endpoint: Endpoint, guest: &Arc<GuestSocket>, descriptors: &DescriptorBudget) {
    match endpoint {
        Endpoint::Connected(stream) => serve_stream(stream, None, guest, descriptors),
        Endpoint::Listening(listener) => {
            let mut door = Door { listener, closed_until: None };
            loop {
                if door.wait(guest)
                    && let Some(stream) = door.accept(guest)
                {
                    serve_stream(stream, Some(&mut door), guest, descriptors);
                }
            }
        }
    }
}

/// A listening socket, at which nobody is looked for just after an accept has failed.
struct Door {
    listener: UnixListener,
    closed_until: Option<Instant>,
}

impl Door {
    /// How long nobody is looked for; `None` when somebody is now.
    fn closed_for(&mut self) -> Option<Duration> {
        let left = self.closed_until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.filter(|left| !left.is_zero());
        if left.is_none() {
            self.closed_until = None;
        }
        left
    }

    /// Waits; whether there may be somebody.
    fn wait(&mut self, guest: &GuestSocket) -> bool {
        if let Some(left) = self.closed_for() {
            std::thread::sleep(left);
        }
        match poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], None) {
            Ok(_) => true,
            Err(error) => {
                self.fail(guest, &error.into());
                false
            }
        }
    }

    fn accept(&mut self, guest: &GuestSocket) -> Option<UnixStream> {
        match self.listener.accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) => {
                self.fail(guest, &error);
                None
            }
        }
    }

    fn fail(&mut self, guest: &GuestSocket, error: &io::Error) {
        if !matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) {
            guest.log(Occasion::AcceptFailed, format_args!("a connection cannot be accepted: {error}"));
            self.closed_until = Some(Instant::now() + ACCEPT_RETRY);
        }
    }
}

/// Serves one connection. A defect of ours that a VMM sets off ends this connection and nothing
/// else.
fn serve_stream(stream: UnixStream, door: Option<&mut Door>, guest: &Arc<GuestSocket>, descriptors: &DescriptorBudget) {
    let Some(_admission) = descriptors.admit() else {
        let why = "a VMM was turned away: with one more the process could run out of files (RLIMIT_NOFILE)";
        guest.log(Occasion::Refused, format_args!("{why}"));
        return;
    };
    if panic::catch_unwind(AssertUnwindSafe(|| serve_messages(stream, door, guest))).is_err() {
        error!("{}: the connection ended by a panic", guest.name());
    }
}

/// Answers messages until the VMM closes the connection or sends what is no message at all. Then
/// all the guest had is dropped.
fn serve_messages(stream: UnixStream, mut door: Option<&mut Door>, guest: &Arc<GuestSocket>) {
    guest.log(Occasion::Connected, format_args!("connected"));
    let connected = guest.connect();
    let mut vmm = Vmm {
        channel: Channel::new(stream),
        dispatcher: Dispatcher::default(),
        backend: Backend::new(Arc::clone(guest), &connected),
        guest,
    };
    let end = loop {
        if let Err(end) = vmm.wait(door.as_deref_mut()).and_then(|()| vmm.go_on()) {
            break end;
        }
    };
    drop(vmm);
    drop(connected);
    match end {
        // The way in which a VMM that exits or dies appears.
        End::Disconnected => guest.log(Occasion::Ended, format_args!("disconnected")),
        end => guest.log(Occasion::Ended, format_args!("connection ended: {end}")),
    }
}

/// A VMM that is connected.
struct Vmm<'a> {
    channel: Channel,
    dispatcher: Dispatcher,
    backend: Backend,
    guest: &'a GuestSocket,
}

impl Vmm<'_> {
    /// Waits until the VMM sends something, takes an answer, or is gone. Others who come
    /// meanwhile are turned away. Once it is gone they are not, but are served next.
    fn wait(&mut self, mut door: Option<&mut Door>) -> Result<(), End> {
        loop {
            let closed_for = door.as_mut().and_then(|door| door.closed_for());
            let door_is_open = door.is_some() && closed_for.is_none();
            let timeout = closed_for.and_then(|left| Timespec::try_from(left).ok());
            let mut events = vec![PollFd::new(&self.channel, self.channel.events())];
            if let Some(door) = &door
                && door_is_open
            {
                events.push(PollFd::new(&door.listener, PollFlags::IN));
            }
            match poll(&mut events, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = !events[0].revents().is_empty();
            let other = events.get(1).is_some_and(|event| !event.revents().is_empty());
            if other
                && !self.is_gone()
                && let Some(door) = &mut door
                && let Some(second) = door.accept(self.guest)
            {
                drop(second);
                self.guest.log(Occasion::Refused, format_args!("a second VMM was turned away: one is connected"));
            }
            if ready {
                return Ok(());
            }
        }
    }

    /// Whether the VMM has closed its end. One that did so before another connected is gone when
    /// the other is seen.
    fn is_gone(&self) -> bool {
        let mut events = [PollFd::new(&self.channel, PollFlags::RDHUP)];
        // With no time to wait it fails for want of memory at most, and then nobody is gone.
        let polled = poll(&mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled.is_ok() && !events[0].revents().is_empty()
    }

    /// Sends what is left of an answer, or answers a message, whichever can be done now.
    fn go_on(&mut self) -> Result<(), End> {
        if self.channel.flush()?
            && let Some(message) = self.channel.receive()?
        {
            self.answer(message)?;
        }
        Ok(())
    }

    fn answer(&mut self, message: Message) -> Result<(), End> {
        let request = message.request;
        let handled = self.dispatcher.handle(&mut self.backend, message);
        if let Err(error) = handled.outcome {
            match FrontendReq::try_from(request) {
                Ok(name) => self.guest.log(Occasion::Message, format_args!("{name:?} failed: {error}")),
                Err(_) => self.guest.log(Occasion::Message, format_args!("message {request} failed: {error}")),
            }
        }
        match handled.reply {
            Some(body) => self.channel.reply(request, &body),
            None => Ok(()),
        }
    }
}
