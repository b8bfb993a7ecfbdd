// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests come and go while the daemon runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::client::wire::{PERSISTENT, status};
use crate::client::{Client, eventually, page};
use crate::file::with;
use crate::http::Asked;

#[test]
fn a_guest_that_comes_is_served_until_it_is_removed() {
    let asked = Asked::start(&with("", &["a"]));
    let mut a = Client::attach(&asked.daemon.socket("a"));
    a.create(1, PERSISTENT);
    assert_eq!(a.put(1, 1, 1, &page(1)), status::OK);
    let socket = asked.daemon.socket("b");
    let body = format!(r#"{{"socket": "{}", "mode": "0666", "memory_limit": "1M"}}"#, socket.display());
    let made = asked.send("PUT", "/v1/guests/b", &body);
    assert_eq!(made.status, 201);
    assert!(made.message().ends_with("added b (until the file is read again, unless it says so too)"), "{made:?}");
    let mode = fs::metadata(&socket).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    assert_eq!(asked.daemon.guest("b")["memory_limit"], 1 << 20);
    // The same once more is no change, and is not what comes if nothing may be there.
    let again = asked.send("PUT", "/v1/guests/b", &body);
    assert_eq!((again.status, again.message().as_str()), (200, "nothing has changed"));
    let headers = [("Content-Type", "application/json"), ("If-None-Match", "*")];
    assert_eq!(asked.ask("PUT", "/v1/guests/b", &headers, &body).status, 409);

    let mut b = Client::attach(&socket);
    b.create(1, PERSISTENT);
    assert_eq!(b.put(1, 1, 1, &page(2)), status::OK);
    let refused = asked.send("DELETE", "/v1/guests/b", "");
    assert_eq!(refused.status, 409);
    assert!(refused.detail().contains("guest.b is not removed while its VMM is connected"), "{refused:?}");
    // What was changed is known to the next worker.
    asked.daemon.daemon.signal_worker(Signal::KILL);
    assert_eq!(b.get(1, 1, 1), Ok(page(2)));
    assert_eq!(asked.daemon.guest("b")["memory_limit"], 1 << 20);
    let removed = asked.send("DELETE", "/v1/guests/b?disconnect=true", "");
    assert_eq!(removed.status, 200, "{removed:?}");
    assert!(!socket.exists());
    assert_eq!(asked.get("/v1/guests/b").status, 404);
    assert_eq!(a.get(1, 1, 1), Ok(page(1)), "others go on");
    assert_eq!(asked.daemon.daemon.lines("connection ended"), 1, "another connection was dropped");
}

#[test]
fn what_the_file_does_not_have_goes_when_it_is_read_again() {
    let asked = Asked::start(&with("memory-limit = '64M'", &["a", "b"]));
    let body = format!(r#"{{"socket": "{}"}}"#, asked.daemon.socket("c").display());
    assert_eq!(asked.send("PUT", "/v1/guests/c", &body).status, 201);
    assert_eq!(asked.send("DELETE", "/v1/guests/b", "").status, 200);
    assert_eq!(asked.send("PATCH", "/v1/settings", r#"{"memory_limit": "32M"}"#).status, 200);
    // Each change is laid over those before.
    assert_eq!(asked.send("PATCH", "/v1/guests/a", r#"{"memory_limit": "2M"}"#).status, 200);
    assert!(asked.daemon.socket("c").exists() && !asked.daemon.socket("b").exists());
    assert_eq!(asked.get("/v1/store").json()["memory_limit"], 32 << 20);
    let message = asked.send("POST", "/v1/reload", "").message();
    assert_eq!(message, "memory-limit is 67108864 bytes; limits or rights of 1 guest; added b; removed c");
    assert!(!asked.daemon.socket("c").exists() && asked.daemon.socket("b").exists());
    assert!(asked.daemon.guest("a")["memory_limit"].is_null());
}

#[test]
fn limits_go_back_to_their_defaults() {
    let asked = Asked::start(&format!("{}memory-limit = '3M'\n", with("guest-memory-limit = '9M'", &["a"])));
    assert_eq!(asked.send("PATCH", "/v1/guests/a", r#"{"memory_limit": null}"#).status, 200);
    assert_eq!(asked.daemon.guest("a")["memory_limit"], 9 << 20);
    assert_eq!(asked.send("PATCH", "/v1/settings", r#"{"guest_memory_limit": null}"#).status, 200);
    assert!(asked.daemon.guest("a")["memory_limit"].is_null());
}

#[test]
fn a_daemon_without_a_file_has_guests_come_as_well() {
    let daemon = crate::client::daemon::Daemon::start();
    let (control, socket) = (daemon.control_socket(), daemon.directory().join("b"));
    let wish = vhost_zcache::admin::wish::Wish::Alter(vhost_zcache::admin::wish::Alteration::Add(format!(
        "[guest.b]\nsocket = '{}'\n",
        socket.display()
    )));
    let said = vhost_zcache::admin::ask::ask(&control, &wish).expect("it is done");
    assert!(said.ends_with("added b (until the daemon is started anew)"), "{said}");
    let mut b = Client::attach(&socket);
    b.create(1, PERSISTENT);
    assert_eq!(b.put(1, 1, 1, &page(2)), status::OK);
    drop(b);
    eventually("the guest is gone", || daemon.guest_stats(1)["connected"] == false);
    assert!(daemon.socket(0).exists());
}

#[test]
fn freezing_flushing_and_giving_back_are_passed_on() {
    let asked = Asked::start(&with("memory-limit = '64M'", &["a"]));
    let mut a = Client::attach(&asked.daemon.socket("a"));
    a.create(1, 0);
    for number in 0..500 {
        assert_eq!(a.put(1, 1, number, &page(number)), status::OK);
    }
    assert_eq!(asked.send("POST", "/v1/guests/a/freeze", "").status, 200);
    assert_eq!(asked.get("/v1/guests/a").json()["frozen"], true);
    assert_eq!(a.put(1, 1, 1000, &page(1)), status::REFUSED);
    assert_eq!(asked.send("POST", "/v1/guests/a/thaw", "").status, 200);
    assert_eq!(a.put(1, 1, 1000, &page(1)), status::OK);
    let given = asked.send("POST", "/v1/give-back", r#"{"bytes": "1M"}"#);
    assert_eq!(given.status, 200, "{given:?}");
    assert!(given.json().as_object().is_some_and(|fields| !fields.is_empty()), "{given:?}");
    let flushed = asked.send("POST", "/v1/guests/a/flush?pool=1", "");
    assert_eq!(flushed.status, 200, "{flushed:?}");
    assert_eq!(asked.get("/v1/guests/a/pools").json()["pools"][0]["pages"], 0);
}
