// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SPEC.md section 9: order on a queue and between queues.

use std::collections::VecDeque;

use crate::client::daemon::Daemon;
use crate::client::wire::{EXCLUSIVE, PERSISTENT, Req, decode, status};
use crate::client::{Client, Posted, Setup, Shape, page};

/// Conformance: ZC-DEV-38.
#[test]
fn a_queue_is_served_in_order_however_full_it_is() {
    let daemon = Daemon::start();
    let mut guest = Client::connect(&daemon.socket(0), Setup { queue_size: 256, ..Setup::default() });
    guest.hello(1);
    guest.create(1, 0);
    let mut under_way: VecDeque<(Posted, Vec<Req>, Option<u64>)> = VecDeque::new();
    let mut content = None;
    for round in 0..3000 {
        let request = match round * 7 % 5 {
            0 | 1 => {
                content = Some(round);
                Req::put(1, 1, 1, &page(round))
            }
            2 => {
                content = None;
                Req::flush_page(1, 1, 1)
            }
            _ => Req::get(1, 1, 1, 0),
        };
        let batch = vec![request];
        under_way.push_back((guest.post(1, &batch, Shape::Whole), batch, content));
        // `wait` fails the test when a chain is used out of order.
        if under_way.len() == 60 {
            let (posted, batch, expected) = under_way.pop_front().expect("60 chains");
            let done = guest.wait(&posted);
            let answer = decode(&batch, &done).remove(0);
            if batch[0].opcode() == 5 {
                assert_eq!(answer.page, expected.map(page), "a GET of round {round}");
            }
        }
    }
    for (posted, _, _) in under_way {
        guest.wait(&posted);
    }
}

/// Conformance: ZC-DEV-39.
#[test]
fn what_was_used_on_one_queue_is_seen_on_all() {
    let daemon = Daemon::start();
    let mut guest = Client::connect(&daemon.socket(0), Setup { queues: 4, ..Setup::default() });
    guest.hello(1);
    guest.create(1, PERSISTENT);
    guest.create(2, 0);
    for round in 0..300u64 {
        let (writer, reader) = ((round % 4) as usize, ((round + 1) % 4) as usize);
        let pool = 1 + (round % 2) as u32;
        assert_eq!(guest.submit(writer, &[Req::put(pool, 1, 1, &page(round))])[0].status, status::OK);
        assert_eq!(guest.submit(reader, &[Req::get(pool, 1, 1, 0)])[0].page, Some(page(round)), "round {round}");
        let flush = if round % 3 == 0 { Req::flush_pool(pool) } else { Req::flush_object(pool, 1) };
        assert_eq!(guest.submit(writer, &[flush])[0].value, 1, "round {round}");
        assert_eq!(guest.submit(reader, &[Req::get(pool, 1, 1, 0)])[0].status, status::MISS, "round {round}");
    }
    guest.put(2, 1, 1, &page(1));
    assert_eq!(guest.submit(1, &[Req::get(2, 1, 1, EXCLUSIVE)])[0].status, status::OK);
    assert_eq!(guest.submit(2, &[Req::get(2, 1, 1, 0)])[0].status, status::MISS, "after an exclusive get elsewhere");
}
