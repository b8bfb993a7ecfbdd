// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The objects of one pool in one shard: a hash table by linear hashing. Each new object splits
//! at most one bucket, each one gone joins at most two, so no operation ever rehashes a table.
//!
//! An object's number is its node's; the node's cells are
//! `next in bucket | record | hash | root | pages | height and pool | index of an only page`.
//!
//! In a large store the bucket, the object, its tree and the page each are a line of memory that no
//! cache has, known from the one before. So next to the buckets there are guesses: the root of a
//! tree of one level, by hash, which is asked for together with the object.

use super::nodes::{Node, Nodes};
use super::tree::{self, Tree};
use crate::arena::word::count;
use crate::op::Refusal;
use crate::shard::PoolSlot;
use crate::shard::space::Location;

/// Granules of an object node.
pub(crate) const OBJECT_CLASS: usize = 2;
const NEXT: usize = 0;
const RECORD: usize = 1;
const HASH: usize = 2;
const ROOT: usize = 3;
const PAGES: usize = 4;
const HEIGHT_POOL: usize = 5;
const ONLY: usize = 6;

/// Buckets per node of the table.
const BLOCK: u32 = 64;
const BLOCK_CLASS: usize = 16;
/// Guesses per bucket. Those of objects that share one overwrite each other: of as many objects as
/// buckets, two have 79 % right, one 63 %.
const GUESSES: usize = 2;

/// An object node, read at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    /// Location of the record with its name.
    pub(in crate::shard) record: Location,
    /// The part of the hash that chooses the bucket.
    pub(crate) hash: u32,
    /// Pages it has.
    pub(crate) pages: u32,
    /// Pool's number within the shard.
    pub(crate) pool: PoolSlot,
    /// Where its pages are.
    pub(crate) tree: Tree,
}

impl Object {
    /// Whether it was taken out of service: it is in no table and has no name.
    pub(crate) fn is_retired(&self) -> bool {
        self.record == Location::NONE
    }

    /// Reads an object node.
    pub(in crate::shard) fn read(nodes: &Nodes, number: Node) -> Self {
        let cells = nodes.cells_from(number);
        Self {
            record: Location::from_cell(cells[RECORD]),
            hash: cells[HASH],
            pages: cells[PAGES],
            pool: PoolSlot((cells[HEIGHT_POOL] >> 8) as usize),
            tree: Tree {
                height: cells[HEIGHT_POOL] & 0xff,
                root: cells[ROOT],
                only: u64::from(cells[ONLY]) | u64::from(cells[ONLY + 1]) << 32,
            },
        }
    }

    /// Writes an object node, all but its place in the table.
    pub(in crate::shard) fn write(&self, nodes: &mut Nodes, number: Node) {
        let cells = nodes.node_mut(number);
        cells[RECORD] = self.record.cell();
        cells[HASH] = self.hash;
        cells[PAGES] = self.pages;
        cells[HEIGHT_POOL] = count(self.pool.0) << 8 | self.tree.height;
        cells[ROOT] = self.tree.root;
        cells[ONLY] = (self.tree.only & 0xffff_ffff) as u32;
        cells[ONLY + 1] = (self.tree.only >> 32) as u32;
    }
}

/// Buckets side by side.
#[derive(Clone, Copy)]
struct Block {
    /// Node of their first objects.
    heads: Node,
    /// Nodes of guesses; `Node::NONE` while there is none to make.
    guesses: [Node; GUESSES],
}

impl Block {
    fn free(self, nodes: &mut Nodes) {
        nodes.free(self.heads);
        self.guesses.into_iter().filter(|node| *node != Node::NONE).for_each(|node| nodes.free(node));
    }
}

/// Objects of one pool in one shard, by hash.
#[derive(Default)]
pub(crate) struct Objects {
    blocks: Vec<Block>,
    buckets: u32,
    count: u32,
}

impl Objects {
    fn bucket(&self, hash: u32) -> u32 {
        let mask = self.buckets.next_power_of_two() - 1;
        let bucket = hash & mask;
        if bucket < self.buckets { bucket } else { bucket & (mask >> 1) }
    }

    fn head(&self, nodes: &Nodes, bucket: u32) -> Node {
        let heads = self.blocks[(bucket / BLOCK) as usize].heads;
        Node::from_cell(nodes.cells_from(heads)[(bucket % BLOCK) as usize])
    }

    fn set_head(&self, nodes: &mut Nodes, bucket: u32, object: Node) {
        let block = self.blocks[(bucket / BLOCK) as usize];
        nodes.node_mut(block.heads)[(bucket % BLOCK) as usize] = object.cell();
    }

