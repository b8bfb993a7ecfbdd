// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Somebody who answers HTTP beside a made-up daemon, which grants all wishes but those that
//! concern `vm-002`, and notes them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;
use zcache_admin::daemon::Daemon;
use zcache_admin::{routes, server};

pub(crate) struct Beside {
    directory: TempDir,
    asked: Arc<Mutex<String>>,
}

impl Beside {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let asked = Arc::<Mutex<String>>::default();
        let bind = |name| UnixListener::bind(directory.path().join(name)).expect("a socket");
        let (stats, control, admin) = (bind("stats"), bind("control"), bind("admin"));
        let document = serde_json::to_vec(&zcache_report::sample::report(3, 10)).expect("a document");
        thread::spawn(move || {
            for reader in stats.incoming() {
                reader.and_then(|mut reader| reader.write_all(&document)).expect("somebody reads");
            }
        });
        let notes = Arc::clone(&asked);
        thread::spawn(move || control.incoming().for_each(|asker| grant(asker.expect("somebody asks"), &notes)));
        let daemon = Daemon::new(directory.path().join("stats"), directory.path().join("control"));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = server::listener(&admin).expect("the socket");
                server::serve(listener, Default::default(), routes::all(Arc::new(daemon))).await;
            });
        });
        Self { directory, asked }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("admin")
    }

    /// What it was asked for last.
    pub(crate) fn asked(&self) -> String {
        self.asked.lock().expect("no panic").clone()
    }

    /// Nobody is at the daemon's sockets any more.
    pub(crate) fn end_daemon(&mut self) {
        for name in ["stats", "control"] {
            fs::remove_file(self.directory.path().join(name)).expect("the socket");
        }
    }
}

fn grant(asker: UnixStream, notes: &Mutex<String>) {
    let mut line = String::new();
    BufReader::new(&asker).read_line(&mut line).expect("a line");
    let answer = match line.as_str() {
        line if line.contains("vm-002") => "refused not that one\nnor another\n",
        line if line.starts_with("give-back") => "done {\"given_bytes\": 1048576}\n",
        _ => "done so it is\n",
    };
    *notes.lock().expect("no panic") = line;
    (&asker).write_all(answer.as_bytes()).expect("somebody reads");
}
