// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whatever is asked wrongly is answered with what is wrong, and changes nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use crate::file::with;
use crate::http::Asked;

/// Method, path, media type, body; the status, and what is said.
type Mistake = (&'static str, &'static str, &'static str, &'static str, u16, &'static str);

const JSON: &str = "application/json";

const MISTAKES: &[Mistake] = &[
    // Paths and methods.
    ("GET", "/", "", "", 404, "/v1/openapi.json says what there is"),
    ("GET", "/v1/guest", "", "", 404, "there is nothing at this path"),
    ("GET", "/v1/guests/", "", "", 404, "there is nothing at this path"),
    ("GET", "/v1/guests/nobody", "", "", 404, "there is no guest \"nobody\""),
    ("GET", "/v1/guests/%ff/pools", "", "", 400, "not UTF-8"),
    ("GET", "/v1/guests/a%00b", "", "", 404, "there is no guest"),
    ("POST", "/v1/guests/nobody/freeze", "", "", 404, "there is no guest \"nobody\""),
    ("POST", "/v1/guests", JSON, "{}", 405, "the header Allow says what can"),
    ("DELETE", "/v1/settings", "", "", 405, "the header Allow says what can"),
    ("BREW", "/v1/stats", "", "", 405, "the header Allow says what can"),
    // Parameters.
    ("DELETE", "/v1/guests/a?disconnect=maybe", "", "", 400, "disconnect"),
    ("DELETE", "/v1/guests/a?force=true", "", "", 400, "unknown field `force`, expected `disconnect`"),
    ("POST", "/v1/guests/a/flush?pool=-1", "", "", 400, "pool"),
    ("POST", "/v1/guests/a/flush?pool=4294967296", "", "", 400, "pool"),
    // Bodies.
    ("PATCH", "/v1/guests/a", "", "{}", 415, "Content-Type: application/json"),
    ("PATCH", "/v1/guests/a", "text/plain", "{}", 415, "Content-Type: application/json"),
    ("PATCH", "/v1/guests/a", JSON, "", 400, "the body is no JSON"),
    ("PATCH", "/v1/guests/a", JSON, "{", 400, "the body is no JSON"),
    ("PATCH", "/v1/guests/a", JSON, "{\"memory_limit\": \"\\ud800\"}", 422, "is not a size"),
    ("PATCH", "/v1/guests/a", JSON, "[]", 422, "the body has to be an object"),
    ("PATCH", "/v1/settings", JSON, "[null, null]", 422, "the body has to be an object"),
    ("PATCH", "/v1/guests/a", JSON, "null", 422, "the body has to be an object"),
    ("PATCH", "/v1/guests/a", JSON, r#"{"limit": 1}"#, 422, "unknown field `limit`, expected one of `memory_limit`"),
    (
        "PATCH",
        "/v1/guests/a",
        JSON,
        r#"{"memory_limit": 0}"#,
        422,
        "is not a size: a number of bytes greater than zero",
    ),
    ("PATCH", "/v1/guests/a", JSON, r#"{"memory_limit": -1}"#, 422, "is not a size"),
    ("PATCH", "/v1/guests/a", JSON, r#"{"memory_limit": "8 GB"}"#, 422, "\"8 GB\" is not a size"),
    ("PATCH", "/v1/guests/a", JSON, r#"{"memory_limit": 1, "memory_limit": 2}"#, 422, "duplicate field"),
    ("PATCH", "/v1/guests/a", JSON, r#"{"weight": 10001}"#, 422, "is not a weight"),
    ("PATCH", "/v1/guests/a", JSON, r#"{"peers": null}"#, 422, ""),
    ("PATCH", "/v1/guests/a", JSON, r#"{"allow_shared": ["x"]}"#, 422, "\"x\" is not a UUID"),
    ("PATCH", "/v1/settings", JSON, r#"{"log_level": "loud"}"#, 422, "unknown variant `loud`"),
    ("PUT", "/v1/guests/b%20c", JSON, r#"{"socket": "/run/b"}"#, 422, "no name of a guest"),
    ("PUT", "/v1/guests/b", JSON, r#"{"socket": "b"}"#, 422, "it begins with /"),
    ("PUT", "/v1/guests/b", JSON, r#"{"socket": "/run/b", "mode": "rwx"}"#, 422, "\"rwx\" is not a mode"),
    ("POST", "/v1/give-back", JSON, "{}", 422, "missing field `bytes`"),
    // What the daemon does not take.
    ("PUT", "/v1/guests/b", JSON, "{}", 409, "guest.b: it has no socket: say where its VMM connects"),
    ("PUT", "/v1/guests/b", JSON, r#"{"socket": "/nonexistent/b"}"#, 409, "is in no folder that had a socket"),
    ("PUT", "/v1/guests/a", JSON, r#"{"socket": "/run/other"}"#, 409, "the path of its socket cannot change"),
    ("PUT", "/v1/guests/b", JSON, r#"{"socket": "DIR/a"}"#, 409, "DIR/a is given twice"),
    ("PUT", "/v1/guests/b", JSON, r#"{"socket": "DIR/b", "owner": "no such user"}"#, 409, "there is no user"),
    ("PATCH", "/v1/guests/a", JSON, r#"{"reservation": "65M"}"#, 409, "the store's limit is 67108864"),
    (
        "PATCH",
        "/v1/guests/a",
        JSON,
        r#"{"memory_limit": "1M", "reservation": "2M"}"#,
        409,
        "is more than the guest's limit",
    ),
    ("PATCH", "/v1/guests/a", JSON, r#"{"peers": ["no such user"]}"#, 409, "there is no user"),
    ("POST", "/v1/guests/a/flush?pool=3", "", "", 409, ""),
];

#[test]
fn each_mistake_is_answered_and_changes_nothing() {
    let asked = Asked::start(&with("memory-limit = '64M'", &["a"]));
    let folder = asked.daemon.path().parent().expect("a folder").display().to_string();
    let before = asked.get("/v1/guests").json();
    for (method, path, kind, body, status, said) in MISTAKES {
        let headers = [("Content-Type", *kind)];
        let headers = if kind.is_empty() { &[][..] } else { &headers[..] };
        let answer = asked.ask(method, path, headers, &body.replace("DIR", &folder));
        let detail = answer.detail();
        assert_eq!(answer.status, *status, "{method} {path} {body}: {detail}");
        assert!(detail.contains(&said.replace("DIR", &folder)), "{method} {path} {body}: {detail}");
        assert!(!detail.is_empty() && !detail.contains("TOML"), "{method} {path} {body}: {detail}");
    }
    assert_eq!(asked.get("/v1/guests").json(), before, "something has changed");
    let allowed = asked.ask("DELETE", "/v1/guests/a/pools", &[], "");
    assert!(allowed.head.to_lowercase().contains("allow: get"), "{allowed:?}");
}

#[test]
fn a_body_is_bounded() {
    let asked = Asked::start(&with("", &["a"]));
    let long = format!(r#"{{"peers": [{}]}}"#, vec!["0"; 20_000].join(","));
    assert_eq!(asked.send("PATCH", "/v1/guests/a", &long).status, 413);
    // More for the daemon than it is here.
    let mean = format!(r#"{{"peers": ["{}"]}}"#, "\\u007f".repeat(60));
    let mean = format!(r#"{{"peers": [{}]}}"#, vec![&mean[11..mean.len() - 2]; 80].join(","));
    let answer = asked.send("PATCH", "/v1/guests/a", &mean);
    assert!([409, 413].contains(&answer.status), "{answer:?}");
    assert_eq!(asked.get("/v1/health").status, 200);
}

#[test]
fn those_who_are_slow_hold_nobody_up() {
    let asked = Asked::start(&with("", &["a"]));
    let mut slow: Vec<UnixStream> = (0..200).map(|_| asked.connect()).collect();
    for (number, stream) in slow.iter_mut().enumerate() {
        let part: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /v1/stats HT",
            _ => {
                b"PATCH /v1/settings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
            }
        };
        // The oldest have been sent away.
        let _ = stream.write_all(part);
        assert_eq!(asked.get("/v1/health").status, 200);
    }
    let mut nothing = Vec::new();
    let _ = slow[0].read_to_end(&mut nothing);
    assert_eq!(nothing, b"", "the oldest has ended");
}

#[test]
fn nonsense_is_no_request() {
    let asked = Asked::start(&with("", &["a"]));
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000));
    for bytes in [&b"\0\xff\r\n\r\n"[..], b"GET\r\n\r\n", b"GET /v1/stats HTTP/9.9\r\n\r\n", long.as_bytes()] {
        let mut stream = asked.connect();
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(asked.get("/v1/health").status, 200);
}

#[test]
fn a_daemon_that_is_gone_is_missed() {
    let mut asked = Asked::start(&with("", &["a"]));
    asked.daemon.daemon.end(Signal::TERM);
    for (method, path) in
        [("GET", "/v1/health"), ("GET", "/v1/guests"), ("POST", "/v1/reload"), ("DELETE", "/v1/guests/a")]
    {
        let answer = asked.ask(method, path, &[], "");
        assert_eq!(answer.status, 503, "{method} {path}");
        assert!(answer.detail().contains("there is no daemon at"), "{answer:?}");
        assert!(answer.head.to_lowercase().contains("retry-after: 1"), "{answer:?}");
    }
    assert_eq!(asked.get("/v1/openapi.json").status, 200);
}
