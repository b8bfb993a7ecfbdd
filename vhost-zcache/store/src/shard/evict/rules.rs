// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a policy decides, without any notion of where pages are.

use crate::shard::space::queue::Queue;

/// How a page left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// A get took it.
    Hit,
    /// It made room, at the end of this queue.
    Evicted(Queue),
}

/// A policy, as the answers to the four questions that come up in the life of a page.
pub(super) trait Rules: Copy {
    /// The queue that a new page enters, whose name is remembered or not.
    fn admit(self, remembered: bool) -> Queue;

    /// The queue whose oldest page is next to leave, when the queues are of these sizes.
    fn next(self, small: u64, main: u64) -> Queue;

    /// Where the oldest page of a queue goes instead of leaving, if it was used often enough for
    /// that, and what is left of its frequency. Whoever is spared often enough is not spared any
    /// more, so that looking for a victim ends.
    fn spare(self, from: Queue, frequency: u8) -> Option<(Queue, u8)>;

    /// Whether the name of a page that left is to be remembered for when it is put again.
    fn remembers(self, departure: Departure) -> bool;
}
