// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory of the index: nodes of 1 to 17 granules of 16 bytes, in 4 KiB pages of one size each.
//!
//! A node is named by a 32-bit number: page and granule. A page whose last node is freed is
//! given back, so an index that shrinks becomes small.

use std::fmt;
use std::sync::Arc;

use crate::accounting::{Account, Charge, Use};
use crate::arena::host::HOST_PAGE;
use crate::arena::page_run::{PAGE_CELLS, PageRun, RUN_PAGES};
use crate::arena::word::count;
use crate::fault::Faults;
use crate::op::Refusal;

/// 32-bit cells of a granule.
pub(crate) const GRANULE_CELLS: usize = 4;
/// Granules of the largest node.
pub(crate) const MAX_CLASS: usize = 17;
const GRANULES: u32 = 256;
const _: () = assert!(GRANULES as usize == PAGE_CELLS / GRANULE_CELLS);
/// No page: page 0 is not used.
const NONE: u32 = 0;
/// Pages kept when they become empty, so that a few nodes more or less ask nothing of the host.
const SPARE_PAGES: usize = 4;
/// Pages that the table of pages grows by; a run has a multiple of it.
const MORE_PAGES: usize = 64;
const _: () = assert!(RUN_PAGES.is_multiple_of(MORE_PAGES));

/// A node of the index: its page, and its first granule there. [`Nodes::alloc`] hands it out; it
/// means that node until it is freed. An object's node is its number within the shard as well,
/// which the records in the arena keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::shard) struct Node(u32);

impl Node {
    /// No node: page 0 holds none.
    pub(in crate::shard) const NONE: Self = Self(0);

    /// The node in a cell of another node, or in a record.
    pub(in crate::shard) const fn from_cell(cell: u32) -> Self {
        Self(cell)
    }

    /// As a cell of another node or a record keeps it.
    pub(in crate::shard) const fn cell(self) -> u32 {
        self.0
    }

    fn new(page: u32, granule: u32) -> Self {
        Self(page * GRANULES + granule)
    }

    fn page(self) -> u32 {
        self.0 / GRANULES
    }

    fn granule(self) -> u32 {
        self.0 % GRANULES
    }

    /// Its run, and its first cell there.
    fn place(self) -> (usize, usize) {
        let (run, index) = page_place(self.page());
        (run, index * PAGE_CELLS + self.granule() as usize * GRANULE_CELLS)
    }
}

impl fmt::LowerHex for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known of a page.
#[derive(Clone, Copy, Default)]
struct Meta {
    /// Granules of its nodes; 0 when the page is not in use.
    class: u8,
    owner: u16,
    /// Nodes in use.
    live: u16,
    /// First granule never handed out.
    fresh: u16,
    /// First freed node, by granule; linked through the nodes' first cells. `GRANULES` if none.
    freed: u16,
    /// Neighbours among the pages of the class that have a free node.
    next: u32,
    previous: u32,
}

impl Meta {
    fn is_full(&self) -> bool {
        let class = u32::from(self.class);
        u32::from(self.freed) == GRANULES && u32::from(self.fresh) + class > GRANULES
    }
}

/// Pages side by side that one huge page can hold.
struct Run {
    pages: PageRun,
    /// Those that are resident.
    resident: usize,
}

/// The nodes of one shard.
pub(crate) struct Nodes {
    runs: Vec<Run>,
    /// By number; there is no page 0, as its first node would be `NONE`.
    pages: Vec<Meta>,
    /// The run that became resident as a whole.
    full: Option<usize>,
    /// First page with a free node, by class.
    partial: [u32; MAX_CLASS + 1],
    /// Unused page numbers whose memory the host has back.
    holes: Vec<u32>,
    /// Unused pages still resident, with the account that pays for them.
    spare: Vec<(u32, u16)>,
    charges: Vec<Option<Charge>>,
    /// Pages are paid for whatever the limits say: the index was there before.
    regardless: bool,
    faults: Faults,
}

impl Nodes {
    pub(crate) fn new(faults: Faults) -> Self {
        Self {
            runs: Vec::new(),
            pages: vec![Meta::default()],
            full: None,
            partial: [NONE; MAX_CLASS + 1],
            holes: Vec::new(),
            spare: Vec::new(),
            charges: Vec::new(),
            regardless: false,
            faults,
        }
    }

    /// Leaves all nodes to the caller, to be dropped as a whole, and begins anew with the same
    /// owners.
    pub(crate) fn renew(&mut self) -> Self {
        let mut new = Self::new(self.faults.clone());
        new.charges = self.charges.iter().map(|charge| charge.as_ref().map(Charge::another)).collect();
        std::mem::replace(self, new)
    }

