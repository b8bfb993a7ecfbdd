// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is written down of the daemon and its guests. Files are numbers here.

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::keeper::dispatch::Answer;
use crate::keeper::numbers::Numbers;
use crate::link::message::Change;

/// What is known of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonNote {
    /// The guests' numbers.
    pub numbers: Numbers,
    /// By what it goes.
    pub config: Config,
    /// Workers that were started.
    pub worker: u64,
}

/// What is known of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestNote {
    /// Connections there were.
    pub lives: u64,
    /// The one there is.
    pub connection: Option<ConnectionNote>,
}

/// A change with its files.
pub type ChangeNote = (Change, Vec<u64>);

/// What is known of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionNote {
    /// Whether the VMM may ask for acknowledgements.
    pub reply_ack: bool,
    /// The changes by which a device that knows nothing becomes what was set up.
    pub set_up: Vec<ChangeNote>,
    /// The change that is under way.
    pub pending: Option<PendingNote>,
    /// What the VMM said next.
    pub waiting: Option<MessageNote>,
    /// What has come of the message after that, and the files that came with it.
    pub incoming: Vec<u8>,
    /// The files.
    pub incoming_files: Vec<u64>,
    /// Answers that the VMM has not taken.
    pub outgoing: Vec<u8>,
}

/// A change that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingNote {
    /// The change.
    pub change: ChangeNote,
    /// The message that asked for it.
    pub request: u32,
    /// How it is answered.
    pub answer: Answer,
    /// Workers that were asked.
    pub attempts: u32,
}

/// A message that was not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageNote {
    /// What is asked for.
    pub request: u32,
    /// Whether an acknowledgement is asked for.
    pub need_reply: bool,
    /// Whether it calls itself an answer.
    pub is_reply: bool,
    /// What follows the header.
    pub body: Vec<u8>,
    /// Files.
    pub files: Vec<u64>,
}
