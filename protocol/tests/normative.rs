// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every numbered sentence of SPEC.md is named by a test, and tests name no other.
//!
//! A test names the sentences that it checks in a line of its doc comment:
//! `/// Conformance: ZC-DEV-1, ZC-DEV-2.`

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const SPEC: &str = include_str!("../SPEC.md");
const MARKER: &str = "/// Conformance:";
/// Folders whose Rust files may hold conformance tests, from the root of the workspace.
const TEST_FOLDERS: [&str; 2] = ["vhost-zcache/tests", "tests/tests"];

/// A test's claim: where it stands, the sentences it names, and whether `#[test]` follows.
struct Claim {
    place: String,
    sentences: Vec<String>,
    is_test: bool,
}

/// The numbers that SPEC.md defines, each at the start of a list item.
fn sentences() -> Vec<&'static str> {
    SPEC.lines().filter_map(|line| line.strip_prefix("- **ZC-")?.split_once("**")).map(|(number, _)| number).collect()
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("Cannot list {}: {error}", dir.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn claims() -> Vec<Claim> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for folder in TEST_FOLDERS {
        rust_files(&root.join(folder), &mut files);
    }
    let mut claims = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate() {
            let Some(list) = line.strip_prefix(MARKER) else { continue };
            // The attributes of an item end where its `fn` begins.
            let attributes = lines[number..].iter().take_while(|line| !line.contains("fn "));
            claims.push(Claim {
                place: format!("{}:{}", file.strip_prefix(root).unwrap().display(), number + 1),
                sentences: list.trim().trim_end_matches('.').split(", ").map(str::to_owned).collect(),
                is_test: attributes.copied().any(|line| line == "#[test]"),
            });
        }
    }
    claims
}

#[test]
fn numbers_are_unique() {
    for kind in ["DEV", "DRV"] {
        let mut numbers: Vec<u32> = sentences()
            .iter()
            .filter_map(|sentence| sentence.strip_prefix(kind)?.strip_prefix('-'))
            .map(|number| number.parse().unwrap())
            .collect();
        assert!(numbers.len() > 15, "SPEC.md's ZC-{kind} sentences were not found: {numbers:?}");
        numbers.sort_unstable();
        let twice: Vec<_> = numbers.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "ZC-{kind} numbers that SPEC.md has twice: {twice:?}");
    }
}

#[test]
fn every_must_stands_in_a_numbered_sentence() {
    for (number, line) in SPEC.lines().enumerate() {
        let is_definition = line.starts_with("The terms MUST");
        let is_normative = ["MUST", "SHOULD", "MAY"].iter().any(|term| line.split(' ').any(|word| word == *term));
        // A numbered sentence may go on in indented lines.
        let is_numbered = line.starts_with("- **ZC-") || line.starts_with("  ");
        assert!(is_definition || !is_normative || is_numbered, "SPEC.md:{}: not numbered: {line}", number + 1);
    }
}

#[test]
fn every_sentence_has_a_test() {
    let claims = claims();
    for claim in &claims {
        assert!(claim.is_test, "{}: the marker is not on a #[test]", claim.place);
    }
    let claimed: BTreeSet<&str> = claims.iter().flat_map(|claim| &claim.sentences).map(String::as_str).collect();
    let defined: BTreeSet<String> = sentences().iter().map(|sentence| format!("ZC-{sentence}")).collect();
    let untested: Vec<_> = defined.iter().filter(|sentence| !claimed.contains(sentence.as_str())).collect();
    assert!(untested.is_empty(), "SPEC.md sentences without a conformance test: {untested:?}");
    for claim in &claims {
        for sentence in &claim.sentences {
            assert!(defined.contains(sentence), "{}: names {sentence}, which SPEC.md does not define", claim.place);
        }
    }
}
