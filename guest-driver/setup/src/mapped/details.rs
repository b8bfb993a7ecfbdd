// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the kernel tells of our devices. It is asked once for all of them, however many there are.

use crate::block::{self, Number};
use crate::error::Result;
use crate::program;

use super::device::{Mapped, folders, has_our_target, name_in};

/// A device with its table and counters.
#[derive(Debug, Clone)]
pub(crate) struct Details {
    pub(crate) mapped: Mapped,
    table: Vec<String>,
    status: Vec<String>,
}

impl Details {
    /// Of all devices that are ours, in the order of their names.
    pub(crate) fn of_all() -> Result<Vec<Self>> {
        let mut devices: Vec<_> = folders()
            .iter()
            .filter_map(|folder| Some(Mapped { name: name_in(folder)?, number: block::number_in(folder)? }))
            .collect();
        if devices.is_empty() {
            return Ok(Vec::new());
        }
        devices.sort_by(|a, b| a.name.cmp(&b.name));
        let table = program::run("dmsetup", &["table"])?.output;
        let status = program::run("dmsetup", &["status", "--noflush"])?.output;
        Ok(devices
            .into_iter()
            .map(|mapped| Self {
                table: lines_of(&mapped.name, &table),
                status: lines_of(&mapped.name, &status),
                mapped,
            })
            .filter(|details| details.mapped.number.is_ours() || details.table.iter().any(|line| has_our_target(line)))
            .collect())
    }

    /// What it is over: the first word that looks like a device's number.
    pub(crate) fn origin(&self) -> Option<Number> {
        self.table.iter().flat_map(|line| line.split_whitespace()).find_map(|word| word.parse().ok())
    }

    pub(crate) fn sectors(&self) -> u64 {
        self.mapped.number.sectors()
    }

    /// What our target counts: the words `KEY=VALUE` after its name. None if there is none.
    pub(crate) fn counters(&self) -> Option<Vec<(&str, &str)>> {
        let line = self.status.iter().find(|line| has_our_target(line))?;
        Some(line.split_whitespace().filter_map(|word| word.split_once('=')).collect())
    }

    #[cfg(test)]
    pub(crate) fn for_test(name: &str, number: Number, table: &str, status: &str) -> Self {
        Self {
            mapped: Mapped { name: name.to_owned(), number },
            table: vec![table.to_owned()],
            status: vec![status.to_owned()],
        }
    }
}

/// Lines of this device, without its name. One that has gone meanwhile has none.
fn lines_of(name: &str, all: &str) -> Vec<String> {
    let of_it = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned());
    all.lines().filter_map(of_it).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart_by_names() {
        let all = "data: 0 8 zcache 254:16 0\ndata2: 0 8 linear 254:32 0\ndata: 8 8 linear 254:48 0\n";
        assert_eq!(lines_of("data", all), ["0 8 zcache 254:16 0", "8 8 linear 254:48 0"]);
        assert!(lines_of("dat", all).is_empty());
    }
}
