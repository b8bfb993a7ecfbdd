// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the fuzzer has found worth keeping, as ordinary tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use zcache_fuzz::{TARGETS, Target};

fn corpus(target: &Target) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).join(target.name)
}

/// Runs a target with all of its corpus, and with nothing.
fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("there is such a target");
    (target.run)(&[]);
    let mut runs = 0;
    for file in fs::read_dir(corpus(target)).expect("the target has a corpus") {
        let path = file.expect("the folder can be read").path();
        // Said before, as a run may end the process.
        println!("{}", path.display());
        (target.run)(&fs::read(&path).expect("the file can be read"));
        runs += 1;
    }
    assert!(runs > 20, "the corpus of {name} is next to nothing");
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let names = |directory: &str| -> BTreeSet<String> {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(directory);
        let files = fs::read_dir(&directory).expect("the folder is there");
        files.map(|file| file.expect("it can be read").path().file_stem().unwrap().to_string_lossy().into()).collect()
    };
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names("corpus"), targets);
    assert_eq!(names("libfuzzer/fuzz_targets"), targets);
}

macro_rules! replays {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            replay(stringify!($name));
        }
    )* };
}

replays! { arena ledger link message request ring state store }
