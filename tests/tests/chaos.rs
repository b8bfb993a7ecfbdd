// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A minute of `cargo xtask chaos`, with guests of user-mode Linux alone.

use std::time::Duration;

use anyhow::ensure;
use zcache_tests::chaos::{Chaos, run};
use zcache_tests::{Kernel, scenario};

#[test]
fn nothing_is_wrong_or_lost_in_a_minute_of_everything_on_uml() {
    scenario("chaos", Duration::from_secs(500), |s| {
        let chaos = Chaos { seed: 18, length: Duration::from_secs(60), kernels: vec![Kernel::Uml, Kernel::Uml] };
        let report = run(s, &chaos)?;
        println!("{report}");
        ensure!(report.is_good(), "{}: {:#?}", report.verdict(), report.faults);
        ensure!(report.verified > 10_000, "{} pages were verified only", report.verified);
        ensure!(report.kills >= 7, "{} workers have died only", report.kills);
        ensure!(!report.kills_at_places.is_empty(), "No worker has died at a named place");
        ensure!(report.devices_away > 0, "No device was ever away");
        ensure!(report.refused > 0, "The guest that misbehaves was never refused anything");
        ensure!(report.stall_samples >= 60, "The probes tell of {} seconds only", report.stall_samples);
        Ok(())
    });
}
