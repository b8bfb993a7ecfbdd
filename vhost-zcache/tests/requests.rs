// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests through the socket, the rings and the store of a real daemon.

mod client;

use client::daemon::Daemon;
use client::wire::{PERSISTENT, Req, status};
use client::{Client, Setup, Shape, page};

#[test]
fn a_page_comes_back() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(7, PERSISTENT);
    assert_eq!(guest.put(7, 1, 5, &page(1)), status::OK);
    assert_eq!(guest.get(7, 1, 5), Ok(page(1)));
    assert_eq!(guest.get(7, 1, 6), Err(status::MISS));
    assert_eq!(guest.one(Req::flush_object(7, 1)).value, 1);
    assert_eq!(guest.get(7, 1, 5), Err(status::MISS));
}

#[test]
fn any_shape_of_a_chain_is_the_same_batch() {
    let daemon = Daemon::start();
    let setup = Setup { queue_size: 1024, ..Setup::default() };
    let mut guest = Client::connect(&daemon.socket(0), setup);
    guest.hello(1);
    guest.create(0, 0);
    for shape in [Shape::Whole, Shape::Pieces(31), Shape::Pieces(4096), Shape::Indirect(17), Shape::Indirect(9999)] {
        let batch = [
            Req::put(0, 1, 1, &page(1)),
            Req::get(0, 1, 2, 0),
            Req::get(0, 1, 1, 0),
            Req::flush_page(0, 1, 1),
            Req::get(0, 1, 1, 0),
        ];
        let answers = guest.submit_as(1, &batch, shape);
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [0, status::MISS, 0, 0, status::MISS], "{shape:?}");
        assert_eq!(answers[2].page, Some(page(1)), "{shape:?}");
    }
}
