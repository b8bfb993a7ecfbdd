// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest asks for: generated, or read from a file.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::random::Random;

/// One line of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The guest uses a page: it asks for it, and puts it if that was a miss.
    Use(u64),
    /// A recorded get, which removes what it finds.
    Get(u64),
    /// A recorded put.
    Put(u64),
    /// A recorded flush of one page.
    Flush(u64),
}

/// A sequence of events.
pub(super) struct Trace {
    pub(super) name: String,
    pub(super) generated: bool,
    pub(super) events: Vec<Event>,
}

impl Trace {
    /// Uses of generated pages, for a store of `capacity` pages.
    pub(super) fn generated(capacity: u64) -> Vec<Self> {
        let trace = |name: &str, keys: Vec<u64>| Self {
            name: name.into(),
            generated: true,
            events: keys.into_iter().map(Event::Use).collect(),
        };
        vec![
            trace("zipf 0.8, 8x the store", zipf(0.8, capacity * 8, capacity * 30, 11)),
            trace("zipf 1.0, 8x the store", zipf(1.0, capacity * 8, capacity * 30, 12)),
            trace("hot set and scans", hot_and_scans(capacity)),
            trace("loop of 1.1x the store", looped(capacity)),
            trace("file reads: zipf files, runs", file_runs(capacity)),
            trace("work that changes", changing(capacity)),
            trace("recent pages again", recent(capacity)),
        ]
    }

    /// Reads a trace: one event a line, `get`, `put` or `flush` (or their first letters) and the
    /// words that name the page; or only these words, for a use. Commas separate like blanks, what
    /// follows a `#` is a remark.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let mut numbers: HashMap<String, u64> = HashMap::new();
        let mut events = Vec::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty()).peekable();
            let event: fn(u64) -> Event = match words.peek().map(|word| word.to_ascii_lowercase()).as_deref() {
                None => continue,
                Some("get" | "g") => Event::Get,
                Some("put" | "p") => Event::Put,
                Some("flush" | "f") => Event::Flush,
                Some(_) => Event::Use,
            };
            if event(0) != Event::Use(0) {
                words.next();
            }
            let name = words.collect::<Vec<_>>().join(" ");
            ensure!(!name.is_empty(), "{}: \"{line}\" names no page", path.display());
            let next = numbers.len() as u64;
            events.push(event(*numbers.entry(name).or_insert(next)));
        }
        ensure!(!events.is_empty(), "{} has no events", path.display());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, generated: false, events })
    }

    /// Distinct pages.
    pub(super) fn footprint(&self) -> usize {
        let key = |event: &Event| match event {
            Event::Use(key) | Event::Get(key) | Event::Put(key) | Event::Flush(key) => *key,
        };
        self.events.iter().map(key).collect::<std::collections::HashSet<_>>().len()
    }
}

/// Ranks by Zipf's law, by inverting the continuous approximation of its sum.
#[expect(clippy::cast_possible_truncation, reason = "a rank is below 2^53")]
fn zipf(exponent: f64, pages: u64, uses: u64, seed: u64) -> Vec<u64> {
    let mut random = Random::new(seed);
    let n = pages as f64;
    (0..uses)
        .map(|_| {
            let u = random.fraction();
            let rank = if (exponent - 1.0).abs() < 1e-9 {
                n.powf(u)
            } else {
                let e = 1.0 - exponent;
                (u * (n.powf(e) - 1.0) + 1.0).powf(1.0 / e)
            };
            // Popular pages are anywhere.
            (rank as u64).min(pages - 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
        })
        .collect()
}

/// Half the uses go to a hot set of 60 % of the store, the others to a scan that never comes
/// back.
fn hot_and_scans(capacity: u64) -> Vec<u64> {
    let mut random = Random::new(13);
    let hot = capacity * 6 / 10;
    let mut scan = 1 << 40;
    let mut keys = Vec::new();
    while (keys.len() as u64) < capacity * 30 {
        if random.next().is_multiple_of(64) {
            for _ in 0..64 {
                keys.push(scan);
                scan += 1;
            }
        } else {
            keys.push(random.next() % hot);
        }
    }
    keys
}

fn looped(capacity: u64) -> Vec<u64> {
    let length = capacity * 11 / 10;
    (0..capacity * 20).map(|at| at % length).collect()
}

/// Files by Zipf's law, read from their start in runs; most files are small.
fn file_runs(capacity: u64) -> Vec<u64> {
    let mut random = Random::new(14);
    let files = zipf(0.9, capacity * 2, capacity * 8, 15);
    let mut keys = Vec::new();
    for file in files {
        let mut size = Random::new(file);
        // Powers of two from 1 to 128 pages, each half as likely as the one before.
        let pages = 1 << size.next().trailing_ones().min(7);
        let run = 1 + random.next() % pages;
        keys.extend((0..run).map(|page| file << 8 | page));
        if keys.len() as u64 > capacity * 30 {
            break;
        }
    }
    keys
}

/// Eight times another working set of 70 % of the store, to which four in five uses go; the others
/// go to pages four times the store.
fn changing(capacity: u64) -> Vec<u64> {
    let mut random = Random::new(16);
    let mut keys = Vec::new();
    for set in 1..=8 {
        for _ in 0..capacity * 4 {
            let (from, pages) =
                if random.next().is_multiple_of(5) { (1 << 39, capacity * 4) } else { (0, capacity * 7 / 10) };
            keys.push((set << 40 | from) + random.next() % pages);
        }
    }
    keys
}

/// Three in ten uses are of a new page; the others of one that came on average half a store before.
#[expect(clippy::cast_possible_truncation, reason = "a distance is below 2^53")]
fn recent(capacity: u64) -> Vec<u64> {
    let mut random = Random::new(17);
    let mut newest = 0u64;
    let mut use_one = || {
        if random.next() % 10 < 3 {
            newest += 1;
            return newest;
        }
        let distance = -(1.0 - random.fraction()).ln() * capacity as f64 / 2.0;
        newest.saturating_sub(distance as u64)
    };
    (0..capacity * 30).map(|_| use_one()).collect()
}