    /// Lets `account` pay for pages, under the number of one of its heaps.
    pub(crate) fn add_owner(&mut self, owner: usize, account: Arc<Account>) {
        if self.charges.len() <= owner {
            self.charges.resize_with(owner + 1, || None);
        }
        self.charges[owner] = Some(Charge::none(account, Use::Kept));
    }

    /// Cells of a node.
    pub(in crate::shard) fn node(&self, node: Node) -> &[u32] {
        &self.cells_from(node)[..self.class(node) * GRANULE_CELLS]
    }

    /// The cells from a node's first on, at least all of its own; does without looking up its
    /// class.
    pub(in crate::shard) fn cells_from(&self, node: Node) -> &[u32] {
        let (run, from) = node.place();
        &self.runs[run].pages.cells()[from..]
    }

    /// Asks for the cache line of a node's cell, to be read soon.
    pub(in crate::shard) fn prefetch(&self, node: Node, cell: usize) {
        let (run, from) = node.place();
        self.runs[run].pages.prefetch(from + cell);
    }

    /// Cells of a node.
    pub(in crate::shard) fn node_mut(&mut self, node: Node) -> &mut [u32] {
        let (run, from) = node.place();
        let cells = usize::from(self.pages[node.page() as usize].class) * GRANULE_CELLS;
        &mut self.runs[run].pages.cells_mut()[from..from + cells]
    }

    /// Granules of a node.
    pub(in crate::shard) fn class(&self, node: Node) -> usize {
        usize::from(self.pages[node.page() as usize].class)
    }

    /// Makes a zeroed node of `class` granules, on pages of its own class.
    pub(in crate::shard) fn alloc(&mut self, class: usize, owner: usize) -> Result<Node, Refusal> {
        let page = match self.partial[class] {
            NONE => self.open_page(class, owner)?,
            page => page,
        };
        let meta = self.pages[page as usize];
        let granule = if u32::from(meta.freed) < GRANULES {
            let node = Node::new(page, u32::from(meta.freed));
            let next = self.node(node)[0];
            self.pages[page as usize].freed = granule16(next);
            meta.freed
        } else {
            self.pages[page as usize].fresh += granule16(count(class));
            meta.fresh
        };
        self.pages[page as usize].live += 1;
        if self.pages[page as usize].is_full() {
            self.unlink(page);
        }
        let node = Node::new(page, u32::from(granule));
        self.node_mut(node).fill(0);
        Ok(node)
    }

    /// Frees a node.
    pub(in crate::shard) fn free(&mut self, node: Node) {
        let page = node.page();
        let was_full = self.pages[page as usize].is_full();
        let freed = u32::from(self.pages[page as usize].freed);
        self.node_mut(node)[0] = freed;
        let meta = &mut self.pages[page as usize];
        meta.freed = granule16(node.granule());
        meta.live -= 1;
        let empty = meta.live == 0;
        if was_full {
            self.link(page);
        }
        if empty {
            self.unlink(page);
            self.close_page(page);
        }
    }

    fn open_page(&mut self, class: usize, owner: usize) -> Result<u32, Refusal> {
        let page = self.take_page(owner)?;
        self.pages[page as usize] = Meta {
            class: class_number(class),
            owner: owner_number(owner),
            live: 0,
            fresh: 0,
            freed: granule16(GRANULES),
            next: NONE,
            previous: NONE,
        };
        self.link(page);
        Ok(page)
    }

    fn take_page(&mut self, owner: usize) -> Result<u32, Refusal> {
        if let Some(at) = self.spare.iter().position(|(_, payer)| usize::from(*payer) == owner) {
            return Ok(self.spare.swap_remove(at).0);
        }
        if self.holes.is_empty() {
            self.add_pages()?;
        }
        let charge = self.charges.get_mut(owner).and_then(Option::as_mut).ok_or(Refusal::NoMemory)?;
        if self.regardless {
            charge.grow_regardless(HOST_PAGE as u64);
        } else {
            charge.grow(HOST_PAGE as u64)?;
        }
        let Some(page) = self.holes.pop() else { return Err(Refusal::NoMemory) };
        let (number, index) = page_place(page);
        let run = &mut self.runs[number];
        if run.pages.populate(index).is_err() {
            self.holes.push(page);
            charge.shrink(HOST_PAGE as u64);
            return Err(Refusal::NoMemory);
        }
        run.resident += 1;
        if run.resident == RUN_PAGES {
            self.full = Some(number);
        }
        Ok(page)
    }

