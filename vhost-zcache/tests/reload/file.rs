// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A daemon with a configuration file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;

use crate::client::daemon::{Daemon, Start, run};

/// A daemon, and its file. `DIR` in the file's text is the folder of the sockets.
pub(crate) struct Configured {
    pub(crate) daemon: Daemon,
    directory: TempDir,
}

impl Configured {
    pub(crate) fn start(text: &str) -> Self {
        Self::start_with(text, Start::default())
    }

    pub(crate) fn start_with(text: &str, start: Start<'_>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), text);
        let file = directory.path().join("zcache.toml");
        let file = file.to_str().expect("a path that is text");
        let arguments = [&["--config", file], start.arguments].concat();
        let daemon = Daemon::start_as(&[], Start { arguments: &arguments, ..start });
        Self { daemon, directory }
    }

    /// Writes another file.
    pub(crate) fn write(&self, text: &str) {
        write(self.directory.path(), text);
    }

    /// The file's path.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("zcache.toml")
    }

    /// The socket of a name.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `vhost-zcache reload`, with options.
    pub(crate) fn ask(&self, options: &[&str]) -> Output {
        let control = self.daemon.control_socket();
        let control = control.to_str().expect("a path that is text");
        run(&[&["reload", "--control-socket", control], options].concat())
    }

    /// The same, which succeeds; what it says.
    pub(crate) fn reload(&self) -> String {
        succeeds(&self.ask(&[]))
    }

    /// The same, which is refused; what it says.
    pub(crate) fn is_refused(&self) -> String {
        let output = self.ask(&[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        said
    }

    /// Statistics of the guest of a name.
    pub(crate) fn guest(&self, name: &str) -> serde_json::Value {
        let stats = self.daemon.stats();
        let guests = stats["guests"].as_array().expect("guests");
        guests.iter().find(|guest| guest["name"] == name).cloned().unwrap_or_default()
    }

    /// A number of such statistics.
    pub(crate) fn number(&self, name: &str, field: &str) -> u64 {
        self.guest(name)[field].as_u64().unwrap_or_else(|| panic!("{name} has no {field}"))
    }
}

/// What a command says that succeeds.
pub(crate) fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn write(directory: &Path, text: &str) {
    let text = text.replace("DIR", directory.to_str().expect("a path that is text"));
    // Whole or not at all, as an editor does.
    let new = directory.join("zcache.toml.new");
    fs::write(&new, text).expect("the file");
    fs::rename(new, directory.join("zcache.toml")).expect("the file");
}

/// A file with guests of these names, and more in front of them.
pub(crate) fn with(settings: &str, guests: &[&str]) -> String {
    let guests = guests.iter().map(|name| format!("[guest.{name}]\nsocket = 'DIR/{name}'\n{}", pools_of(name)));
    format!("{settings}\n{}", guests.collect::<String>())
}

/// What guests may share that work as [`crate::model`] says.
fn pools_of(name: &str) -> String {
    let uuids = ["aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb"];
    if name.starts_with("busy") { format!("allow-shared = {uuids:?}\n") } else { String::new() }
}
