// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether each test that `docs/fault-matrix.md` names is there.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

const MATRIX: &str = "docs/fault-matrix.md";

/// Names every line of the matrix of which a test does not exist, or that has none and does not say
/// so.
pub(crate) fn check() -> Result<()> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let listed = Command::new("git").current_dir(root).args(["ls-files", "*.rs"]).output()?;
    ensure!(listed.status.success(), "git does not list the files of {root}");
    let mut known = BTreeSet::new();
    for name in String::from_utf8(listed.stdout)?.lines() {
        let text = fs::read_to_string(format!("{root}/{name}")).with_context(|| format!("Cannot read {name}"))?;
        known.extend(tests(&text));
    }
    known.extend(zcache_fuzz::TARGETS.iter().map(|target| target.name.to_owned()));
    let matrix = fs::read_to_string(format!("{root}/{MATRIX}")).with_context(|| format!("Cannot read {MATRIX}"))?;
    let wrong = wrong_lines(&matrix, &known);
    ensure!(wrong.is_empty(), "Lines of {MATRIX} with a test that does not exist, or none:\n{}", wrong.join("\n"));
    Ok(())
}

/// Names of the tests in a file: functions that follow their attribute, ours or a property test's.
fn tests(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            names.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            is_test = false;
        }
    }
    names
}

fn wrong_lines(matrix: &str, known: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(matrix.lines()) {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').collect();
        let is_row = line.starts_with("| ") && !line.starts_with("| fault ") && cells.len() > 1;
        let Some(tests) = cells.last().filter(|_| is_row) else { continue };
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        for name in named.iter().filter(|name| !known.contains(**name)) {
            wrong.push(format!("{MATRIX}:{number}: there is no test {name}"));
        }
        if named.is_empty() && !tests.trim_start().starts_with("none: ") && !tests.trim_start().starts_with("none, ") {
            wrong.push(format!("{MATRIX}:{number}: neither a test, nor why there is none"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_found_and_other_functions_are_not() {
        let text = "#[test]\nfn one() {}\nfn two() {}\n    #[test]\n    #[ignore]\n    fn three(x: u8) {}\n";
        assert_eq!(tests(text), ["one", "three"]);
    }

    #[test]
    fn rows_without_a_test_that_exists_are_found() {
        let known = BTreeSet::from(["one".to_owned()]);
        let matrix =
            "| fault | test |\n|---|---|\n| a | `one` |\n| b | `two`, `one` |\n| c | |\n| d | none: it is so |\n";
        assert_eq!(
            wrong_lines(matrix, &known),
            [
                "docs/fault-matrix.md:4: there is no test two",
                "docs/fault-matrix.md:5: neither a test, nor why there is none"
            ]
        );
    }
}
