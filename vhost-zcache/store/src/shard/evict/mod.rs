// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which ephemeral page goes first.
//!
//! The pages of a heap are in two queues, *small* and *main*, which the arena keeps. A policy's
//! [`Rules`] say which queue a page enters, which one gives the next page up, and what becomes of a
//! page that was used; [`victim`] follows them, over a heap's queues or over those of a [`shadow`].
//!
//! [S3-FIFO](s3_fifo) suits most guests and is wrong for some. Those do better with [CLOCK](clock),
//! and a [`duel`] finds out which they are.

mod clock;
pub(crate) mod duel;
mod ghost;
pub(crate) mod learn;
mod leave;
mod rules;
mod s3_fifo;
mod shadow;
mod victim;

pub(crate) use rules::Departure;
pub(crate) use victim::Patience;

use crate::shard::space::queue::Queue;
use clock::Clock;
use rules::Rules;
use s3_fifo::S3Fifo;

/// How a guest's ephemeral pages are chosen that make room for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// New pages have to prove themselves in a small queue before they displace others.
    #[default]
    S3Fifo,
    /// All pages are in one queue; what is still in the small one goes first.
    Clock,
}

impl Rules for Policy {
    fn admit(self, remembered: bool) -> Queue {
        match self {
            Self::S3Fifo => S3Fifo.admit(remembered),
            Self::Clock => Clock.admit(remembered),
        }
    }

    fn next(self, small: u64, main: u64) -> Queue {
        match self {
            Self::S3Fifo => S3Fifo.next(small, main),
            Self::Clock => Clock.next(small, main),
        }
    }

    fn spare(self, from: Queue, frequency: u8) -> Option<(Queue, u8)> {
        match self {
            Self::S3Fifo => S3Fifo.spare(from, frequency),
            Self::Clock => Clock.spare(from, frequency),
        }
    }

    fn remembers(self, departure: Departure) -> bool {
        match self {
            Self::S3Fifo => S3Fifo.remembers(departure),
            Self::Clock => Clock.remembers(departure),
        }
    }
}
