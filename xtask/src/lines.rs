// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long a line of a comment or a document may be. rustfmt sees to code, and to nothing else.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Columns of a line with a comment.
const COMMENT: usize = 100;
/// Columns of a line of a document. Rows of tables, which cannot be broken, and code are let be.
const DOCUMENT: usize = 120;

/// Names every line of a Rust file's comments or of a document that is too long.
pub(crate) fn check() -> Result<()> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let listed = Command::new("git").current_dir(root).args(["ls-files", "*.rs", "*.md"]).output()?;
    ensure!(listed.status.success(), "git does not list the files of {root}");
    let mut long = Vec::new();
    for name in String::from_utf8(listed.stdout)?.lines() {
        let text = fs::read_to_string(format!("{root}/{name}")).with_context(|| format!("Cannot read {name}"))?;
        let lines = if name.ends_with(".rs") { long_comments(&text) } else { long_paragraphs(&text) };
        long.extend(lines.into_iter().map(|line| format!("{name}:{line}")));
    }
    ensure!(
        long.is_empty(),
        "Lines of more than {COMMENT} columns in comments or {DOCUMENT} in documents:\n{}",
        long.join("\n")
    );
    Ok(())
}

/// Numbers of the lines of comments that are too long.
fn long_comments(text: &str) -> Vec<usize> {
    let is_long = |line: &str| {
        let comment = line.trim_start().strip_prefix("//");
        comment.is_some_and(|comment| !is_table(comment.trim_start_matches(['/', '!'])))
            && line.chars().count() > COMMENT
    };
    (1..).zip(text.lines()).filter(|(_, line)| is_long(line)).map(|(number, _)| number).collect()
}

/// Numbers of the lines of a document that are too long.
fn long_paragraphs(text: &str) -> Vec<usize> {
    let mut is_code = false;
    let mut long = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        is_code ^= line.trim_start().starts_with("```");
        if !is_code && !is_table(line) && line.chars().count() > DOCUMENT {
            long.push(number);
        }
    }
    long
}

fn is_table(line: &str) -> bool {
    line.trim_start().starts_with('|')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_found_and_code_is_not() {
        let long = "x".repeat(COMMENT);
        let text = format!("// {long}\nlet x = \"{long}\";\n    /// {long}\n//! | {long} |\n// short\n");
        assert_eq!(long_comments(&text), [1, 3]);
    }

    #[test]
    fn paragraphs_are_found_and_tables_and_code_are_not() {
        let long = "x".repeat(DOCUMENT + 1);
        let text = format!("{long}\n| {long} |\n```\n{long}\n```\n- {long}\n");
        assert_eq!(long_paragraphs(&text), [1, 6]);
    }
}
