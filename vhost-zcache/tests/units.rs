// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The units for systemd: what systemd itself thinks of them, where it is there to be asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vhost_zcache::keeper::process::LONGEST_START;

const DOCUMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");

/// Ten times what `systemd-analyze security` may say at most. It calls up to 2.0 safe.
const MOST_EXPOSED: &str = "--threshold=20";

/// Files of units, by the end of their names.
fn units(end: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(DOCUMENTS).expect("the documents").map(|entry| entry.expect("a file").path());
    let units: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|found| found == end)).collect();
    assert!(units.len() >= 2, "there are no .{end} files");
    units
}

fn text(unit: &str) -> String {
    fs::read_to_string(Path::new(DOCUMENTS).join(unit)).expect("the unit")
}

/// What `systemd-analyze` says, if it is there.
fn analyze(arguments: &[&str], files: &[PathBuf]) -> Option<Output> {
    let output = Command::new("systemd-analyze").args(arguments).args(files).output();
    if output.is_err() {
        eprintln!("skipped: systemd-analyze is missing");
    }
    output.ok()
}

#[test]
fn services_are_safe_by_what_systemd_counts() {
    for unit in units("service") {
        let Some(output) = analyze(&["security", "--offline=yes", MOST_EXPOSED], std::slice::from_ref(&unit)) else {
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}: {said}", unit.display());
    }
}

#[test]
fn units_have_no_fault() {
    let folder = tempfile::tempdir().expect("a directory");
    let mut copies = Vec::new();
    for unit in units("service").into_iter().chain(units("socket")) {
        let copy = folder.path().join(unit.file_name().expect("a name"));
        // Nothing of it is installed here.
        let lines = fs::read_to_string(&unit).expect("the unit");
        let lines = lines.lines().map(|line| match line.split_once("=/usr/bin/") {
            Some((key, rest)) => format!("{key}=/bin/true {}\n", rest.split_once(' ').expect("arguments").1),
            None => format!("{line}\n"),
        });
        fs::write(&copy, lines.collect::<String>()).expect("a copy");
        copies.push(copy);
    }
    let Some(output) = analyze(&["verify", "--man=no"], &copies) else { return };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let path = folder.path().display().to_string();
    // What is of later releases than the one at hand is left out by that.
    let faults: Vec<&str> = said.lines().filter(|line| line.contains(&path) || line.contains("zcache")).collect();
    let faults: Vec<&str> = faults.into_iter().filter(|line| !line.contains("FileDescriptorStorePreserve")).collect();
    assert_eq!(faults, Vec::<&str>::new());
}

#[test]
fn a_start_may_take_as_long_as_two_workers() {
    for unit in ["vhost-zcache.service", "vhost-zcache@.service"] {
        let text = text(unit);
        let seconds = text.lines().find_map(|line| line.strip_prefix("TimeoutStartSec="));
        let seconds: u64 = seconds.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{unit}: no seconds"));
        assert!(seconds > 2 * LONGEST_START.as_secs(), "{unit}: systemd ends a start after {seconds} s");
    }
}

#[test]
fn the_instance_is_confined_as_the_shared_daemon_is() {
    let service = |unit: &str| {
        let text = text(unit);
        let (_, service) = text.split_once("[Service]\n").expect("a service");
        service.to_owned()
    };
    let shared = service("vhost-zcache.service");
    let instance = service("vhost-zcache@.service").replace("/vhost-zcache/%i.toml", "/vhost-zcache.toml");
    assert_eq!(instance.replace("zcache-%i", "zcache"), shared);
}
