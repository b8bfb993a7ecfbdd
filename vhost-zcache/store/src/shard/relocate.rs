// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Moving records, of which the index knows.

use super::Shard;
use super::index::objects::Object;
use super::space::Location;
use super::space::record::{Head, PageName};
use crate::op::Refusal;

impl Shard {
    /// Moves a record to another place, in heap `to`.
    pub(in crate::shard) fn relocate(&mut self, at: Location, head: Head, to: usize) -> Result<(), Refusal> {
        self.space.work.count();
        let words = head.words();
        let apart = if head == Head::Object { self.space.alloc_name(to) } else { None };
        let new = apart.map_or_else(|| self.space.alloc(to, words), Ok)?;
        self.space.copy(at, new, words);
        match head {
            Head::Page(page) => {
                let name = self.space.page_name(at);
                if page.is_linked() {
                    self.space.requeue(at, new);
                }
                self.point_to(name, new);
            }
            Head::Object => {
                let number = self.space.object_at(at);
                let mut object = Object::read(&self.nodes, number);
                object.record = new;
                object.write(&mut self.nodes, number);
            }
            Head::End | Head::Hole(_) | Head::Unknown => {}
        }
        self.space.free(at, words);
        Ok(())
    }

    /// Lets the index find a page at its new place.
    pub(in crate::shard) fn point_to(&mut self, name: PageName, at: Location) {
        let mut object = Object::read(&self.nodes, name.object);
        object.tree.relocate(&mut self.nodes, name.index, at);
        if object.tree.height == 0 {
            object.write(&mut self.nodes, name.object);
        }
    }
}