    /// Adds pages, none of which is resident.
    fn add_pages(&mut self) -> Result<(), Refusal> {
        let first = self.pages.len();
        if first + MORE_PAGES > (u32::MAX / GRANULES) as usize {
            return Err(Refusal::NoMemory);
        }
        if page_place(count(first)).0 == self.runs.len() {
            let pages = PageRun::new(self.faults.clone()).map_err(|_| Refusal::NoMemory)?;
            self.runs.push(Run { pages, resident: 0 });
        }
        self.pages.resize(first + MORE_PAGES, Meta::default());
        // Low numbers are handed out first.
        self.holes.extend((first..first + MORE_PAGES).rev().map(count));
        Ok(())
    }

    /// The run that became resident as a whole since the last call, and the beginning of a payment
    /// for another place.
    pub(crate) fn take_full(&mut self) -> Option<(usize, Charge)> {
        let number = self.full.take()?;
        let owner = self.pages[number * RUN_PAGES + 1].owner;
        let charge = self.charges.get(usize::from(owner))?.as_ref()?;
        Some((number, charge.another()))
    }

    /// Moves a run to another place if it still is resident as a whole; returns what is not needed
    /// any more.
    pub(crate) fn move_run(&mut self, number: usize, mut to: PageRun) -> PageRun {
        if let Some(run) = self.runs.get_mut(number).filter(|run| run.resident == RUN_PAGES) {
            to.cells_mut().copy_from_slice(run.pages.cells());
            std::mem::swap(&mut run.pages, &mut to);
        }
        to
    }

    fn close_page(&mut self, page: u32) {
        let owner = self.pages[page as usize].owner;
        self.pages[page as usize] = Meta::default();
        self.spare.push((page, owner));
        if self.spare.len() > SPARE_PAGES {
            let (page, owner) = self.spare.remove(0);
            self.discard(page, owner);
        }
    }

    fn discard(&mut self, page: u32, owner: u16) {
        let (run, index) = page_place(page);
        self.runs[run].pages.discard(index);
        self.runs[run].resident -= 1;
        self.holes.push(page);
        if let Some(Some(charge)) = self.charges.get_mut(usize::from(owner)) {
            charge.shrink(HOST_PAGE as u64);
        }
    }

    /// Gives back what is only kept in reserve.
    pub(crate) fn trim(&mut self) {
        while let Some((page, owner)) = self.spare.pop() {
            self.discard(page, owner);
        }
    }

    /// Lets `heir` pay for all that `owner` pays for, who then leaves. On refusal nothing
    /// has changed.
    pub(crate) fn inherit(&mut self, owner: usize, heir: usize) -> Result<(), Refusal> {
        self.trim();
        let bytes = self.charges.get(owner).and_then(Option::as_ref).map_or(0, Charge::bytes);
        // The leaver pays back first: the store as a whole may be at its limit.
        if let Some(Some(charge)) = self.charges.get_mut(owner) {
            charge.shrink(bytes);
        }
        let heirs = self.charges.get_mut(heir).and_then(Option::as_mut).ok_or(Refusal::NoMemory);
        if let Err(refusal) = heirs.and_then(|charge| charge.grow(bytes)) {
            if let Some(Some(charge)) = self.charges.get_mut(owner) {
                let _ = charge.grow(bytes);
            }
            return Err(refusal);
        }
        for meta in &mut self.pages {
            if meta.class != 0 && usize::from(meta.owner) == owner {
                meta.owner = owner_number(heir);
            }
        }
        self.charges[owner] = None;
        Ok(())
    }

    /// Has limits count from here on, or not.
    pub(crate) fn set_regardless(&mut self, regardless: bool) {
        self.regardless = regardless;
    }

    /// Marks a node of an earlier process as in use. All claims come before the first `alloc`,
    /// and [`Nodes::finish_claims`] between them.
    pub(in crate::shard) fn claim(&mut self, node: Node, class: usize, owner: usize) -> Result<(), Refusal> {
        let page = node.page();
        if page == 0 || !node.granule().is_multiple_of(count(class)) {
            return Err(Refusal::NoMemory);
        }
        while self.pages.len() <= page as usize {
            self.add_pages()?;
        }
        if self.pages[page as usize].class == 0 {
            let Some(at) = self.holes.iter().position(|hole| *hole == page) else {
                return Err(Refusal::NoMemory);
            };
            // `take_page` takes the last.
            let last = self.holes.len() - 1;
            self.holes.swap(at, last);
            let taken = self.take_page(owner)?;
            self.pages[taken as usize] = Meta {
                class: class_number(class),
                owner: owner_number(owner),
                freed: granule16(GRANULES),
                ..Meta::default()
            };
        }
        self.node_mut(node)[0] = NONE + 1;
        self.pages[page as usize].live += 1;
        Ok(())
    }

