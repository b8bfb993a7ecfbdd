// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Messages between keeper and worker.

use serde::{Deserialize, Serialize};

use crate::keeper::handover::manifest;
use crate::ledger;

/// Version of what the two say to each other, which is another whenever a message is. One that an
/// older keeper never sends may be added: a worker of this build does without.
const LINK: u32 = 3;

/// What a worker says of itself before anything else. This one is the same in all releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Its release.
    pub release: String,
    /// Version of the messages.
    pub link: u32,
    /// Layout of the ledger.
    pub ledger: u64,
    /// Layout of the store's memory.
    pub store: u64,
    /// Layout of what a keeper leaves to the next. Releases that do not say know of none.
    #[serde(default)]
    pub manifest: u64,
}

impl Build {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        Self {
            release: env!("CARGO_PKG_VERSION").into(),
            link: LINK,
            ledger: ledger::LAYOUT,
            store: zcache_store::LAYOUT,
            manifest: manifest::LAYOUT,
        }
    }

    /// What of another build does not fit this one, if anything.
    #[must_use]
    pub fn misfit(&self, other: &Self) -> Option<&'static str> {
        let Self { release: _, link, ledger, store, manifest } = self;
        if *link != other.link {
            Some("the messages between keeper and worker")
        } else if *ledger != other.ledger {
            Some("the ledger")
        } else if *store != other.store {
            Some("the store's memory")
        } else if *manifest != other.manifest {
            Some("what a keeper leaves to the next")
        } else {
            None
        }
    }
}

/// From the keeper to the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The first message. With it come the files of the ledger, of the settings (a parcel), of the
    /// statistics' socket if there is one, of the store's memory if there is any, and the one that
    /// tells when memory is short, if there is one.
    Start {
        /// Number of this worker, from 1 on.
        worker: u64,
        /// The connection that each guest has, or 0.
        lives: Vec<u64>,
        /// Whether the socket of the statistics comes along.
        stats: bool,
        /// Whether the store's memory comes along.
        arena: bool,
        /// Whether what tells when memory is short comes along.
        pressure: bool,
    },
    /// Something is to be changed for a guest.
    Change {
        /// Number of the guest.
        guest: usize,
        /// What is to be changed.
        change: Change,
        /// By what the worker has to say when it is done; `None` if it has not.
        ticket: Option<u64>,
    },
    /// Other settings, in the parcel that comes along. Guests that are not in them have no
    /// connection any more.
    Settings,
    /// Something is to be done once, besides all else.
    Errand {
        /// By what the worker has to say what has come of it.
        ticket: u64,
        /// What is to be done.
        errand: Errand,
    },
    /// Asks for a [`FromWorker::Pong`].
    Ping,
    /// The last message: it stops all rings, says so, and ends.
    Leave,
}

/// From the worker to the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The first message.
    Build(Build),
    /// The store was made; its memory comes along.
    Arena,
    /// All that the worker before had is there again.
    Ready,
    /// A change was carried out, or refused.
    Done {
        /// Number of the guest.
        guest: usize,
        /// Of which change.
        ticket: u64,
        /// Where a ring was stopped, if that was the change, else 0; or why it was refused.
        outcome: Result<u16, String>,
    },
    /// The last settings hold: what is above a limit has gone, as far as it can.
    Settled,
    /// An errand has come to its end.
    Run {
        /// Of which errand.
        ticket: u64,
        /// What has come of it, in a line, or why nothing has.
        outcome: Result<String, String>,
    },
    /// It is alive.
    Pong,
    /// A thread has panicked; what it has said, and where.
    Panicked(String),
    /// No ring is served any more, and it ends.
    Left,
}

/// What the operator wants to be done once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Errand {
    /// Memory is given back to the host.
    GiveBack {
        /// Bytes of it.
        bytes: u64,
    },
    /// A guest's ephemeral pages are dropped.
    Flush {
        /// Number of the guest.
        guest: usize,
        /// Those of one pool, or of all that are the guest's own.
        pool: Option<u32>,
    },
}

/// What changes for a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A VMM has connected; which connection it is.
    Connect(u64),
    /// The connection has ended.
    Disconnect,
    /// The features that were acknowledged.
    Features(u64),
    /// All regions of memory, each with its file.
    Table(Vec<Region>),
    /// One more region, with its file.
    AddRegion(Region),
    /// One region less.
    RemoveRegion(Region),
    /// Another log of what is written to the guest's memory, in the file that comes along.
    Log(LogArea),
    /// Something about a ring.
    Ring(usize, RingChange),
    /// No ring is to be served, whatever else is said, until it is said that it may be again.
    Hold(bool),
    /// The guest's state is to be moved to or from the file that comes along.
    MoveState(Direction),
    /// Whether the state was moved is to be said, as soon as that is known.
    CheckState,
}

impl Change {
    /// Whether it is about the guest's state. Then it concerns one worker, and if that dies it is
    /// not asked of the next.
    #[must_use]
    pub fn is_of_state(&self) -> bool {
        matches!(self, Self::MoveState(_) | Self::CheckState)
    }
}

/// Which way a guest's state goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// To the VMM.
    Save,
    /// From the VMM.
    Load,
}

/// What changes about a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RingChange {
    /// Number of entries; 0 if it cannot be served.
    Size(u16),
    /// Where it is; `None` if that is nowhere.
    Place(Option<Addresses>),
    /// Where the VMM believes it stands.
    Base(u16),
    /// The event by which the driver kicks, which comes along if there is one.
    Kick(bool),
    /// The event that tells the driver of used chains, which comes along if there is one.
    Call(bool),
    /// Whether the VMM lets it run.
    Enable(bool),
    /// It is stopped until it gets another kick event.
    Stop,
}

/// A region of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// First guest-physical address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Where the VMM has mapped it, by which it names the rings.
    pub vmm_address: u64,
    /// Where it begins in its file.
    pub offset: u64,
}

/// Where in its file a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogArea {
    /// Bytes.
    pub size: u64,
    /// Where it begins.
    pub offset: u64,
}

/// Guest-physical addresses of a ring's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
}
