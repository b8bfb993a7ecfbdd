// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A minute of `cargo xtask chaos`, with guests of user-mode Linux alone.

use std::time::Duration;

use anyhow::ensure;
use zcache_tests::chaos::{Chaos, run};
use zcache_tests::{Kernel, Sabotage, Scenario, scenario};

fn minute(kernels: Vec<Kernel>, sabotage: Option<Sabotage>) -> Chaos {
    Chaos { seed: 18, length: Duration::from_secs(60), kernels, sabotage }
}

#[test]
fn nothing_is_wrong_or_lost_in_a_minute_of_everything_on_uml() {
    scenario("chaos", Duration::from_secs(500), |s| {
        let report = run(s, &minute(vec![Kernel::Uml, Kernel::Uml], None))?;
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

/// The control: without invalidation, files come back as they were.
#[test]
fn a_page_that_is_stale_ends_it_on_uml() {
    scenario("chaos_control", Duration::from_secs(500), |s| {
        // The kernel's log has complaints then, and is not for the scenario to look at.
        let s = Scenario::unframed(s.dir().to_owned());
        let report = run(&s, &minute(vec![Kernel::Uml], Some(Sabotage::Invalidate)))?;
        ensure!(!report.is_good() && report.wrong > 0, "Stale pages went unnoticed: {report:#?}");
        ensure!(report.minutes < 0.9, "It went on with stale pages, for {} minutes", report.minutes);
        ensure!(report.verdict().contains("seed 18"), "Nobody could repeat it: {}", report.verdict());
        Ok(())
    });
}
