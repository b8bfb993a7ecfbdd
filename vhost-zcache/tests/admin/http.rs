// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A daemon with somebody beside it who answers HTTP.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use serde_json::Value;
use tempfile::TempDir;
use vhost_zcache::access::Peers;
use zcache_admin::daemon::Daemon;
use zcache_admin::{routes, server};

use crate::client::PATIENCE;
use crate::file::Configured;

/// The daemon, and the socket beside it.
pub(crate) struct Asked {
    pub(crate) daemon: Configured,
    directory: TempDir,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What an error says.
    pub(crate) fn detail(&self) -> String {
        assert!(self.head.to_lowercase().contains("content-type: application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        problem["detail"].as_str().expect("a detail").to_owned()
    }

    /// What is said of something that was done.
    pub(crate) fn message(&self) -> String {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.json()["message"].as_str().expect("a message").to_owned()
    }
}

impl Asked {
    /// Begins with a file.
    pub(crate) fn start(text: &str) -> Self {
        Self::beside(Configured::start(text))
    }

    /// Begins beside a daemon.
    pub(crate) fn beside(daemon: Configured) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("admin")).expect("the socket");
        let sockets = daemon.daemon.directory();
        let asked = Daemon::new(sockets.join("stats"), daemon.daemon.control_socket());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = server::listener(&listener).expect("the socket");
                server::serve(listener, Peers::default(), routes::all(Arc::new(asked))).await;
            });
        });
        Self { daemon, directory }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("admin")
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("the socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Asks with a body of JSON.
    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask(method, path, &[("Content-Type", "application/json")], body)
    }

    /// Asks without one.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    /// Asks with headers.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").expect("a line");
        }
        write!(head, "Content-Length: {}\r\n\r\n{body}", body.len()).expect("a line");
        let mut stream = self.connect();
        // Who has heard enough answers before it has heard all.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        assert!(read.is_ok() || !answer.is_empty(), "{method} {path}: {read:?}");
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{method} {path}: {head}"));
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }
}
