// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is wrong, and what to do about it: a line each.

use crate::mapped::device::Mapped;
use crate::swapnotes;
use crate::table::Entry;
use crate::table::line::{Line, What};

use super::facts::Facts;

pub(super) fn find(host: Option<&str>, devices: &[Facts], disks: &[Facts], entries: &[Entry]) -> Vec<String> {
    let mut problems = Vec::new();
    if !(devices.is_empty() && disks.is_empty()) {
        problems.extend(host.and_then(of_host).map(str::to_owned));
    }
    problems.extend(of_unattached(devices));
    devices.iter().for_each(|facts| of_device(facts, &mut problems));
    disks.iter().for_each(|facts| of_disk(facts, &mut problems));
    problems.extend(entries.iter().filter_map(of_entry));
    problems
}

fn of_host(state: &str) -> Option<&'static str> {
    match state {
        "lost" => Some(
            "the host's device does not answer: if its daemon lives, wait; if it is dead, unplug the device and attach \
             another (dmesg | grep zcache)",
        ),
        "draining" => Some("the host's device is being removed: its swap pages are brought back, which takes a while"),
        _ => None,
    }
}

/// One line for all of them: they have one reason.
fn of_unattached(devices: &[Facts]) -> Option<String> {
    const SHOWN: usize = 3;
    let all: Vec<_> =
        devices.iter().filter(|facts| facts.get("state") == Some("unattached")).map(Facts::name).collect();
    let names = match all.len() {
        0 => return None,
        1..=SHOWN => all.join(", "),
        number => format!("{} and {} others", all[..SHOWN].join(", "), number - SHOWN),
    };
    Some(format!("{names}: nothing is cached: the host's device is not there (lspci, dmesg | grep zcache)"))
}

fn of_device(facts: &Facts, problems: &mut Vec<String>) {
    let name = facts.name();
    if facts.get("state") == Some("uncached") {
        problems.push(format!("{name}: not cached, opened without the module: zcachesetup reload {name}"));
    }
    if facts.count("origin_size") > facts.count("size") {
        problems.push(format!("{name}: the device below has grown: zcachesetup resize {name}"));
    }
}

fn of_disk(facts: &Facts, problems: &mut Vec<String>) {
    let name = facts.name();
    if facts.get("state") != Some("on") {
        problems.push(format!("{name}: not in use: swapon /dev/{name}, or zcachesetup swap off {name}"));
    }
    let mut count = |key: &str, text: &str| match facts.count(key) {
        0 => {}
        number => problems.push(format!("{name}: {number} {text}")),
    };
    count("pages_away", "pages are with a host's device that is not there: wait for it, or attach it again");
    count("pages_lost", "pages are lost with a device that is gone: dmesg | grep zcache");
    count("backing_errors", "pages could not be read from or written to the backing device: dmesg says why");
}

/// A line of the table that came to nothing.
fn of_entry(entry: &Entry) -> Option<String> {
    match &entry.line {
        Err(message) => Some(format!("{}: {message}", entry.place)),
        Ok(line) if line.boot.noauto || is_open(line) => None,
        Ok(line) => Some(format!("{}: not open: zcachesetup start {} says why", entry.place, line.name)),
    }
}

fn is_open(line: &Line) -> bool {
    match line.what {
        What::Mapped { .. } => Mapped::find(line.name.as_str()).is_some(),
        What::Swap(_) => swapnotes::disk_of(&line.name).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(host: &str, devices: &[&str], disks: &[&str]) -> String {
        let facts = |words: &[&str]| words.iter().map(|words| Facts::for_test(words)).collect::<Vec<_>>();
        find(Some(host), &facts(devices), &facts(disks), &[]).join("\n")
    }

    #[test]
    fn each_problem_says_what_to_do() {
        for (host, device, disk, said) in [
            ("lost", Some("name=a state=attached"), None, "unplug the device"),
            ("attached", Some("name=a state=uncached"), None, "zcachesetup reload a"),
            ("unattached", Some("name=a state=unattached"), None, "a: nothing is cached"),
            ("attached", Some("name=a state=attached size=8 origin_size=9"), None, "zcachesetup resize a"),
            ("attached", None, Some("name=zcswap0 state=off"), "swapon /dev/zcswap0"),
            ("attached", None, Some("name=zcswap0 state=on pages_away=2"), "2 pages are with"),
            ("attached", None, Some("name=zcswap0 state=on pages_lost=3"), "3 pages are lost"),
            ("attached", None, Some("name=zcswap0 state=on backing_errors=1"), "dmesg says why"),
        ] {
            let devices: Vec<_> = device.into_iter().collect();
            let disks: Vec<_> = disk.into_iter().collect();
            let text = of(host, &devices, &disks);
            assert!(text.contains(said) && text.lines().count() == 1, "{devices:?} {disks:?}: {text}");
        }
    }

    #[test]
    fn many_devices_without_a_host_are_one_line() {
        let devices: Vec<_> = "abcde".chars().map(|name| format!("name={name} state=unattached")).collect();
        let devices: Vec<_> = devices.iter().map(String::as_str).collect();
        let text = of("unattached", &devices, &[]);
        assert!(text.starts_with("a, b, c and 2 others: nothing is cached") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn what_is_well_is_not_mentioned() {
        assert_eq!(of("attached", &["name=a state=attached size=8 origin_size=8"], &["name=zcswap0 state=on"]), "");
        assert_eq!(of("lost", &[], &[]), "");
    }
}
