// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files that say why workers have died: so many, and so large, that a disk does not fill up.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::sandbox;

/// Most files. Older ones are removed.
const MOST_FILES: usize = 16;

/// Most bytes of a file.
const MOST_BYTES: u64 = 128 << 10;

/// How their names begin and end. In between is the time, in seconds since 1970, so that they are
/// in order.
const BEGINNING: &str = "worker-crash-";
const END: &str = ".txt";

/// Writes the report that is on standard input to a new file in a directory, which is all that the
/// process can reach from then on.
///
/// # Errors
///
/// When it cannot be written. Nothing is left of it then.
pub fn run(directory: &Path) -> io::Result<()> {
    sandbox::confine_report(directory).map_err(io::Error::other)?;
    write_from(&mut io::stdin().lock(), directory)
}

fn write_from(report: &mut impl Read, directory: &Path) -> io::Result<()> {
    let mut text = Vec::new();
    report.take(MOST_BYTES).read_to_end(&mut text)?;
    // The oldest go first, which makes room as well.
    remove_old(directory)?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let path = directory.join(format!("{BEGINNING}{seconds:012}-{}{END}", process::id()));
    // Not to be read as well, which the process may not.
    fill(&path, File::options().write(true).create_new(true).open(&path)?, &text)
}

fn fill(path: &Path, mut file: impl Write, text: &[u8]) -> io::Result<()> {
    file.write_all(text).inspect_err(|_| {
        // Half a report would be taken for one.
        let _ = fs::remove_file(path);
    })
}

/// Leaves room for one file.
fn remove_old(directory: &Path) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let is_report = name.to_str().is_some_and(|name| name.starts_with(BEGINNING) && name.ends_with(END));
        if is_report {
            names.push(name);
        }
    }
    names.sort();
    let most = MOST_FILES - 1;
    for name in names.iter().take(names.len().saturating_sub(most)) {
        fs::remove_file(directory.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_none_is_large() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::write(path.join("other.txt"), "not a report").unwrap();
        for number in 0..20 {
            fs::write(path.join(format!("{BEGINNING}{number:012}-7{END}")), "old").unwrap();
        }
        write_from(&mut io::repeat(b'x'), path).unwrap();
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), MOST_FILES + 1, "with the file that is none");
        assert!(path.join("other.txt").exists());
        assert!(!path.join(format!("{BEGINNING}{:012}-7{END}", 4)).exists(), "an old one is kept");
        assert!(path.join(format!("{BEGINNING}{:012}-7{END}", 5)).exists(), "a newer one is gone");
        let newest = path.join(&names[MOST_FILES]);
        assert_eq!(fs::metadata(newest).unwrap().len(), MOST_BYTES);
    }

    #[test]
    fn a_full_disk_has_no_half_reports() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = fill(file.path(), full, b"a report").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(!file.path().exists(), "half a report is left");
    }

    #[test]
    fn a_directory_that_cannot_be_had_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(write_from(&mut io::empty(), file.path()).is_err());
    }
}
