// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What keeper and worker say to each other.
//!
//! Both are of one build, so the [`message`]s need no versions. They go over a pair of [`socket`]s
//! that keep messages apart and pass files along.

pub mod message;
pub mod socket;
