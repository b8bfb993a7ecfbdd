// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a ring that starts again is the one that stopped.
//!
//! A VMM stops all rings alike when it pauses its guest and when the guest resets the device, and
//! the two can be told apart only by what comes back: after a pause the ring lies where it lay and
//! its used index is what it was; a driver that sets up a ring anew begins with a used index of 0.
//! (A ring that was never used looks the same both times, and it makes no difference: nothing was
//! asked on it, and what a new driver asks first is HELLO.)

use std::collections::BTreeMap;

use super::ring::RingPosition;

/// Number of a queue of the device.
pub type QueueIndex = usize;

/// Where the rings of one session stood when they stopped. There is at most one entry for a queue.
#[derive(Debug, Default)]
pub struct StoppedRings(BTreeMap<QueueIndex, RingPosition>);

impl FromIterator<(QueueIndex, RingPosition)> for StoppedRings {
    fn from_iter<T: IntoIterator<Item = (QueueIndex, RingPosition)>>(rings: T) -> Self {
        Self(rings.into_iter().collect())
    }
}

/// What a ring that starts is to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comeback {
    /// It has not stopped in this session.
    First,
    /// It goes on where it stopped.
    Same,
    /// It is not the ring that stopped: the driver that used that one is gone.
    Another,
}

impl StoppedRings {
    /// Where queues have stopped that have not started since.
    pub fn iter(&self) -> impl Iterator<Item = (QueueIndex, RingPosition)> {
        self.0.iter().map(|(queue, position)| (*queue, *position))
    }

    /// A queue has stopped at a position.
    pub fn stop(&mut self, queue: QueueIndex, position: RingPosition) {
        self.0.insert(queue, position);
    }

    /// Where a queue has stopped, if it has not started since.
    #[must_use]
    pub fn position(&self, queue: QueueIndex) -> Option<RingPosition> {
        self.0.get(&queue).copied()
    }

    /// A queue starts at a position; where it stopped is forgotten.
    pub fn start(&mut self, queue: QueueIndex, position: RingPosition) -> Comeback {
        match self.0.remove(&queue) {
            None => Comeback::First,
            Some(stopped) if stopped == position => Comeback::Same,
            Some(_) => Comeback::Another,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::ring::RingPlace;

    const PLACE: RingPlace = RingPlace { size: 8, descriptors: 0x1000, available: 0x2000, used: 0x3000 };

    fn at(index: u16) -> RingPosition {
        RingPosition { place: PLACE, index }
    }

    #[test]
    fn a_ring_that_never_stopped_is_the_first() {
        let mut rings = StoppedRings::default();
        assert_eq!(rings.start(0, at(7)), Comeback::First);
        rings.stop(1, at(7));
        assert_eq!(rings.start(0, at(0)), Comeback::First, "another queue has stopped");
    }

    #[test]
    fn a_ring_that_comes_back_as_it_was_goes_on() {
        let mut rings = StoppedRings::default();
        for index in [0, 7, u16::MAX] {
            rings.stop(0, at(index));
            assert_eq!(rings.start(0, at(index)), Comeback::Same, "index {index}");
        }
        assert_eq!(rings.start(0, at(0)), Comeback::First, "a comeback counts once");
    }

    #[test]
    fn the_last_stop_counts() {
        let mut rings = StoppedRings::default();
        rings.stop(0, at(7));
        rings.stop(0, at(8));
        assert_eq!(rings.start(0, at(8)), Comeback::Same);
    }

    #[test]
    fn a_ring_that_comes_back_otherwise_is_another() {
        let others = [
            ("index", at(0)),
            ("size", RingPosition { place: RingPlace { size: 16, ..PLACE }, index: 7 }),
            ("descriptors", RingPosition { place: RingPlace { descriptors: 0x4000, ..PLACE }, index: 7 }),
            ("available", RingPosition { place: RingPlace { available: 0x4000, ..PLACE }, index: 7 }),
            ("used", RingPosition { place: RingPlace { used: 0x4000, ..PLACE }, index: 7 }),
        ];
        for (what, other) in others {
            let mut rings = StoppedRings::default();
            rings.stop(0, at(7));
            assert_eq!(rings.start(0, other), Comeback::Another, "another {what}");
        }
    }
}
