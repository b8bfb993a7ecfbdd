// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why the daemon did not start. Each is one line for the user.

use std::io;

use thiserror::Error;
use zcache_store::StoreError;

use crate::config::fault::Faults;
use crate::frontend::listener::SocketError;
use crate::keeper::handover::manifest::ManifestError;
use crate::sandbox::SandboxError;
use crate::saving::SavingError;

/// Why the daemon did not start, or had to end.
#[derive(Debug, Error)]
pub enum Error {
    /// A socket cannot be used.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The configuration has faults.
    #[error("{}", .0.lines().join("\n"))]
    Config(Faults),
    /// The store cannot be made.
    #[error("Cannot make the store: {0}")]
    Store(#[from] StoreError),
    /// A guest's thread cannot be started.
    #[error("Cannot start a thread: {0}")]
    Thread(io::Error),
    /// States cannot be saved or taken back.
    #[error(transparent)]
    Saving(#[from] SavingError),
    /// The control plane cannot run.
    #[error("Cannot wait for events: {0}")]
    Events(event_manager::Error),
    /// Signals cannot be received.
    #[error("Cannot receive signals: {0}")]
    Signals(io::Error),
    /// The worker cannot be started.
    #[error("Cannot start the worker process: {0}")]
    Worker(io::Error),
    /// The worker ended before it was ready, and has said why.
    #[error("The worker process ended at its start")]
    NoStart,
    /// The process that starts workers cannot be started.
    #[error("Cannot start the process that starts workers: {0}")]
    Spawner(io::Error),
    /// The process is not confined, and does not go on.
    #[error("Cannot confine the process: {0}")]
    Sandbox(#[from] SandboxError),
    /// Keeper and worker do not understand each other.
    #[error("Keeper and worker cannot talk: {0}")]
    Link(io::Error),
    /// What the daemon before has left cannot be gone by.
    #[error(
        "What the daemon before has left with the service manager is kept for a program that knows it: {0}. Start that \
         one again, or stop the service to drop all that guests have"
    )]
    Manifest(ManifestError),
    /// Guests have more or fewer queues than their VMMs know of.
    #[error("--queues was {0} when guests have connected, and cannot be {1} before they have left")]
    Queues(u16, u16),
    /// The service manager cannot be reached.
    #[error("Cannot reach the service manager at $NOTIFY_SOCKET: {0}")]
    Manager(io::Error),
    /// The process has no file descriptor left.
    #[error("Cannot have another file descriptor: {0}")]
    Descriptors(io::Error),
}
