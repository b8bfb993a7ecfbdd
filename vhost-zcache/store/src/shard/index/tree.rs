// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An object's indexes: a tree of nodes of 64, each a bitmap and as many packed 32-bit entries
//! as it has bits. The tree is as high as the largest index needs; an object of one page has no
//! node at all. In leaves an entry is a location, above a node.

use super::nodes::{GRANULE_CELLS, MAX_CLASS, Node, Nodes};
use crate::op::Refusal;
use crate::shard::space::Location;

/// No page and no node, in a cell.
const NONE: u32 = 0;
const _: () = assert!(Node::NONE.cell() == NONE && Location::NONE.cell() == NONE);
/// Cells of the bitmap.
const BITMAP: usize = 2;
const BITS: u32 = 6;
/// Levels of a tree that holds index 2^64 - 1.
const MAX_HEIGHT: u32 = 11;

/// A node, or at the bottom of the tree a page's location: which one, the height says.
pub(in crate::shard) type Cell = u32;

/// An object's tree, as its object node keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    /// Levels; 0 for at most one page.
    pub(crate) height: u32,
    /// Root node, or the only page's location.
    pub(crate) root: Cell,
    /// Index of the only page.
    pub(crate) only: u64,
}

/// Position of a bit among those set.
fn rank(bitmap: u64, bit: u32) -> usize {
    (bitmap & ((1 << bit) - 1)).count_ones() as usize
}

fn bitmap(cells: &[u32]) -> u64 {
    u64::from(cells[0]) | u64::from(cells[1]) << 32
}

fn set_bitmap(cells: &mut [u32], bitmap: u64) {
    cells[0] = (bitmap & 0xffff_ffff) as u32;
    cells[1] = (bitmap >> 32) as u32;
}

/// The bit of an index in a node `level` levels above the leaves.
fn digit(index: u64, level: u32) -> u32 {
    ((index >> (BITS * level)) & 63) as u32
}

/// Levels a tree needs for an index.
fn height_for(index: u64) -> u32 {
    let mut height = 1;
    while height < MAX_HEIGHT && index >> (BITS * height) != 0 {
        height += 1;
    }
    height
}

/// Classes of nodes: a node that fills up moves a few times only, and one that is not full wastes
/// at most half of itself.
const CLASSES: [usize; 6] = [1, 2, 4, 8, 12, MAX_CLASS];

/// Class of a node for that many entries.
fn class_for(entries: usize) -> usize {
    let granules = (BITMAP + entries).div_ceil(GRANULE_CELLS);
    CLASSES.into_iter().find(|class| *class >= granules).unwrap_or(MAX_CLASS)
}

/// A node's entry for that bit.
fn entry(nodes: &Nodes, node: Node, bit: u32) -> Option<Cell> {
    // In a dense node the entry is there; without this its line would be asked for only when that
    // of the bitmap has come.
    nodes.prefetch(node, BITMAP + bit as usize);
    let cells = nodes.cells_from(node);
    let bits = bitmap(cells);
    (bits >> bit & 1 == 1).then(|| cells[BITMAP + rank(bits, bit)])
}

/// Asks for what a leaf, if it is one, has of an index.
pub(in crate::shard) fn prefetch(nodes: &Nodes, leaf: Node, index: u64) {
    nodes.prefetch(leaf, 0);
    nodes.prefetch(leaf, BITMAP + digit(index, 0) as usize);
}

/// Adds an entry to a node whose class has room for it.
fn add_entry(cells: &mut [u32], bits: u64, bit: u32, entry: Cell) {
    let at = BITMAP + rank(bits, bit);
    let end = BITMAP + bits.count_ones() as usize;
    cells.copy_within(at..end, at + 1);
    cells[at] = entry;
    set_bitmap(cells, bits | 1 << bit);
}

impl Tree {
    fn covers(&self, index: u64) -> bool {
        self.height >= height_for(index)
    }

    /// Location of a page.
    pub(in crate::shard) fn get(&self, nodes: &Nodes, index: u64) -> Option<Location> {
        if self.height == 0 {
            return (self.root != NONE && self.only == index).then_some(Location::from_cell(self.root));
        }
        entry(nodes, self.leaf(nodes, index)?, digit(index, 0)).map(Location::from_cell)
    }

