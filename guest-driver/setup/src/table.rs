// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `/etc/zcachetab`, see zcachetab(5).

pub(crate) mod line;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Result, failed};

use line::Line;

/// A line of the table, good or bad.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// `FILE:NUMBER`
    pub(crate) place: String,
    /// The first field, whatever it is.
    pub(crate) name: String,
    /// Whether the initramfs is to open it; a bad line can be marked as well.
    pub(crate) in_initramfs: bool,
    pub(crate) line: Result<Line, String>,
}

/// Where the table is.
pub(crate) fn path() -> PathBuf {
    env::var_os("ZCACHETAB").map_or_else(|| PathBuf::from("/etc/zcachetab"), PathBuf::from)
}

/// Reads all lines.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>> {
    match fs::read(path) {
        Ok(bytes) => Ok(entries(&path.display().to_string(), &String::from_utf8_lossy(&bytes))),
        Err(_) => Err(failed(format!("{}: cannot be read", path.display()))),
    }
}

fn entries(file: &str, text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    // Editors of other systems begin a file with a mark.
    for (index, raw) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let mut fields = without_comment(raw).split_whitespace();
        let Some(name) = fields.next() else { continue };
        let fields: Vec<_> = fields.collect();
        let line = if entries.iter().any(|entry| entry.name == name) {
            Err(format!("{name}: a line of that name comes before"))
        } else {
            Line::parse(name, &fields)
        };
        entries.push(Entry {
            place: format!("{file}:{}", index + 1),
            name: name.to_owned(),
            in_initramfs: fields.get(1).is_some_and(|options| options.split(',').any(|option| option == "initramfs")),
            line,
        });
    }
    entries
}

/// What is before a # that begins a word.
fn without_comment(line: &str) -> &str {
    let begins_word = |at: usize| line[..at].chars().next_back().is_none_or(char::is_whitespace);
    match line.match_indices('#').find(|(at, _)| begins_word(*at)) {
        Some((at, _)) => &line[..at],
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        let bad = |entry: Entry| Some(format!("{}: {}", entry.place, entry.line.err()?));
        entries("tab", text).into_iter().filter_map(bad).collect()
    }

    #[test]
    fn comments_and_blank_lines_are_passed_over() {
        let text = "\u{feff}# comment\n\n  \t\n  # a none\na /dev/x # b\n\tb /dev/x#y put=read\t#c\r\nc /dev/x\r\n";
        let entries = entries("tab", text);
        let found: Vec<_> = entries.iter().map(|entry| (entry.place.as_str(), entry.name.as_str())).collect();
        assert_eq!(found, [("tab:5", "a"), ("tab:6", "b"), ("tab:7", "c")]);
        assert!(entries.iter().all(|entry| entry.line.is_ok()), "{entries:?}");
    }

    #[test]
    fn bad_lines_do_not_hide_each_other() {
        assert_eq!(
            messages("a none\nok /dev/x\nb sda\na /dev/x"),
            [
                "tab:1: a: needs a device",
                "tab:3: b: 'sda' is neither a path nor UUID=, LABEL=, PARTUUID=, PARTLABEL=",
                "tab:4: a: a line of that name comes before",
            ]
        );
    }

    #[test]
    fn bytes_of_any_kind_are_a_message() {
        assert_eq!(entries("tab", "\u{fffd}\0 /dev/x\n").len(), 1);
        assert!(entries("tab", "").is_empty());
    }

    #[test]
    fn a_bad_line_can_be_for_the_initramfs() {
        assert!(entries("tab", "a none put=x,initramfs")[0].in_initramfs);
        assert!(!entries("tab", "a none initramfsx")[0].in_initramfs);
    }
}
