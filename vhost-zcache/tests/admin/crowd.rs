// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ten guests check all that they store, while everything that can change does.

use std::fmt::Write;
use std::path::PathBuf;

use crate::client::wire::{PERSISTENT, status};
use crate::client::{Client, eventually, page};
use crate::http::Asked;
use crate::model::while_guests_work_at;

const GUESTS: usize = 10;
const ROUNDS: usize = 4;

/// A file with the guests. Two in each trust domain have pools of different UUIDs; those of other
/// domains the same ones, and have to find nothing of each other in them.
fn file(store: usize, guest: usize) -> String {
    let mut text = format!("memory-limit = '{store}M'\nguest-memory-limit = '{guest}M'\n");
    for number in 0..GUESTS {
        let pools = "'aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa', 'bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb'";
        let domain = number / 2;
        write!(
            text,
            "[guest.vm{number}]\nsocket = 'DIR/vm{number}'\nallow-shared = [{pools}]\ntrust-domain = 'd{domain}'\n"
        )
        .expect("text");
    }
    text
}

/// A change of a guest holds when it is answered.
fn change(asked: &Asked, number: usize, round: usize) {
    let (limit, weight) = ((2 + (number + round) % 3) << 20, 1 + (number * 97 + round * 31) % 10_000);
    let path = format!("/v1/guests/vm{number}");
    let answer = asked.send("PATCH", &path, &format!(r#"{{"memory_limit": {limit}, "weight": {weight}}}"#));
    assert_eq!(answer.status, 200, "{answer:?}");
    let guest = asked.get(&path).json();
    assert_eq!((&guest["memory_limit"], &guest["weight"]), (&limit.into(), &weight.into()), "vm{number}");
    assert!(guest["physical_bytes"].as_u64() <= Some(limit as u64), "vm{number} has more than {limit}: {guest}");
}

/// A guest comes, works, and goes.
fn visit(asked: &Asked, round: usize) {
    let (path, socket) = (format!("/v1/guests/guest{round}"), asked.daemon.socket(&format!("guest{round}")));
    let answer = asked.send("PUT", &path, &format!(r#"{{"socket": "{}", "memory_limit": "1M"}}"#, socket.display()));
    assert_eq!(answer.status, 201, "{answer:?}");
    let mut guest = Client::attach(&socket);
    guest.create(1, PERSISTENT);
    for number in 0..20 {
        assert_eq!(guest.put(1, 1, number, &page(number)), status::OK, "round {round}");
        assert_eq!(guest.get(1, 1, number), Ok(page(number)), "round {round}");
    }
    drop(guest);
    eventually("the guest is gone", || asked.get(&path).json()["connected"] == false);
    let answer = asked.send("DELETE", &path, "");
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn ten_guests_lose_nothing_while_limits_weights_and_guests_change() {
    let asked = Asked::start(&file(64, 4));
    let sockets: Vec<PathBuf> = (0..GUESTS).map(|number| asked.daemon.socket(&format!("vm{number}"))).collect();
    while_guests_work_at(&sockets, 80, || {
        for round in 0..ROUNDS {
            for number in 0..GUESTS {
                change(&asked, number, round);
            }
            visit(&asked, round);
            let frozen = format!("/v1/guests/vm{}", round % GUESTS);
            for what in ["freeze", "thaw"] {
                assert_eq!(asked.send("POST", &format!("{frozen}/{what}"), "").status, 200, "{frozen}");
            }
            let store = 32 + 4 * (round % 4);
            let settings = format!(r#"{{"memory_limit": "{store}M"}}"#);
            assert_eq!(asked.send("PATCH", "/v1/settings", &settings).status, 200);
            assert_eq!(asked.get("/v1/store").json()["memory_limit"], store << 20);
            // What was changed is as the file says again.
            let (store, guest) = (48 + round, 3 + round % 2);
            asked.daemon.write(&file(store, guest));
            asked.daemon.reload();
            let stats = asked.daemon.daemon.stats();
            let guests = stats["guests"].as_array().expect("guests");
            assert_eq!((guests.len(), &stats["store"]["memory_limit"]), (GUESTS, &(store << 20).into()));
            for known in guests {
                assert_eq!((&known["memory_limit"], &known["weight"]), (&(guest << 20).into(), &100.into()));
            }
        }
    });
    assert_eq!(asked.daemon.daemon.lines("connection ended"), 0, "a connection was dropped");
    assert_eq!(asked.daemon.daemon.deaths(), 0, "a worker has died");
    for known in asked.daemon.daemon.stats()["guests"].as_array().expect("guests") {
        let puts = known["requests"]["put"]["ok"].as_u64();
        assert!(puts > Some(100), "{} was no load: {puts:?} puts", known["name"]);
    }
}