    /// The leaf in which an index is, or would be; the tree has one level at least.
    fn leaf(&self, nodes: &Nodes, index: u64) -> Option<Node> {
        if !self.covers(index) {
            return None;
        }
        let root = Node::from_cell(self.root);
        (1..self.height)
            .rev()
            .try_fold(root, |node, level| entry(nodes, node, digit(index, level)).map(Node::from_cell))
    }

    /// Changes the location of a page that is in the tree; false if it is not.
    pub(in crate::shard) fn relocate(&mut self, nodes: &mut Nodes, index: u64, to: Location) -> bool {
        if self.height == 0 {
            let known = self.root != NONE && self.only == index;
            if known {
                self.root = to.cell();
            }
            return known;
        }
        let Some(leaf) = self.leaf(nodes, index) else { return false };
        let cells = nodes.node_mut(leaf);
        let (bits, bit) = (bitmap(cells), digit(index, 0));
        let known = bits >> bit & 1 == 1;
        if known {
            cells[BITMAP + rank(bits, bit)] = to.cell();
        }
        known
    }

    /// Adds a page that is not in the tree. On refusal nothing has changed but its height.
    pub(in crate::shard) fn insert(
        &mut self,
        nodes: &mut Nodes,
        owner: usize,
        index: u64,
        location: Location,
    ) -> Result<(), Refusal> {
        let location = location.cell();
        if self.height == 0 {
            if self.root == NONE {
                (self.root, self.only) = (location, index);
                return Ok(());
            }
            let height = height_for(self.only);
            self.root = chain(nodes, owner, self.only, height, self.root)?;
            self.height = height;
        }
        while !self.covers(index) {
            let root = nodes.alloc(1, owner)?;
            let cells = nodes.node_mut(root);
            set_bitmap(cells, 1);
            cells[BITMAP] = self.root;
            self.root = root.cell();
            self.height += 1;
        }
        if !self.insert_in_leaf(nodes, index, location) {
            let root = Node::from_cell(self.root);
            self.root = insert_below(nodes, owner, root, self.height - 1, index, location)?.cell();
        }
        Ok(())
    }

    /// Adds a page to a leaf that is there and has room, as most have: then nothing above it
    /// changes.
    fn insert_in_leaf(&self, nodes: &mut Nodes, index: u64, location: Cell) -> bool {
        let Some(leaf) = self.leaf(nodes, index) else { return false };
        let cells = nodes.node_mut(leaf);
        let bits = bitmap(cells);
        let room = cells.len() > BITMAP + bits.count_ones() as usize;
        if room {
            add_entry(cells, bits, digit(index, 0), location);
        }
        room
    }

    /// Removes a page and returns its location.
    pub(in crate::shard) fn remove(&mut self, nodes: &mut Nodes, owner: usize, index: u64) -> Option<Location> {
        if self.height == 0 {
            let found = self.get(nodes, index)?;
            self.root = NONE;
            return Some(found);
        }
        if !self.covers(index) {
            return None;
        }
        let (location, root) = remove_below(nodes, owner, Node::from_cell(self.root), self.height - 1, index)?;
        let location = Location::from_cell(location);
        self.root = root;
        if root == NONE {
            self.height = 0;
            return Some(location);
        }
        // A root with nothing but low indexes below it is not needed.
        while self.height > 1 {
            let root = Node::from_cell(self.root);
            if bitmap(nodes.node(root)) != 1 {
                break;
            }
            self.root = nodes.node(root)[BITMAP];
            nodes.free(root);
            self.height -= 1;
        }
        Some(location)
    }

    /// The first page at or above an index.
    pub(in crate::shard) fn next(&self, nodes: &Nodes, from: u64) -> Option<(u64, Location)> {
        if self.height == 0 {
            return (self.root != NONE && self.only >= from).then_some((self.only, Location::from_cell(self.root)));
        }
        if !self.covers(from) {
            return None;
        }
        let (index, location) = next_below(nodes, Node::from_cell(self.root), self.height - 1, from)?;
        Some((index, Location::from_cell(location)))
    }
}

/// A chain of nodes from `height` levels down to one page.
fn chain(nodes: &mut Nodes, owner: usize, index: u64, height: u32, location: Cell) -> Result<Cell, Refusal> {
    let mut below = location;
    for level in 0..height {
        match nodes.alloc(1, owner) {
            Ok(node) => {
                let cells = nodes.node_mut(node);
                set_bitmap(cells, 1 << digit(index, level));
                cells[BITMAP] = below;
                below = node.cell();
            }
            Err(refusal) => {
                for _ in 0..level {
                    let node = Node::from_cell(below);
                    below = nodes.node(node)[BITMAP];
                    nodes.free(node);
                }
                return Err(refusal);
            }
        }
    }
    Ok(below)
}

