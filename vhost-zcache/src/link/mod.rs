// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What keeper and worker say to each other.
//!
//! The [`message`]s go over a pair of [`socket`]s that keep messages apart and pass files along;
//! what is long is in a [`parcel`]. A worker may be of another build than its keeper: it says first
//! what it is of, and is told nothing if that does not fit.

pub mod message;
pub mod parcel;
pub mod socket;
