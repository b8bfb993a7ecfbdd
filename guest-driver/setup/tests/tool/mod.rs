// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program with a table of its own.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

pub(crate) struct Tool {
    folder: TempDir,
}

impl Tool {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn table_path(&self) -> PathBuf {
        self.folder.path().join("zcachetab")
    }

    pub(crate) fn table(&self) -> String {
        self.table_path().display().to_string()
    }

    pub(crate) fn write_table(&self, text: &str) {
        fs::write(self.table_path(), text).expect("a table");
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zcachesetup"));
        command.env("ZCACHETAB", self.table_path());
        command
    }

    /// Exit status, output, errors.
    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        outcome(&self.command().args(arguments).output().expect("the program"))
    }

    /// The same by the name of the generator.
    pub(crate) fn generate(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.command();
        command.arg0("/usr/lib/systemd/system-generators/zcache-generator").args(arguments);
        command.env("ZCACHE_FSTAB", self.folder().join("fstab"));
        outcome(&command.output().expect("the program"))
    }

    /// Fails with this status, and this message is all that is said.
    #[track_caller]
    pub(crate) fn refuses(&self, status: i32, message: &str, arguments: &[&str]) {
        let got = self.run(arguments);
        assert_eq!(got, (status, String::new(), format!("zcachesetup: {message}\n")), "zcachesetup {arguments:?}");
    }

    /// What bash is told that may stand in place of the last word.
    pub(crate) fn complete(&self, words: &[&str]) -> Vec<String> {
        let mut command = self.command();
        command.env("ZCACHESETUP_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
        let (status, output, errors) = outcome(&command.arg("--").args(words).output().expect("the program"));
        assert_eq!((status, errors.as_str()), (0, ""));
        output.lines().map(str::to_owned).collect()
    }

    pub(crate) fn completion_script(&self, shell: &str) -> String {
        let (status, output, _) =
            outcome(&self.command().env("ZCACHESETUP_COMPLETE", shell).output().expect("the program"));
        assert_eq!(status, 0, "{shell}");
        output
    }
}

fn outcome(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("an exit status"), text(&output.stdout), text(&output.stderr))
}
