// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Checks of the whole store, for tests and fuzzing.

use super::Engine;
use crate::shard::work::Work;

impl Engine {
    /// Checks all shards.
    pub(crate) fn check(&self) -> Result<(), String> {
        for domain in self.registry.domains() {
            domain.check_ready()?;
            domain.each().try_for_each(|stripe| stripe.shard.check())?;
        }
        Ok(())
    }

    /// What was done in all shards.
    pub(crate) fn work(&self) -> Work {
        let mut work = Work::default();
        for domain in self.registry.domains() {
            domain.each().for_each(|stripe| work.merge(stripe.shard.space.work));
        }
        work
    }
}
