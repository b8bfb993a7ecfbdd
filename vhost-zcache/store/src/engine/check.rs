// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Checks of the whole store, for tests and fuzzing.

use super::Engine;
use super::domain::Domain;

impl Engine {
    /// Checks all shards.
    pub(crate) fn check(&self) -> Result<(), String> {
        for domain in self.registry.domains() {
            domain.check_ready()?;
            domain.each().try_for_each(|stripe| stripe.shard.check())?;
        }
        Ok(())
    }

    /// Most records that were handled in one hold of the lock of a shard.
    pub(crate) fn longest_hold(&self) -> u64 {
        let shards = |domain: &Domain| domain.each().map(|stripe| stripe.shard.space.work.longest_hold()).max();
        self.registry.domains().iter().filter_map(|domain| shards(domain)).max().unwrap_or(0)
    }
}
