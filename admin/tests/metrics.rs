// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Metrics, beside a made-up daemon: at the socket, and on an address of this machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use zcache_report::sample;

const PATIENCE: Duration = Duration::from_secs(20);

/// The process, which is killed when the test ends.
struct Running {
    directory: TempDir,
    child: Child,
    address: SocketAddr,
}

impl Running {
    /// Beside a daemon that says `document`.
    fn start(document: Vec<u8>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name| directory.path().join(name);
        let stats = UnixListener::bind(path("stats")).expect("a socket");
        thread::spawn(move || {
            for reader in stats.incoming() {
                // Who asks may have gone.
                let _ = reader.and_then(|mut reader| reader.write_all(&document));
            }
        });
        // A port that was free just now.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let child = Command::new(env!("CARGO_BIN_EXE_zcache-admin"))
            .arg("--socket")
            .arg(path("admin"))
            .arg("--stats-socket")
            .arg(path("stats"))
            .args(["--metrics-address", &address.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program");
        let running = Self { directory, child, address };
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < end, "nobody listens at {address}");
            thread::sleep(Duration::from_millis(5));
        }
        running
    }

    fn by_socket(&self, method: &str, path: &str) -> (String, String) {
        ask(UnixStream::connect(self.directory.path().join("admin")).expect("the socket"), method, path)
    }

    fn by_tcp(&self, method: &str, path: &str) -> (String, String) {
        ask(TcpStream::connect(self.address).expect("the address"), method, path)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Head and body of an answer.
fn ask(mut stream: impl Read + Write, method: &str, path: &str) -> (String, String) {
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_lowercase(), body.to_owned())
}

#[test]
fn they_are_the_statistics_wherever_they_are_asked_for() {
    let report = sample::report(3, 10);
    let running = Running::start(serde_json::to_vec(&report).expect("a document"));
    for (head, body) in [running.by_socket("GET", "/metrics"), running.by_tcp("GET", "/metrics")] {
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert!(
            head.contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
            "{head}"
        );
        assert!(body == zcache_metrics::render(&report), "other metrics:\n{body}");
    }
}

#[test]
fn by_tcp_there_is_nothing_else() {
    let running = Running::start(serde_json::to_vec(&sample::report(1, 1)).expect("a document"));
    for path in ["/", "/v1/stats", "/v1/guests", "/v1/openapi.json", "/metrics/"] {
        let (head, _) = running.by_tcp("GET", path);
        assert!(head.starts_with("http/1.1 404 "), "{path}: {head}");
    }
    for (method, path) in [("POST", "/metrics"), ("DELETE", "/metrics")] {
        let (head, _) = running.by_tcp(method, path);
        assert!(head.starts_with("http/1.1 405 "), "{method} {path}: {head}");
    }
    assert!(running.by_tcp("POST", "/v1/upgrade").0.starts_with("http/1.1 404 "));
    assert!(running.by_socket("GET", "/v1/stats").0.starts_with("http/1.1 200 "));
}

#[test]
fn a_daemon_of_another_release_is_told() {
    let running = Running::start(b"{\"version\": \"9.9.9\"}".to_vec());
    let (head, body) = running.by_tcp("GET", "/metrics");
    assert!(head.starts_with("http/1.1 502 ") && body.contains("no document of this release"), "{head}\n{body}");
}
