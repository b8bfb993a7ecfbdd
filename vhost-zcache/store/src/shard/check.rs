// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Checks of everything that must hold between the parts of a shard, for tests and fuzzing.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::arena::header::{HEADER_WORDS, Lane};
use crate::shard::Shard;
use crate::shard::index::nodes::Node;
use crate::shard::index::objects::Object;
use crate::shard::space::holes::Bins;
use crate::shard::space::record::{Head, MIN_HOLE, OBJECT_WORDS, PageName, check_object};
use crate::shard::space::{FIRST, Location};
use crate::stats::Contents;

/// Fails with a sentence unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

/// What walking the segments finds.
#[derive(Default)]
struct Found {
    /// Pages by location.
    pages: BTreeMap<Location, PageName>,
    /// Object records by location, with the object's number.
    objects: BTreeMap<Location, Node>,
    /// Holes that must be in a bin, by location, with heap, lane and size.
    holes: HashMap<Location, (usize, Lane, u32)>,
}

impl Shard {
    /// Checks everything that must hold between the parts of the shard.
    pub(crate) fn check(&self) -> Result<(), String> {
        let found = self.check_segments()?;
        self.check_bins(&found)?;
        self.check_queues(&found)?;
        self.check_index(&found)
    }

    fn check_segments(&self) -> Result<Found, String> {
        let mut found = Found::default();
        let mut sums: HashMap<usize, (u64, u64, Contents)> = HashMap::new();
        for (number, slot) in self.space.slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            let mut at = Location::new(number, FIRST);
            let end = u64::from(at.cell()) - HEADER_WORDS as u64 + u64::from(slot.tail);
            let mut live = 0;
            let sum = sums.entry(slot.heap).or_default();
            while let Some((head, next)) = self.space.walk(at) {
                match head {
                    Head::Page(page) => {
                        found.pages.insert(at, self.space.page_name(at));
                        sum.2.add(page);
                        live += page.words();
                    }
                    Head::Object => {
                        let words = self.space.words(at, OBJECT_WORDS);
                        let record = words.try_into().map_err(|_| "short record".to_owned())?;
                        let name = check_object(record).ok_or(format!("damaged name at {at:#x}"))?;
                        found.objects.insert(at, name.object);
                        live += OBJECT_WORDS;
                    }
                    Head::Hole(words) => {
                        if !slot.draining && words >= MIN_HOLE {
                            found.holes.insert(at, (slot.heap, slot.lane, words));
                        }
                    }
                    Head::End | Head::Unknown => return Err(format!("no record at {at:#x}")),
                }
                if u64::from(next.cell()) == end || next == at {
                    at = next;
                    break;
                }
                at = next;
            }
            ensure!(u64::from(at.cell()) == end & 0xffff_ffff, "segment {number} ends at {at:#x}, not {end:#x}");
            ensure!(live == slot.live, "segment {number} holds {live} words, not {}", slot.live);
            let resident = (slot.segment.populated() * 8) as u64;
            ensure!(slot.charge.bytes() == resident, "segment {number} is charged wrongly");
            sum.0 += u64::from(slot.tail);
            sum.1 += u64::from(slot.live);
        }
        for (number, heap) in self.space.heaps.iter().enumerate() {
            let Some(heap) = heap else { continue };
            let (total, live, contents) = sums.remove(&number).unwrap_or_default();
            ensure!(heap.total == total, "heap {number} is {total} words, not {}", heap.total);
            ensure!(heap.live == live, "heap {number} holds {live} words, not {}", heap.live);
            ensure!(heap.contents == contents, "heap {number} miscounts its pages");
        }
        ensure!(sums.is_empty(), "segments belong to no heap");
        Ok(found)
    }

    fn check_bins(&self, found: &Found) -> Result<(), String> {
        let mut binned = HashSet::new();
        for (number, heap) in self.space.heaps.iter().enumerate() {
            let Some(heap) = heap else { continue };
            for lane in Lane::ALL {
                self.check_lane(number, lane, &heap.free(lane).bins, found, &mut binned)?;
            }
        }
        ensure!(binned.len() == found.holes.len(), "holes are in no bin");
        Ok(())
    }

    fn check_lane(
        &self,
        heap: usize,
        lane: Lane,
        bins: &Bins,
        found: &Found,
        binned: &mut HashSet<Location>,
    ) -> Result<(), String> {
        for (bin, head) in bins.heads() {
            let mut before = Location::NONE;
            let mut at = head;
            while at != Location::NONE {
                let hole = found.holes.get(&at);
                let right =
                    hole.is_some_and(|(h, l, size)| (*h, *l) == (heap, lane) && bins.bin_of(*size) == Some(bin));
                ensure!(right, "bin {bin} of heap {heap}, {lane:?}, has {at:#x}, which is {hole:?}");
                ensure!(binned.insert(at), "hole {at:#x} is in two places");
                let (next, previous) = Location::split(self.space.word(at + 1));
                ensure!(previous == before, "hole {at:#x} points back to {previous:#x}");
                (before, at) = (at, next);
            }
        }
        Ok(())
    }

    fn check_queues(&self, found: &Found) -> Result<(), String> {
        let mut queued = HashSet::new();
        for number in 0..self.space.heaps.len() {
            if self.space.heaps[number].is_some() {
                self.space.check_queue(number, &mut queued)?;
            }
        }
        for at in found.pages.keys() {
            let linked = self.space.page_head(*at).is_linked();
            ensure!(linked == queued.contains(at), "page {at:#x} is in no queue, or wrongly in one");
        }
        ensure!(queued.iter().all(|at| found.pages.contains_key(at)), "a queue has what is no page");
        Ok(())
    }

    fn check_index(&self, found: &Found) -> Result<(), String> {
        let mut pages = 0;
        let mut objects = 0;
        let mut contents: Vec<Contents> = vec![Contents::default(); self.pools.len()];
        for (number, pool) in self.pools.iter().enumerate() {
            let Some(pool) = pool else { continue };
            for node in pool.objects.numbers(&self.nodes) {
                let object = Object::read(&self.nodes, node);
                ensure!(object.pool.0 == number, "object {node:#x} is in the table of another pool");
                let named = found.objects.get(&object.record);
                ensure!(named == Some(&node), "object {node:#x} has no name");
                ensure!(object.pages > 0, "object {node:#x} has no page");
                objects += 1;
                pages += self.check_object(node, found, &mut contents[number])?;
            }
        }
        let mut retired = vec![0; self.pools.len()];
        for node in self.retired.objects() {
            let object = Object::read(&self.nodes, *node);
            ensure!(object.is_retired(), "object {node:#x} is retired and has a name");
            let count = self.check_object(*node, found, &mut contents[object.pool.0])?;
            retired[object.pool.0] += count as u64;
            pages += count;
        }
        for (number, pool) in self.pools.iter().enumerate() {
            let Some(pool) = pool else { continue };
            ensure!(contents[number] == pool.contents, "pool {number} miscounts its pages");
            ensure!(retired[number] == pool.retired_pages, "pool {number} miscounts its retired pages");
        }
        ensure!(pages == found.pages.len(), "pages are not in the index");
        ensure!(objects == found.objects.len(), "names are not in the index");
        self.nodes.check()
    }

    /// Checks an object's tree; returns its pages, which are added to `contents`.
    fn check_object(&self, node: Node, found: &Found, contents: &mut Contents) -> Result<usize, String> {
        let object = Object::read(&self.nodes, node);
        let mut count = 0;
        let mut from = Some(0);
        while let Some((index, at)) = from.and_then(|from| object.tree.next(&self.nodes, from)) {
            let name = found.pages.get(&at).copied();
            let right = name.is_some_and(|n| n.object == node && n.index == index);
            ensure!(right, "page {index} of {node:#x} points to {at:#x}, {name:?}");
            let got = object.tree.get(&self.nodes, index);
            ensure!(got == Some(at), "page {index} of {node:#x} is found at {got:?}");
            contents.add(self.space.page_head(at));
            count += 1;
            from = index.checked_add(1);
        }
        ensure!(count == object.pages as usize, "object {node:#x} has {count} pages");
        Ok(count)
    }
}
