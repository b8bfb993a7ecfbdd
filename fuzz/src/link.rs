// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What keeper and worker say to each other: any bytes are a message or an error, and a message
//! that is said again is the same. One of the two may have been taken over.

use std::fmt::Debug;

use rustix::net::{RecvFlags, SendFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use vhost_zcache::link::message::{Build, FromWorker, ToWorker};
use vhost_zcache::link::socket::Socket;

/// Reads the bytes as a message of either side.
pub fn run(data: &[u8]) {
    said_again::<ToWorker>(data);
    said_again::<FromWorker>(data);
    if let Ok(build) = serde_json::from_slice::<Build>(data) {
        let fits = Build::this().misfit(&build).is_none();
        let Build { link, ledger, store, .. } = Build::this();
        assert_eq!(fits, (build.link, build.ledger, build.store) == (link, ledger, store));
    }
}

fn said_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(data) else { return };
    let (one, other) = Socket::pair().expect("a descriptor is left");
    // Longer than a message of ours can be, and refused by the socket, is no mistake.
    if one.send(&message, &[], SendFlags::DONTWAIT).is_ok() {
        match other.receive::<T>(RecvFlags::DONTWAIT) {
            Ok(Some((again, files))) => assert_eq!((again, files.len()), (message, 0)),
            said => panic!("{message:?} was said, and heard was {said:?}"),
        }
    }
}
