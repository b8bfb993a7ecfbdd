// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest with a bit of everything.

use crate::client::daemon::Daemon;
use crate::client::wire::{PAGE, PERSISTENT, Page, Req, SHARED, status};
use crate::client::{Client, Setup, page};

/// UUID of the shared pool, and the socket option that allows it.
pub(crate) const UUID: [u8; 16] = [0xab; 16];
pub(crate) const ALLOW: &str = "allow-shared=abababab-abab-abab-abab-abababababab";

/// Its pools.
pub(crate) const SWAP: u32 = 7;
pub(crate) const EMPTY: u32 = 8;
pub(crate) const FILES: u32 = 9;
pub(crate) const COMMON: u32 = 10;

/// A page of some kind: of zeros, of one word, compressible or not.
pub(crate) fn content(number: u64) -> Page {
    match number % 4 {
        0 => [0; PAGE],
        1 => [number.to_le_bytes()[0]; PAGE],
        2 => page(number),
        _ => {
            let mut state = number;
            std::array::from_fn(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()[0]
            })
        }
    }
}

/// Where a page of the swap pool is.
fn place(number: u64) -> (u8, u64) {
    let index = match number % 5 {
        0 => u64::MAX - number,
        1 => number << 40,
        _ => number,
    };
    (u8::try_from(number % 9).expect("a small number"), index)
}

/// Connects and stores so many persistent pages, and some of each other kind.
pub(crate) fn settle(daemon: &Daemon, number: usize, pages: u64) -> Client {
    let setup = Setup { ram: 4 << 20, queue_size: 64, ..Setup::default() };
    let mut guest = Client::connect(&daemon.socket(number), setup);
    guest.hello(1);
    guest.create(SWAP, PERSISTENT);
    guest.create(EMPTY, PERSISTENT);
    guest.create(FILES, 0);
    assert_eq!(guest.status(Req::create(COMMON, SHARED, UUID)), status::OK);
    store(&mut guest, pages);
    for index in 0..20 {
        assert_eq!(guest.put(FILES, 1, index, &page(index)), status::OK);
        assert_eq!(guest.put(COMMON, 1, index, &page(index)), status::OK);
    }
    guest
}

/// Stores so many persistent pages.
pub(crate) fn store(guest: &mut Client, pages: u64) {
    for first in (0..pages).step_by(16) {
        let puts: Vec<Req> = (first..pages.min(first + 16))
            .map(|number| {
                let (object, index) = place(number);
                Req::put(SWAP, object, index, &content(number))
            })
            .collect();
        for answer in guest.submit((first / 16 % 2) as usize, &puts) {
            assert_eq!(answer.status, status::OK);
        }
    }
}

/// Makes sure that all persistent pages are there.
pub(crate) fn verify(guest: &mut Client, pages: u64) {
    for number in 0..pages {
        let (object, index) = place(number);
        let got = guest.get(SWAP, object, index);
        assert!(got == Ok(content(number)), "page {number} is lost or wrong: status {:?}", got.err());
    }
    assert_eq!(guest.get(EMPTY, 1, 1), Err(status::MISS));
}

/// Makes sure that a guest has nothing at all, and no memory either.
pub(crate) fn expect_nothing(daemon: &Daemon, number: usize) {
    let stats = daemon.guest_stats(number);
    assert_eq!(stats["pools"].as_array().map(Vec::len), Some(0), "pools are left: {stats}");
    assert_eq!(stats["session"], false, "a session is left: {stats}");
}
