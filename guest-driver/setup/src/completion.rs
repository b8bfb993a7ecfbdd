// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What may follow in a command line. Shells ask the program itself, so they know as much as it
//! does.

use std::path::Path;

use clap::Command;
use clap_complete::{CompleteEnv, CompletionCandidate, PathCompleter};

use crate::block::Number;
use crate::mapped::details::Details;
use crate::swapdisk::SwapDisk;
use crate::table;

/// With the name of a shell in it, the program prints what that shell is to know of it.
const VARIABLE: &str = "ZCACHESETUP_COMPLETE";

/// Answers a shell and ends the process, if it is a shell that asks.
pub(crate) fn answer(command: fn() -> Command) {
    CompleteEnv::with_factory(command).var(VARIABLE).bin("zcachesetup").completer("zcachesetup").complete();
}

fn candidates(words: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    words.into_iter().map(CompletionCandidate::new).collect()
}

/// Paths of block devices. What completes paths of files passes them over.
pub(crate) fn paths() -> PathCompleter {
    PathCompleter::any().filter(|path: &Path| Number::of_file(path).is_some())
}

pub(crate) fn puts() -> Vec<CompletionCandidate> {
    candidates(["evict", "read"].map(str::to_owned))
}

pub(crate) fn devices() -> Vec<CompletionCandidate> {
    candidates(Details::of_all().unwrap_or_default().into_iter().map(|details| details.mapped.name))
}

pub(crate) fn disks() -> Vec<CompletionCandidate> {
    candidates(SwapDisk::all().iter().map(SwapDisk::path))
}

pub(crate) fn devices_and_disks() -> Vec<CompletionCandidate> {
    let mut all = devices();
    all.extend(candidates(SwapDisk::all().into_iter().map(|disk| disk.name)));
    all
}

/// Names of the table.
pub(crate) fn lines() -> Vec<CompletionCandidate> {
    candidates(table::read(&table::path()).unwrap_or_default().into_iter().map(|entry| entry.name))
}