    /// The node that is probably the only one of an object of that hash.
    fn guessed(&self, nodes: &Nodes, hash: u32) -> Option<Node> {
        if self.count == 0 {
            return None;
        }
        let bucket = self.bucket(hash);
        let guesses = self.blocks[(bucket / BLOCK) as usize].guesses[guess_of(hash)];
        let root =
            (guesses != Node::NONE).then(|| Node::from_cell(nodes.cells_from(guesses)[(bucket % BLOCK) as usize]))?;
        (root != Node::NONE).then_some(root)
    }

    /// Asks for what an object of that hash probably has of an index.
    pub(crate) fn prefetch(&self, nodes: &Nodes, hash: u32, index: u64) {
        if let Some(root) = self.guessed(nodes, hash) {
            tree::prefetch(nodes, root, index);
        }
    }

    /// Notes where an object's pages are, for [`Objects::prefetch`]. Without memory for it nothing
    /// is noted.
    pub(crate) fn guess(&mut self, nodes: &mut Nodes, owner: usize, object: &Object) {
        if object.tree.height != 1 {
            return;
        }
        let bucket = self.bucket(object.hash);
        let guesses = &mut self.blocks[(bucket / BLOCK) as usize].guesses[guess_of(object.hash)];
        if *guesses == Node::NONE {
            let Ok(node) = nodes.alloc(BLOCK_CLASS, owner) else { return };
            *guesses = node;
        }
        nodes.node_mut(*guesses)[(bucket % BLOCK) as usize] = object.tree.root;
    }

    /// The object of that hash for which `is_it` says yes.
    pub(in crate::shard) fn find(
        &self,
        nodes: &Nodes,
        hash: u32,
        mut is_it: impl FnMut(&Object) -> bool,
    ) -> Option<(Node, Object)> {
        if self.count == 0 {
            return None;
        }
        let mut at = self.head(nodes, self.bucket(hash));
        while at != Node::NONE {
            let object = Object::read(nodes, at);
            if object.hash == hash && is_it(&object) {
                return Some((at, object));
            }
            at = next_of(nodes, at);
        }
        None
    }

    /// The object of that number, if it is one of these and has that hash.
    pub(in crate::shard) fn find_number(&self, nodes: &Nodes, hash: u32, number: Node) -> Option<Object> {
        if self.count == 0 {
            return None;
        }
        let mut at = self.head(nodes, self.bucket(hash));
        while at != Node::NONE {
            if at == number {
                return Some(Object::read(nodes, at)).filter(|object| object.hash == hash);
            }
            at = next_of(nodes, at);
        }
        None
    }

    /// Enters an object node whose hash is written.
    pub(in crate::shard) fn insert(&mut self, nodes: &mut Nodes, owner: usize, number: Node) -> Result<(), Refusal> {
        if self.buckets == 0 {
            self.add_block(nodes, owner)?;
            self.buckets = 1;
        }
        self.link(nodes, number);
        self.count += 1;
        if self.count > self.buckets {
            self.split(nodes, owner);
        }
        Ok(())
    }

    fn add_block(&mut self, nodes: &mut Nodes, owner: usize) -> Result<(), Refusal> {
        let heads = nodes.alloc(BLOCK_CLASS, owner)?;
        self.blocks.push(Block { heads, guesses: [Node::NONE; GUESSES] });
        Ok(())
    }

    fn link(&self, nodes: &mut Nodes, number: Node) {
        let bucket = self.bucket(nodes.node(number)[HASH]);
        let next = self.head(nodes, bucket);
        nodes.node_mut(number)[NEXT] = next.cell();
        self.set_head(nodes, bucket, number);
    }

    /// Adds a bucket. Without memory for it the table only gets slower.
    fn split(&mut self, nodes: &mut Nodes, owner: usize) {
        let new = self.buckets;
        if new == u32::MAX {
            return;
        }
        if new.is_multiple_of(BLOCK) && self.add_block(nodes, owner).is_err() {
            return;
        }
        let buddy = new & ((new + 1).next_power_of_two() - 1) >> 1;
        let mut at = self.head(nodes, buddy);
        self.set_head(nodes, buddy, Node::NONE);
        self.buckets += 1;
        while at != Node::NONE {
            let next = next_of(nodes, at);
            self.link(nodes, at);
            self.guess(nodes, owner, &Object::read(nodes, at));
            at = next;
        }
    }

