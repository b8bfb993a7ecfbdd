// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is known, for people.

use std::iter::once;

use crate::units::{PAGE, human, percentage};

use super::Status;
use super::columns::{Column, Side, table};
use super::facts::Facts;

const NOTHING: &str = "-";

/// Tables, what all of it comes to, and what is wrong.
pub(super) fn of(status: &Status) -> String {
    let tables = [of_devices(&status.dm), of_swap(&status.swap)].join("\n");
    let problems: String = status.problems.iter().map(|problem| format!("{problem}\n")).collect();
    let verdict = if problems.is_empty() { "nothing is wrong\n" } else { &problems };
    format!("{tables}\n{}\n{verdict}", summary(status))
}

/// What the host does for this guest, in a line.
fn summary(status: &Status) -> String {
    let sum = |facts: &[Facts], key| facts.iter().map(|facts| facts.count(key)).fold(0, u64::saturating_add);
    let (hits, misses) = (sum(&status.dm, "hits"), sum(&status.dm, "misses"));
    let share = percentage(hits, misses).map(|share| format!(" ({share})")).unwrap_or_default();
    format!(
        "host {}; saved {}{share} of reads from disks; {} of swap are on the host",
        status.host.as_deref().unwrap_or("not known"),
        human(hits.saturating_mul(PAGE)),
        human(sum(&status.swap, "pages_live").saturating_mul(PAGE)),
    )
}

fn of_devices(devices: &[Facts]) -> String {
    use Side::{Left, Right};
    let columns = [
        Column("NAME", 15, Left),
        Column("STATE", 10, Left),
        Column("MODE", 5, Left),
        Column("SIZE", 6, Right),
        Column("HITS", 9, Right),
        Column("MISSES", 9, Right),
        Column("RATIO", 6, Right),
        Column("SAVED", 6, Right),
        Column("PUTS", 9, Right),
        Column("DROPPED", 9, Right),
        Column("REFUSED", 8, Right),
        Column("INVALIDATES", 9, Right),
        Column("MEMORY", 6, Right),
    ];
    let row = |facts: &Facts| {
        let ratio = facts.number("hits").and_then(|hits| percentage(hits, facts.count("misses")));
        vec![
            word(facts, "name"),
            word(facts, "state"),
            word(facts, "put"),
            size(facts, "size", 1),
            word(facts, "hits"),
            word(facts, "misses"),
            ratio.unwrap_or_else(|| NOTHING.to_owned()),
            size(facts, "hits", PAGE),
            word(facts, "puts"),
            word(facts, "put_dropped"),
            word(facts, "put_refused_content"),
            word(facts, "invalidates"),
            size(facts, "memory", 1),
        ]
    };
    table(&columns, &devices.iter().map(row).collect::<Vec<_>>())
}

pub(super) fn of_swap(disks: &[Facts]) -> String {
    use Side::{Left, Right};
    let columns = [
        Column("NAME", 15, Left),
        Column("STATE", 5, Left),
        Column("SIZE", 6, Right),
        Column("BACKING", 15, Left),
        Column("WRITETHROUGH", 12, Left),
        Column("HOSTED", 9, Right),
        Column("STORES", 9, Right),
        Column("REFUSED", 9, Right),
        Column("LOADS", 9, Right),
        Column("AWAY", 6, Right),
        Column("LOST", 6, Right),
        Column("MEMORY", 6, Right),
    ];
    let row = |facts: &Facts| {
        let words = ["writethrough", "pages_live", "stores", "store_refused", "loads", "pages_away", "pages_lost"];
        [word(facts, "name"), word(facts, "state"), size(facts, "disksize", 1), word(facts, "backing_dev")]
            .into_iter()
            .chain(words.map(|key| word(facts, key)))
            // A byte of memory for each page.
            .chain(once(size(facts, "pages", 1)))
            .collect()
    };
    table(&columns, &disks.iter().map(row).collect::<Vec<_>>())
}

/// Every fact on a line of its own.
pub(super) fn of_one(facts: &Facts) -> String {
    facts.iter().map(|(key, value)| format!("{key:<20} {value}\n")).collect()
}

fn word(facts: &Facts, key: &str) -> String {
    facts.get(key).unwrap_or(NOTHING).to_owned()
}

fn size(facts: &Facts, key: &str, unit: u64) -> String {
    facts.number(key).map_or_else(|| NOTHING.to_owned(), |number| human(number.saturating_mul(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glance_tells_what_is_cached_and_saved() {
        let status = Status {
            host: Some("attached".to_owned()),
            dm: vec![
                Facts::for_test(
                    "name=data size=1073741824 state=attached put=evict hits=1024 misses=1024 puts=9 memory=2048",
                ),
                Facts::for_test("name=raw size=1024 state=uncached"),
            ],
            swap: vec![Facts::for_test(
                "name=zcswap0 state=on disksize=67108864 backing_dev=none pages_live=256 pages=1024",
            )],
            problems: Vec::new(),
        };
        let text = of(&status);
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[1].starts_with("data            attached   evict     1G      1024      1024  50.0%     4M"),
            "{text}"
        );
        assert!(lines[2].starts_with("raw             uncached   -         1K         -"), "{text}");
        assert!(lines[5].starts_with("zcswap0         on       64M none            -                  256"), "{text}");
        assert_eq!(lines[7], "host attached; saved 4M (50.0%) of reads from disks; 1M of swap are on the host");
        assert_eq!(lines[8], "nothing is wrong");
    }

    #[test]
    fn problems_come_last() {
        let status = Status { host: None, dm: Vec::new(), swap: Vec::new(), problems: vec!["a: b".to_owned()] };
        assert!(of(&status).ends_with("\na: b\n"));
    }
}
