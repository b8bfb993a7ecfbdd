// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SPEC.md sections 2 to 5: identification, virtqueues, features, configuration space.

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use virtio_bindings::bindings::virtio_config::{VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1};

use crate::client::daemon::Daemon;
use crate::client::wire::{Req, opcode, status};
use crate::client::{Client, Setup};
use crate::requests_on;

/// Little-endian word of the configuration space.
fn word(config: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(config[offset..offset + 4].try_into().expect("four bytes"))
}

/// Conformance: ZC-DEV-1.
#[test]
fn the_device_says_what_it_is() {
    let daemon = Daemon::with(&[""], &["--queues=3"]);
    let config = Client::connect(&daemon.socket(0), Setup::default()).config(0, 32);
    assert_eq!(&config[..8], b"ZCCH\x01\x00\x00\x00");
    assert_eq!(word(&config, 8), 1, "features: TAKE_BACK");
    assert_eq!(word(&config, 12), 3, "num_queues");
    assert!(word(&config, 16) >= 1, "max_batch");
    assert!(word(&config, 20) >= 1, "max_pools");
    assert_eq!(word(&config, 24), 4096, "page_size");
    assert_eq!(word(&config, 28), 0, "reserved");
}

/// Conformance: ZC-DEV-2.
#[test]
fn every_queue_takes_every_request() {
    let daemon = Daemon::start();
    let mut guest = Client::connect(&daemon.socket(0), Setup { queues: 8, ..Setup::default() });
    for queue in 0..8 {
        let opening = [Req::hello(1), Req::create(1, 0, [0; 16])];
        for request in opening.into_iter().chain(requests_on(1)) {
            let opcode = request.opcode();
            let answer = guest.submit(queue, &[request]).remove(0);
            assert_eq!(answer.status, status::OK, "opcode {opcode} on queue {queue}");
        }
    }
}

/// Conformance: ZC-DEV-3.
#[test]
fn features_are_those_of_the_specification() {
    let daemon = Daemon::start();
    let offered = Client::connect(&daemon.socket(0), Setup::default()).frontend().get_features().expect("GET_FEATURES");
    assert_ne!(offered & 1 << VIRTIO_F_VERSION_1, 0, "VIRTIO_F_VERSION_1 is not offered");
    assert_eq!(offered & 1 << VIRTIO_F_RING_PACKED, 0, "VIRTIO_F_RING_PACKED is offered");
    assert_eq!(offered & 0xff_ffff, 0, "a device-specific feature bit is offered");
}

/// Conformance: ZC-DEV-4, ZC-DEV-5, ZC-DEV-6.
#[test]
fn the_configuration_space_can_be_read_anywhere_and_not_written() {
    let daemon = Daemon::start();
    let mut guest = Client::connect(&daemon.socket(0), Setup::default());
    let whole = guest.config(0, 256);
    assert!(whole[32..].iter().all(|byte| *byte == 0), "bytes after the layout are not zero");
    // The crate's front-end refuses offsets the protocol does not allow, 256 and above.
    for (offset, size) in [(0, 1), (1, 3), (4, 4), (5, 8), (31, 2), (30, 100), (32, 1), (100, 156), (255, 1)] {
        let expected: Vec<u8> = whole[offset as usize..].iter().copied().take(size as usize).collect();
        assert_eq!(guest.config(offset, size), expected, "{size} bytes at {offset}");
    }
    for (offset, bytes) in [(0, vec![0xff; 32]), (0, vec![0; 256]), (12, vec![9; 4]), (255, vec![1])] {
        guest
            .frontend()
            .set_config(offset, VhostUserConfigFlags::WRITABLE, &bytes)
            .unwrap_or_else(|error| panic!("a write of {} bytes at {offset} ended with {error}", bytes.len()));
        assert_eq!(guest.config(0, 256), whole, "a write of {} bytes at {offset} had an effect", bytes.len());
    }
    guest.hello(1);
    guest.create(1, 0);
    assert_eq!(guest.status(Req::new(opcode::HELLO, 0, 0)), status::UNSUPPORTED);
    guest.reset();
    assert_eq!(guest.config(0, 256), whole, "the configuration space changed while the device was in use");
}
