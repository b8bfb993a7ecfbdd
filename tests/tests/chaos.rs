// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Most of a minute of `cargo xtask chaos`, with guests of user-mode Linux alone and the daemon
//! that all tests have.

use std::time::Duration;

use anyhow::{Result, ensure};
use zcache_tests::chaos::{Chaos, run};
use zcache_tests::{Kernel, Sabotage, Scenario, development_daemon_binary, scenario};

const SECONDS: u8 = 40;

fn short(kernels: Vec<Kernel>, sabotage: Option<Sabotage>) -> Result<Chaos> {
    let length = Duration::from_secs(SECONDS.into());
    Ok(Chaos { seed: 18, length, kernels, sabotage, daemon: development_daemon_binary()? })
}

#[test]
fn nothing_is_wrong_or_lost_whatever_happens_on_uml() {
    scenario("chaos", Duration::from_secs(500), |s| {
        let report = run(s, &short(vec![Kernel::Uml, Kernel::Uml], None)?)?;
        println!("{report}");
        ensure!(report.is_good(), "{}: {:#?}", report.verdict(), report.faults);
        ensure!(report.verified > 10_000, "{} pages were verified only", report.verified);
        ensure!(report.kills >= 4, "{} workers have died only", report.kills);
        ensure!(!report.kills_at_places.is_empty(), "No worker has died at a named place");
        ensure!(report.devices_away > 0, "No device was ever away");
        ensure!(report.limits_changed > 0, "No limit was ever another");
        ensure!(report.refused > 0, "The guest that misbehaves was never refused anything");
        ensure!(report.stall_samples >= SECONDS.into(), "The probes tell of {} seconds only", report.stall_samples);
        Ok(())
    });
}

/// The control: without invalidation, files come back as they were.
#[test]
fn a_page_that_is_stale_ends_it_on_uml() {
    scenario("chaos_control", Duration::from_secs(500), |s| {
        // The kernel's log has complaints then, and is not for the scenario to look at.
        let s = Scenario::unframed(s.dir().to_owned());
        let report = run(&s, &short(vec![Kernel::Uml], Some(Sabotage::Invalidate))?)?;
        ensure!(!report.is_good() && report.wrong > 0, "Stale pages went unnoticed: {report:#?}");
        ensure!(
            report.minutes * 60.0 < f64::from(SECONDS),
            "It went on with stale pages, for {} minutes",
            report.minutes
        );
        ensure!(report.verdict().contains("seed 18"), "Nobody could repeat it: {}", report.verdict());
        Ok(())
    });
}
