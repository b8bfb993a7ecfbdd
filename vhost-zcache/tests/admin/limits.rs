// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Limits change while a guest works, and hold when it is said that they do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::client::{Client, page};
use crate::file::with;
use crate::http::Asked;

#[test]
fn limits_that_are_changed_under_load_hold() {
    let asked = Asked::start(&with("memory-limit = '64M'", &["a"]));
    let mut a = Client::attach(&asked.daemon.socket("a"));
    a.create(1, 0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let putter = scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                a.put(1, 1, number % 8000, &page(number));
                number += 1;
            }
            number
        });
        for round in 0..20 {
            let limit = [1, 2, 4][round % 3] << 20;
            let answer = asked.send("PATCH", "/v1/guests/a", &format!(r#"{{"memory_limit": {limit}}}"#));
            assert_eq!(answer.status, 200, "{answer:?}");
            let guest = asked.get("/v1/guests/a").json();
            assert_eq!(guest["memory_limit"], limit, "round {round}");
            let bytes = guest["physical_bytes"].as_u64().expect("a number");
            assert!(bytes <= limit, "round {round}: {bytes} bytes are more than {limit}");
            let settings = format!(r#"{{"memory_limit": "{}M", "log_level": "debug"}}"#, 8 + round);
            assert_eq!(asked.send("PATCH", "/v1/settings", &settings).status, 200);
        }
        done.store(true, Ordering::Relaxed);
        assert!(putter.join().expect("a guest that puts") > 0);
    });
    assert_eq!(asked.daemon.daemon.lines("connection ended"), 0, "a connection was dropped");
    assert_eq!(asked.daemon.daemon.deaths(), 0, "a worker has died");
}
