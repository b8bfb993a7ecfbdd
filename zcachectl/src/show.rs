// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Documents as tables for people. Names come from guests' configuration, so they are plain text.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;
use zcache_report::{Contents, Counters, GuestReport, PoolKind, PoolReport, Report};

use crate::units::{duration, percent, size};

/// Bytes of a guest's page.
const PAGE: u64 = 4096;

/// A table without lines, whose columns after the first so many are numbers.
fn table(header: &[&str], words: usize, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    rows.into_iter().for_each(|row| {
        table.add_row(row.into_iter().map(|cell| plain(&cell)));
    });
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if number >= words {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Text without anything that a terminal could obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// All guests.
#[must_use]
pub fn guests(guests: &[GuestReport]) -> String {
    if guests.is_empty() {
        return "There are no guests.".into();
    }
    let header = ["GUEST", "STATE", "MEMORY", "LIMIT", "RESERVED", "PAGES", "HELD", "RATIO", "HITS"];
    let rows = guests.iter().map(|guest| {
        let counters = all(guest);
        vec![
            guest.name.clone(),
            state(guest).into(),
            size(guest.physical_bytes),
            guest.memory_limit.map_or_else(|| "-".into(), size),
            size(guest.reserved_bytes),
            guest.contents.pages.to_string(),
            size(guest.contents.pages.saturating_mul(PAGE)),
            ratio(guest.contents.pages, guest.physical_bytes),
            percent(counters.hits, counters.gets),
        ]
    });
    table(&header, 2, rows)
}

/// In a word.
fn state(guest: &GuestReport) -> &'static str {
    match guest {
        GuestReport { connected: false, frozen: true, .. } => "away, frozen",
        GuestReport { connected: false, .. } => "away",
        GuestReport { quarantined: true, .. } => "quarantined",
        GuestReport { lost_regions: 1.., .. } => "memory lost",
        GuestReport { session: false, .. } => "no driver",
        GuestReport { frozen: true, .. } => "frozen",
        _ => "served",
    }
}

fn all(guest: &GuestReport) -> Counters {
    PoolKind::ALL.iter().fold(Counters::default(), |sum, kind| sum.plus(&guest.counters_of(*kind)))
}

fn ratio(pages: u64, bytes: u64) -> String {
    let tenths = u128::from(pages) * u128::from(PAGE) * 10 / u128::from(bytes.max(1));
    if bytes == 0 { "-".into() } else { format!("{}.{}", tenths / 10, tenths % 10) }
}

/// One guest.
#[must_use]
pub fn guest(guest: &GuestReport) -> String {
    let counters = all(guest);
    let mut facts = vec![
        ("guest", guest.name.clone()),
        ("state", state(guest).into()),
        ("memory", size(guest.physical_bytes)),
        ("limit", guest.memory_limit.map_or_else(|| "that of the store".into(), size)),
        ("reserved for swap", size(guest.reserved_bytes)),
        ("weight", guest.weight.to_string()),
        ("frozen", if guest.frozen { "yes: nothing new is stored" } else { "no" }.into()),
        ("to take back", format!("{} pages, {} were", guest.wanted_pages, guest.taken_back_pages)),
        ("trust domain", guest.trust_domain.clone()),
        ("eviction", guest.eviction.name().into()),
    ];
    facts.extend(contents(&guest.contents, guest.physical_bytes));
    facts.push(("gets", format!("{}, {} of them hits", counters.gets, percent(counters.hits, counters.gets))));
    facts.push(("puts", format!("{}, {} of them refused", counters.puts, counters.refused.total())));
    facts.push((
        "queues",
        format!("{}, {} stopped", guest.queues.len(), guest.queues.iter().filter(|q| q.stopped).count()),
    ));
    let facts = list(facts);
    if guest.pools.is_empty() { facts } else { format!("{facts}\n\n{}", pools(std::slice::from_ref(guest))) }
}

fn contents(contents: &Contents, bytes: u64) -> Vec<(&'static str, String)> {
    let held = size(contents.pages.saturating_mul(PAGE));
    let Contents { pages, same_filled, raw, cold, .. } = contents;
    vec![
        ("pages", format!("{pages}, {held} in {} of memory (ratio {})", size(bytes), ratio(*pages, bytes))),
        ("of these", format!("{same_filled} same-filled, {raw} not compressed, {cold} cold")),
    ]
}

/// Facts below each other.
fn list(facts: Vec<(&'static str, String)>) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = facts.into_iter().map(|(name, value)| format!("{name:width$}  {}", plain(&value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Pools of guests.
#[must_use]
pub fn pools(guests: &[GuestReport]) -> String {
    let header = ["GUEST", "KIND", "POOL", "PAGES", "COMPRESSED", "PUTS", "REFUSED", "GETS", "HITS", "EVICTED"];
    let of = |guest: &GuestReport, pool: &PoolReport| {
        vec![
            guest.name.clone(),
            pool.kind.name().into(),
            pool.id.to_string(),
            pool.contents.pages.to_string(),
            size(pool.contents.compressed_bytes),
            pool.counters.puts.to_string(),
            pool.counters.refused.total().to_string(),
            pool.counters.gets.to_string(),
            percent(pool.counters.hits, pool.counters.gets),
            pool.counters.evicted.to_string(),
        ]
    };
    let rows: Vec<_> = guests.iter().flat_map(|guest| guest.pools.iter().map(move |pool| of(guest, pool))).collect();
    if rows.is_empty() { "There are no pools.".into() } else { table(&header, 2, rows) }
}

/// Totals.
#[must_use]
pub fn stats(report: &Report) -> String {
    let store = &report.store;
    let connected = report.guests.iter().filter(|guest| guest.connected).count();
    let mut facts = vec![
        ("daemon", format!("{}, up for {}", report.version, duration(report.uptime_seconds))),
        ("worker restarts", report.worker_restarts.to_string()),
        ("guests", format!("{}, {connected} of them connected", report.guests.len())),
        (
            "memory",
            format!(
                "{} of {} ({})",
                size(store.physical_bytes),
                size(store.memory_limit),
                percent(store.physical_bytes, store.memory_limit)
            ),
        ),
        ("index", size(store.index_bytes)),
        ("garbage", size(store.garbage_bytes)),
        ("reserved for swap", size(store.reserved_bytes)),
    ];
    facts.extend(contents(&store.contents, store.physical_bytes));
    list(facts)
}

/// What was given back: figures by their names, and whatever has more.
#[must_use]
pub fn given_back(answer: &Value) -> String {
    let Value::Object(fields) = answer else { return answer.to_string() };
    let line = |(name, value): (&String, &Value)| {
        let is_bytes = name.ends_with("bytes");
        let value = match value {
            Value::Number(number) => number.as_u64().filter(|_| is_bytes).map_or_else(|| number.to_string(), size),
            Value::String(text) => plain(text),
            other => other.to_string(),
        };
        format!("{}: {value}", plain(name).trim_end_matches("_bytes").replace('_', " "))
    };
    fields.iter().map(line).collect::<Vec<_>>().join("\n")
}