    /// Takes an object out of the table; its node stays.
    pub(in crate::shard) fn remove(&mut self, nodes: &mut Nodes, number: Node) {
        if self.count == 0 {
            return;
        }
        let bucket = self.bucket(nodes.node(number)[HASH]);
        let next = next_of(nodes, number);
        let mut at = self.head(nodes, bucket);
        if at == number {
            self.set_head(nodes, bucket, next);
        } else {
            while next_of(nodes, at) != number {
                at = next_of(nodes, at);
            }
            nodes.node_mut(at)[NEXT] = next.cell();
        }
        self.count -= 1;
        // As many buckets as objects, give or take a block: then `any` finds one at once.
        if self.count + BLOCK < self.buckets {
            self.join(nodes);
        }
        if self.count == 0 {
            self.blocks.drain(..).for_each(|block| block.free(nodes));
            self.buckets = 0;
        }
    }

    /// Removes the last bucket.
    fn join(&mut self, nodes: &mut Nodes) {
        let last = self.buckets - 1;
        let mut at = self.head(nodes, last);
        self.set_head(nodes, last, Node::NONE);
        self.buckets = last;
        while at != Node::NONE {
            let next = next_of(nodes, at);
            self.link(nodes, at);
            at = next;
        }
        if last.is_multiple_of(BLOCK)
            && let Some(block) = self.blocks.pop()
        {
            block.free(nodes);
        }
    }

    /// Any object; the last in the table, so that removing it is cheap.
    pub(in crate::shard) fn any(&self, nodes: &Nodes) -> Option<Node> {
        (0..self.buckets).rev().map(|bucket| self.head(nodes, bucket)).find(|head| *head != Node::NONE)
    }

    /// Hash and number of each object of a bucket; `None` behind the last bucket.
    pub(in crate::shard) fn in_bucket(&self, nodes: &Nodes, bucket: u32) -> Option<Vec<(u32, Node)>> {
        let mut at = (bucket < self.buckets).then(|| self.head(nodes, bucket))?;
        let mut objects = Vec::new();
        while at != Node::NONE {
            objects.push((nodes.cells_from(at)[HASH], at));
            at = next_of(nodes, at);
        }
        Some(objects)
    }

    /// All objects, each of which is found in its own bucket.
    #[cfg(feature = "check")]
    pub(in crate::shard) fn numbers(&self, nodes: &Nodes) -> Vec<Node> {
        let mut numbers = Vec::new();
        for bucket in 0..self.buckets {
            let mut at = self.head(nodes, bucket);
            while at != Node::NONE {
                if self.bucket(nodes.node(at)[HASH]) == bucket {
                    numbers.push(at);
                }
                at = next_of(nodes, at);
            }
        }
        numbers
    }
}

/// The object behind another in its bucket.
fn next_of(nodes: &Nodes, number: Node) -> Node {
    Node::from_cell(nodes.cells_from(number)[NEXT])
}

/// Which guess of its bucket is an object's, by a bit of the hash that no table is large enough to
/// need.
fn guess_of(hash: u32) -> usize {
    (hash >> 31) as usize
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {

    use super::*;
    use crate::accounting::Account;
    use crate::fault::Faults;

    #[test]
    fn most_trees_are_guessed_while_the_table_grows_and_shrinks() {
        let mut nodes = Nodes::new(Faults::default());
        nodes.add_owner(0, Account::unlimited_store(None));
        let mut objects = Objects::default();
        let mut numbers = Vec::new();
        for n in 0..3000u32 {
            let number = nodes.alloc(OBJECT_CLASS, 0).expect("there is memory");
            let hash = n.wrapping_mul(0x9e37_79b9) ^ n.wrapping_mul(0x85eb_ca6b) >> 15;
            let mut tree = Tree::default();
            for index in 0..2 {
                tree.insert(&mut nodes, 0, index, Location::from_cell(n + 1)).expect("there is memory");
            }
            let object = Object { record: Location::NONE, hash, pages: 2, pool: PoolSlot(0), tree };
            object.write(&mut nodes, number);
            objects.insert(&mut nodes, 0, number).expect("there is memory");
            objects.guess(&mut nodes, 0, &object);
            numbers.push(number);
        }
        let right = |objects: &Objects, nodes: &Nodes, numbers: &[Node]| {
            let known = numbers.iter().map(|number| Object::read(nodes, *number));
            let right =
                known.filter(|object| objects.guessed(nodes, object.hash) == Some(Node::from_cell(object.tree.root)));
            right.count() as f64 / numbers.len() as f64
        };
        let grown = right(&objects, &nodes, &numbers);
        assert!(grown > 0.7, "{grown} of all trees are guessed after growing");
        for number in numbers.drain(1000..) {
            objects.remove(&mut nodes, number);
        }
        let shrunk = right(&objects, &nodes, &numbers);
        assert!(shrunk > 0.4, "{shrunk} of all trees are guessed after shrinking");
        for number in numbers {
            objects.remove(&mut nodes, number);
        }
        assert!(objects.blocks.is_empty(), "an empty table keeps nodes");
    }
}
