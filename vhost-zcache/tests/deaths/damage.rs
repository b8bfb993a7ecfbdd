// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that is damaged while a worker dies.

use rustix::process::Signal;

use crate::client::daemon::Daemon;
use crate::client::wire::{PERSISTENT, Req, status};
use crate::client::{Client, page};

/// What a guest's roster begins with: the layout, the guest's number and no shard, and that it is a
/// roster that a later process can make sense of.
fn roster(guest: u32) -> Vec<u8> {
    [zcache_store::LAYOUT.to_le_bytes(), u64::from(guest).to_le_bytes()]
        .concat()
        .into_iter()
        .chain(10u32.to_le_bytes())
        .collect()
}

#[test]
fn without_its_list_of_pools_a_guest_has_lost_everything_and_is_told_so() {
    let daemon = Daemon::with(&["", ""], &[]);
    let mut victim = Client::attach(&daemon.socket(0));
    let mut other = Client::attach(&daemon.socket(1));
    for guest in [&mut victim, &mut other] {
        guest.create(1, PERSISTENT);
        assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    }
    assert_eq!(daemon.damage(&roster(1)), 1, "the test does not find the list");
    daemon.signal_worker(Signal::KILL);
    assert_eq!(victim.status(Req::get(1, 1, 1, 0)), status::NO_SESSION);
    assert_eq!(daemon.lines("all that the guest has stored is lost"), 1);
    let (_, resumed) = victim.hello(1);
    assert!(!resumed, "its pages are said to be there");
    victim.create(1, PERSISTENT);
    assert_eq!(victim.get(1, 1, 1), Err(status::MISS));
    assert_eq!(other.get(1, 1, 1), Ok(page(1)), "another guest");
}
