// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which ephemeral page goes first: S3-FIFO, adapted to gets that remove what they find.
//!
//! New pages enter a *small* queue of a fourteenth of the heap (a tenth in the paper; this was
//! better by 0.1 to 2.5 points on all traces of `cargo xtask bench evict` but one). A page that reaches its end without
//! a hit leaves, and its name is remembered in a *ghost* table; one that was hit moves to the
//! *main* queue, where hits buy further rounds. A put of a remembered name goes to the main
//! queue at once. So a scan passes through the small queue and evicts nothing but itself.
//!
//! Exclusive gets change what can be learned: the hit removes the page, so no page in the
//! store ever shows that it is popular. The name of a page that left by a hit is therefore
//! remembered too, and its next put counts as the second use that the hit was.
//!
//! What suits some guests is wrong for others: a heap whose guest would be better off without the
//! small queue does without it, see [`duel`].

pub(crate) mod duel;
mod ghost;
pub(crate) mod learn;
mod leave;
pub(crate) mod queue;
mod shadow;

use serde::Serialize;

/// The small queue's share of a heap is 1 / this.
const SMALL_SHARE: u64 = 14;

/// How a guest's ephemeral pages are chosen that make room for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// New pages have to prove themselves in a small queue before they displace others.
    #[default]
    #[serde(rename = "s3-fifo")]
    S3Fifo,
    /// All pages are in one queue; what is still in the small one goes first.
    Clock,
}

impl Policy {
    /// Whether the next page to leave is in the small queue, when there is so much in both.
    fn is_small_next(self, small: u64, main: u64) -> bool {
        small > 0 && (main == 0 || self == Self::Clock || small * SMALL_SHARE >= small + main)
    }

    /// What is left of a page's frequency when it is spared at the end of a queue. Out of the small one a
    /// use is enough, S3-FIFO's main queue gives a round for each, CLOCK one round for all.
    fn spare(self, from_small: bool, frequency: u8) -> u8 {
        if from_small || self == Self::Clock { 0 } else { frequency - 1 }
    }
}