/// Frees a chain of `height` nodes.
fn free_chain(nodes: &mut Nodes, mut at: Cell, height: u32) {
    for _ in 0..height {
        let node = Node::from_cell(at);
        at = nodes.node(node)[BITMAP];
        nodes.free(node);
    }
}

fn insert_below(
    nodes: &mut Nodes,
    owner: usize,
    node: Node,
    level: u32,
    index: u64,
    location: Cell,
) -> Result<Node, Refusal> {
    let bits = bitmap(nodes.node(node));
    let bit = digit(index, level);
    let at = rank(bits, bit);
    if bits >> bit & 1 == 1 {
        let child = Node::from_cell(nodes.node(node)[BITMAP + at]);
        let new = insert_below(nodes, owner, child, level - 1, index, location)?;
        nodes.node_mut(node)[BITMAP + at] = new.cell();
        return Ok(node);
    }
    let entry = chain(nodes, owner, index, level, location)?;
    let entries = bits.count_ones() as usize;
    let node = if class_for(entries + 1) > nodes.class(node) {
        match resize(nodes, owner, node, entries, class_for(entries + 1)) {
            Ok(node) => node,
            Err(refusal) => {
                free_chain(nodes, entry, level);
                return Err(refusal);
            }
        }
    } else {
        node
    };
    add_entry(nodes.node_mut(node), bits, bit, entry);
    Ok(node)
}

/// Returns the location removed, and the node that is left of `node`.
fn remove_below(nodes: &mut Nodes, owner: usize, node: Node, level: u32, index: u64) -> Option<(Cell, Cell)> {
    let bits = bitmap(nodes.node(node));
    let bit = digit(index, level);
    if bits >> bit & 1 == 0 {
        return None;
    }
    let at = BITMAP + rank(bits, bit);
    let entry = nodes.node(node)[at];
    let location = if level == 0 {
        entry
    } else {
        let (location, child) = remove_below(nodes, owner, Node::from_cell(entry), level - 1, index)?;
        if child != NONE {
            nodes.node_mut(node)[at] = child;
            return Some((location, node.cell()));
        }
        location
    };
    let entries = bits.count_ones() as usize;
    if entries == 1 {
        nodes.free(node);
        return Some((location, NONE));
    }
    let cells = nodes.node_mut(node);
    cells.copy_within(at + 1..BITMAP + entries, at);
    set_bitmap(cells, bits & !(1 << bit));
    let class = class_for(entries - 1);
    if class < nodes.class(node) {
        // Without memory for a smaller copy the node stays as it is.
        return Some((location, resize(nodes, owner, node, entries - 1, class).unwrap_or(node).cell()));
    }
    Some((location, node.cell()))
}

/// Moves a node's bitmap and entries to a node of another class.
fn resize(nodes: &mut Nodes, owner: usize, node: Node, entries: usize, class: usize) -> Result<Node, Refusal> {
    let new = nodes.alloc(class, owner)?;
    let used = BITMAP + entries;
    let mut copy = [0; MAX_CLASS * GRANULE_CELLS];
    copy[..used].copy_from_slice(&nodes.node(node)[..used]);
    nodes.node_mut(new)[..used].copy_from_slice(&copy[..used]);
    nodes.free(node);
    Ok(new)
}

fn next_below(nodes: &Nodes, node: Node, level: u32, from: u64) -> Option<(u64, Cell)> {
    let cells = nodes.node(node);
    let bits = bitmap(cells);
    let shift = BITS * level;
    let first = digit(from, level);
    let above = from.checked_shr(shift + BITS).unwrap_or(0).checked_shl(shift + BITS).unwrap_or(0);
    let mut left = bits & (u64::MAX << first);
    while left != 0 {
        let bit = left.trailing_zeros();
        left &= left - 1;
        let start = above | u64::from(bit) << shift;
        let entry = cells[BITMAP + rank(bits, bit)];
        if level == 0 {
            return Some((start, entry));
        }
        if let Some(found) = next_below(nodes, Node::from_cell(entry), level - 1, from.max(start)) {
            return Some(found);
        }
    }
    None
}
