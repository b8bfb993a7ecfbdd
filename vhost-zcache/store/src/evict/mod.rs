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

pub(crate) mod ghost;
mod leave;
pub(crate) mod queue;
