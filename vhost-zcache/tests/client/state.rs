// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that moves: what VMMs do with a device's state, in their order.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use vhost::VhostBackend;
use vhost::vhost_user::message::{
    VhostTransferStateDirection as Direction, VhostTransferStatePhase as Phase, VhostUserHeaderFlag,
    VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};

use super::{Client, PATIENCE};

/// What the state goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A pipe, as QEMU has it.
    Pipe,
    /// A pair of sockets, as Cloud Hypervisor has it.
    Socket,
}

impl Way {
    /// The VMM's end and the device's.
    fn ends(self, direction: Direction) -> (File, OwnedFd) {
        match self {
            Self::Socket => {
                let (ours, theirs) = UnixStream::pair().expect("sockets");
                (OwnedFd::from(ours).into(), theirs.into())
            }
            Self::Pipe => {
                let (reader, writer) = io::pipe().expect("a pipe");
                let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
                if direction == Direction::SAVE { (reader.into(), writer) } else { (writer.into(), reader) }
            }
        }
    }
}

impl Client {
    /// Begins to save the state; what to read it from.
    pub fn begin_save(&self, way: Way) -> Result<File, vhost::Error> {
        self.begin(Direction::SAVE, way)
    }

    /// Begins to load a state; what to write it to.
    pub fn begin_load(&self, way: Way) -> Result<File, vhost::Error> {
        self.begin(Direction::LOAD, way)
    }

    fn begin(&self, direction: Direction, way: Way) -> Result<File, vhost::Error> {
        let (ours, theirs) = way.ends(direction);
        let file = self.frontend.set_device_state_fd(direction, Phase::STOPPED, theirs)?;
        assert!(file.is_none(), "the device has a file of its own");
        Ok(ours)
    }

    /// Whether the state was moved.
    pub fn check_state(&self) -> bool {
        self.frontend.check_device_state().is_ok()
    }

    /// Stops all queues and saves the state.
    pub fn save(&mut self, way: Way) -> Vec<u8> {
        self.stop_all();
        let mut file = self.begin_save(way).expect("SET_DEVICE_STATE_FD");
        let mut state = Vec::new();
        file.read_to_end(&mut state).expect("the state");
        assert!(self.check_state(), "the state was not saved");
        state
    }

    /// Loads a state; whether that worked.
    pub fn load(&self, way: Way, state: &[u8]) -> bool {
        let mut file = self.begin_load(way).expect("SET_DEVICE_STATE_FD");
        // A device that has seen enough closes its end.
        let _ = file.write_all(state);
        drop(file);
        self.check_state()
    }

    /// The same machine, memory and rings, at another socket, where nothing is set up yet, as Cloud
    /// Hypervisor begins when it restores a machine. The connection there was ends.
    pub fn moved_to(self, socket: &Path) -> Self {
        let Self { frontend, setup, ram, rings } = self;
        drop(frontend);
        Self { frontend: restored(socket), setup, ram, rings }
    }

    /// The same machine at another socket, as long as the first one is still there.
    pub fn set_out_to(&mut self, socket: &Path) -> Frontend {
        std::mem::replace(&mut self.frontend, restored(socket))
    }

    /// Goes on at a connection that was left.
    pub fn come_back_to(&mut self, frontend: Frontend) {
        self.frontend = frontend;
    }
}

/// A connection of a VMM that knows all features from before.
fn restored(socket: &Path) -> Frontend {
    let mut stream = UnixStream::connect(socket);
    let start = std::time::Instant::now();
    while stream.is_err() && start.elapsed() < PATIENCE {
        stream = UnixStream::connect(socket);
    }
    let stream = stream.expect("a connection");
    stream.set_read_timeout(Some(2 * PATIENCE)).expect("a timeout");
    let mut frontend = Frontend::from_stream(stream, 64);
    frontend.set_owner().expect("SET_OWNER");
    frontend.get_features().expect("GET_FEATURES");
    let features = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | VhostUserProtocolFeatures::LOG_SHMFD
        | VhostUserProtocolFeatures::DEVICE_STATE;
    frontend.set_protocol_features(features).expect("SET_PROTOCOL_FEATURES");
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    frontend
}
