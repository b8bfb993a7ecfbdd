// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that a thread has in hand: it is charged, and nobody can find it. It is on its way back,
//! or a second place for what moves, and would be free soon, if the thread were not interrupted.

use parking_lot::{Mutex, MutexGuard};

/// Whether a thread has memory in hand; one at a time, and for no longer than a step takes.
#[derive(Default)]
pub(crate) struct InHand(Mutex<()>);

impl InHand {
    /// Waits for the thread that has some; held while this one has it. Neither a shard nor the
    /// registry may be locked, which that thread may want.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::super::Engine;
    use super::super::domain::Common;
    use crate::accounting::{Charge, Use};
    use crate::{GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, Scratch};

    #[test]
    fn a_put_is_not_refused_for_what_a_thread_has_in_hand() {
        const HALF: u64 = 256 << 10;
        let engine = Engine::new(Common::small(1), 2 * HALF, None);
        let guest = engine.register(GuestConfig::new("a"));
        engine.create_pool(&guest, PoolId(0), PoolKind::Persistent).expect("a pool is made");
        let mut charge = Charge::none(Arc::clone(&guest.account), Use::Kept);
        charge.grow(HALF).expect("half of the store is free");
        let mut scratch = Scratch::new();
        let mut put = |index: u64| {
            let mut page = [0; PAGE_SIZE];
            for (at, word) in page.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                *word = (index << 32 | at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            }
            let key = Key { pool: PoolId(0), object: ObjectId([0; 24]), index };
            engine.put(&guest, &mut scratch, &key, &page)
        };
        let full = (0..).find(|index| put(*index).is_err()).expect("it is bounded");

        let (holds, is_held) = channel();
        thread::scope(|threads| {
            threads.spawn(|| {
                let _in_hand = engine.in_hand.hold();
                holds.send(()).expect("somebody waits");
                // As a thread does that is interrupted.
                thread::sleep(Duration::from_millis(50));
                drop(charge);
            });
            is_held.recv().expect("it holds");
            assert_eq!(put(full), Ok(()));
        });
    }
}