    /// Makes free nodes of everything on claimed pages that was not claimed: claimed nodes have
    /// a non-zero first cell.
    pub(crate) fn finish_claims(&mut self) {
        self.holes.sort_unstable_by(|a, b| b.cmp(a));
        for page in 1..count(self.pages.len()) {
            let class = u32::from(self.pages[page as usize].class);
            if class == 0 {
                continue;
            }
            let mut freed = GRANULES;
            for slot in (0..GRANULES / class).rev() {
                let node = Node::new(page, slot * class);
                if self.node(node)[0] == 0 {
                    self.node_mut(node)[0] = freed;
                    freed = slot * class;
                }
            }
            let meta = &mut self.pages[page as usize];
            meta.freed = granule16(freed);
            meta.fresh = granule16(GRANULES);
            if !meta.is_full() {
                self.link(page);
            }
        }
    }

    fn link(&mut self, page: u32) {
        let class = usize::from(self.pages[page as usize].class);
        let next = self.partial[class];
        self.pages[page as usize].next = next;
        self.pages[page as usize].previous = NONE;
        if next != NONE {
            self.pages[next as usize].previous = page;
        }
        self.partial[class] = page;
    }

    fn unlink(&mut self, page: u32) {
        let Meta { class, next, previous, .. } = self.pages[page as usize];
        if next != NONE {
            self.pages[next as usize].previous = previous;
        }
        if previous == NONE {
            self.partial[usize::from(class)] = next;
        } else {
            self.pages[previous as usize].next = next;
        }
    }

    /// Resident bytes, those in reserve included.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.charges.iter().flatten().map(Charge::bytes).sum()
    }

    /// Checks that every page in use or in reserve is paid for, by its owner.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut pages = vec![0; self.charges.len()];
        for meta in self.pages.iter().filter(|meta| meta.class != 0) {
            pages[usize::from(meta.owner)] += 1;
        }
        for (_, owner) in &self.spare {
            pages[usize::from(*owner)] += 1;
        }
        for (owner, charge) in self.charges.iter().enumerate() {
            let paid = charge.as_ref().map_or(0, Charge::bytes);
            if paid != pages[owner] * HOST_PAGE as u64 {
                return Err(format!("owner {owner} of {} index pages pays {paid} bytes", pages[owner]));
            }
        }
        Ok(())
    }
}

/// Run of a page, which is not page 0, and its index there.
fn page_place(page: u32) -> (usize, usize) {
    let index = page.wrapping_sub(1) as usize;
    (index / RUN_PAGES, index % RUN_PAGES)
}

/// A class, at most `MAX_CLASS`.
fn class_number(class: usize) -> u8 {
    (count(class) & 0xff) as u8
}

/// Number of a heap; a domain has as many as it has members.
fn owner_number(owner: usize) -> u16 {
    (count(owner) & 0xffff) as u16
}

/// A granule number, at most `GRANULES`.
fn granule16(granule: u32) -> u16 {
    (granule & 0xffff) as u16
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn nodes_on_a_huge_page_are_as_before_and_its_pages_come_back_one_by_one() {
        let account = Account::unlimited_store(None);
        let mut nodes = Nodes::new(Faults::default());
        nodes.add_owner(0, account);
        let mut made = Vec::new();
        let number = loop {
            let node = nodes.alloc(16, 0).expect("there is memory");
            nodes.node_mut(node).fill(node.cell());
            made.push(node);
            if let Some((full, _)) = nodes.take_full() {
                break full;
            }
        };
        drop(nodes.move_run(number, PageRun::new_huge(Faults::default()).expect("there is memory")));
        let rest = &made[..];
        for node in rest {
            assert!(nodes.node(*node).iter().all(|cell| *cell == node.cell()), "node {node:#x} changed");
        }
        let (freed, kept) = rest.split_at(rest.len() / 2);
        let before = nodes.resident_bytes();
        freed.iter().for_each(|node| nodes.free(*node));
        assert!(nodes.resident_bytes() < before * 6 / 10, "freed nodes stay resident");
        for node in kept {
            assert!(nodes.node(*node).iter().all(|cell| *cell == node.cell()), "node {node:#x} changed");
        }
        let again = nodes.alloc(16, 0).expect("there is memory");
        assert!(nodes.node(again).iter().all(|cell| *cell == 0), "a new node is not empty");
    }
}
