// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device of device-mapper, and its table. `dmsetup` does what is done to it, for it knows how to
//! agree with udev.

use std::fs;
use std::path::{Path, PathBuf};

use crate::block::{self, Number};
use crate::error::{Result, failed};
use crate::origin::Origin;
use crate::program::{self, Finished};
use crate::values::{Name, Put};

/// A device of device-mapper.
#[derive(Debug, Clone)]
pub(crate) struct Mapped {
    pub(crate) name: String,
    pub(crate) number: Number,
}

/// What a device of ours consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Zcache(Put),
    /// Everything passes through.
    Linear,
}

/// The table of a device of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) sectors: u64,
    pub(crate) origin: Number,
    kind: String,
    /// What follows the origin.
    rest: String,
}

impl Mapped {
    pub(crate) fn find(name: &str) -> Option<Self> {
        let has_name = |number: &Number| number.attribute("dm/name").as_deref() == Some(name);
        // Where no udev makes nodes, or it is late, the kernel is asked for each.
        let number = Number::of_file(&Path::new("/dev/mapper").join(name)).filter(has_name).or_else(|| {
            folders()
                .iter()
                .find(|folder| name_in(folder).as_deref() == Some(name))
                .and_then(|folder| block::number_in(folder))
        })?;
        Some(Self { name: name.to_owned(), number })
    }

    /// Whether this tool made it, or somebody else with our target.
    pub(crate) fn is_ours(&self) -> bool {
        self.number.is_ours() || self.lines("table").is_ok_and(|lines| lines.iter().any(|line| has_our_target(line)))
    }

    pub(crate) fn table(&self) -> Result<Table> {
        let lines = self.lines("table")?;
        match lines.as_slice() {
            [line] => Table::parse(line),
            _ => None,
        }
        .ok_or_else(|| {
            failed(format!("{0}: has a table that zcachesetup has not made; see dmsetup table {0}", self.name))
        })
    }

    fn lines(&self, command: &str) -> Result<Vec<String>> {
        let finished = self.complain_of(program::run("dmsetup", &[command, &self.name])?)?;
        Ok(finished.output.lines().map(str::to_owned).collect())
    }

    pub(crate) fn create(name: &Name, origin: &Origin, kind: &Kind) -> Result<()> {
        let table = Table::over(origin.number, *kind);
        let uuid = format!("{}{name}", block::OUR_UUIDS);
        let table_text = table.to_string();
        let mut arguments = vec!["create", name.as_str(), "--uuid", &uuid, "--table", &table_text];
        if origin.number.is_read_only() {
            arguments.push("--readonly");
        }
        let created = program::run("dmsetup", &arguments)?;
        if created.succeeded() {
            return Ok(());
        }
        let (complaint, spec) = (created.complaint(), &origin.spec);
        Err(failed(if complaint.contains("create ioctl") && complaint.contains("resource busy") {
            format!("{name}: a device of that name exists; choose another name")
        } else if complaint.contains("resource busy") {
            format!("{spec}: in use; lsblk {} shows by whom", origin.path.display())
        } else if complaint.contains("No space left") {
            format!("{spec}: as many zcache devices are open as there can be; close one")
        } else {
            format!("{spec}: {complaint}; see dmesg")
        }))
    }

    /// Exchanges the table of a device that may be in use. One call of the kernel suspends,
    /// exchanges and resumes, for nothing could be read in between if this is the root filesystem.
    pub(crate) fn replace(&self, table: &Table) -> Result<()> {
        let table_text = table.to_string();
        let mut arguments = vec!["reload", &self.name, "--table", &table_text];
        if table.origin.is_read_only() {
            arguments.push("--readonly");
        }
        self.complain_of(program::run("dmsetup", &arguments)?)?;
        let resumed = self.complain_of(program::run("dmsetup", &["resume", &self.name])?);
        if resumed.is_err() {
            // What was not taken is not to be taken by the next resume.
            let _ = program::run("dmsetup", &["clear", &self.name]);
        }
        resumed.map(drop)
    }

    /// Tries again for a while: udev looks into devices now and then.
    pub(crate) fn remove(&self) -> Result<()> {
        let removed = program::run("dmsetup", &["remove", "--retry", &self.name])?;
        if !removed.succeeded() && removed.complaint().contains("resource busy") {
            return Err(failed(format!("{0}: in use; lsblk /dev/mapper/{0} shows by whom", self.name)));
        }
        self.complain_of(removed).map(drop)
    }

    pub(crate) fn message(&self, text: &str) -> Result<()> {
        self.complain_of(program::run("dmsetup", &["message", &self.name, "0", text])?).map(drop)
    }

    fn complain_of(&self, finished: Finished) -> Result<Finished> {
        finished.or_complain().map_err(|error| failed(format!("{}: {error}; see dmesg", self.name)))
    }
}

/// The folders of all devices of device-mapper. There may be hundreds, and each look costs.
pub(super) fn folders() -> Vec<PathBuf> {
    let mut folders = block::entries(Path::new("/sys/block"));
    folders.retain(|folder| folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"dm-")));
    folders
}

/// The name of the device that such a folder is about.
pub(super) fn name_in(folder: &Path) -> Option<String> {
    Some(fs::read_to_string(folder.join("dm/name")).ok()?.trim_end().to_owned())
}

pub(super) fn has_our_target(line: &str) -> bool {
    line.split_whitespace().nth(2) == Some("zcache")
}

impl Table {
    fn over(origin: Number, kind: Kind) -> Self {
        let (kind, rest) = match kind {
            Kind::Zcache(put) => ("zcache", format!("0 1 put={put}")),
            Kind::Linear => ("linear", "0".to_owned()),
        };
        Self { sectors: origin.sectors(), origin, kind: kind.to_owned(), rest }
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        (words.next()? == "0").then_some(())?;
        let sectors = words.next()?.parse().ok()?;
        let kind = words.next()?.to_owned();
        let origin = words.next()?.parse().ok()?;
        Some(Self { sectors, origin, kind, rest: words.collect::<Vec<_>>().join(" ") })
    }

    pub(crate) fn is_cached(&self) -> bool {
        self.kind == "zcache"
    }

    pub(crate) fn of_size(self, sectors: u64) -> Self {
        Self { sectors, ..self }
    }

    /// The same device, cached in this way.
    pub(crate) fn with_put(&self, put: Put) -> Self {
        Self { sectors: self.sectors, ..Self::over(self.origin, Kind::Zcache(put)) }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0 {} {} {} {}", self.sectors, self.kind, self.origin, self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_what_it_was_after_a_change_of_size() {
        let line = "0 131072 zcache 254:16 0 1 put=read";
        let table = Table::parse(line).expect("a table");
        assert!(table.is_cached());
        assert_eq!(table.to_string(), line);
        assert_eq!(table.of_size(8).to_string(), "0 8 zcache 254:16 0 1 put=read");
    }

    #[test]
    fn what_passes_through_becomes_cached() {
        let table = Table::parse("0 131072 linear 254:16 0").expect("a table");
        assert!(!table.is_cached());
        let cached = table.with_put(Put::Evict);
        assert_eq!(cached.to_string(), "0 131072 zcache 254:16 0 1 put=evict");
        assert_eq!(cached.with_put(Put::Evict), cached);
    }

    #[test]
    fn tables_of_others_are_not_understood() {
        for line in ["", "0 8 error", "8 8 linear 1:2 0", "0 x linear 1:2 0", "0 8 linear /dev/vdb 0"] {
            assert_eq!(Table::parse(line), None, "{line}");
        }
    }
}
