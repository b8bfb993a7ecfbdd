// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One guest's connections, one after the other.

use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use log::{error, info, warn};
use vhost::vhost_user::{BackendReqHandler, Error};

use super::backend::Backend;
use super::guest::GuestSocket;
use super::listener::Endpoint;

/// How long to wait when a connection cannot be accepted, which mostly means that the process
/// has no file descriptor left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves a guest until no VMM can come (back): for ever if it connects to a listening socket.
pub fn serve(endpoint: Endpoint, guest: &Arc<GuestSocket>) {
    match endpoint {
        Endpoint::Connected(stream) => serve_stream(stream, guest),
        Endpoint::Listening(listener) => loop {
            match listener.accept() {
                Ok((stream, _)) => serve_stream(stream, guest),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    warn!("{}: a connection cannot be accepted: {error}", guest.name());
                    thread::sleep(ACCEPT_RETRY);
                }
            }
        },
    }
}

/// Serves one connection. A defect of ours that a VMM sets off ends this connection and nothing
/// else.
fn serve_stream(stream: UnixStream, guest: &Arc<GuestSocket>) {
    if panic::catch_unwind(AssertUnwindSafe(|| serve_messages(stream, guest))).is_err() {
        error!("{}: the connection ended by a panic", guest.name());
    }
}

/// Answers messages until the VMM closes the connection or sends something that makes no sense.
/// Then all the guest had is dropped.
fn serve_messages(stream: UnixStream, guest: &Arc<GuestSocket>) {
    info!("{}: connected", guest.name());
    let connected = guest.connect();
    let backend = Backend::new(Arc::clone(guest), Arc::clone(connected.session()));
    let mut messages = BackendReqHandler::from_stream(stream, Arc::new(Mutex::new(backend)));
    let end = loop {
        if let Err(error) = messages.handle_request() {
            break error;
        }
    };
    drop(messages);
    drop(connected);
    match end {
        // The ways in which a VMM that exits or dies appears.
        Error::Disconnected | Error::PartialMessage | Error::SocketBroken(_) => {
            info!("{}: disconnected", guest.name());
        }
        error => warn!("{}: connection ended: {error}", guest.name()),
    }
}
