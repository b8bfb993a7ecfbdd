// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is done to a whole machine: stopping it, letting it go on, resetting and rebooting it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::vm::Vm;

/// Longest that the monitor may take to tell of a change of the machine's state. Stopping waits
/// for what the disks have under way.
const EVENT_LIMIT: Duration = Duration::from_secs(60);

impl Vm {
    /// Stops the machine, and with it every ring of its devices.
    pub fn pause(&self) -> Result<()> {
        self.and_then_event("stop", "STOP")
    }

    /// Lets a stopped machine go on.
    pub fn resume(&self) -> Result<()> {
        self.and_then_event("cont", "RESUME")
    }

    /// Resets the machine as its reset button does, and waits until the guest takes commands
    /// again. What was running in it is gone; a command that prints meanwhile garbles the agent's
    /// stream. The driver is not loaded; a device that is plugged in stays so.
    pub fn reset(&self) -> Result<()> {
        // Guests run with -no-reboot, so that a panic ends them.
        self.qmp()?.execute("set-action", json!({"reboot": "reset"}))?;
        let greeting = self.guest().agent().greeting()?;
        self.and_then_event("system_reset", "RESET")?;
        self.await_agent(&greeting)?;
        // Not before: SeaBIOS resets the machine once more.
        self.qmp()?.execute("set-action", json!({"reboot": "shutdown"}))?;
        Ok(())
    }

    /// Has a guest that boots from its own disk reboot in good order, through firmware and boot
    /// loader, and waits until it takes commands again, which is early: see
    /// [`Vm::await_boot`].
    pub fn reboot(&self) -> Result<()> {
        let mark = self.qmp()?.mark();
        let greeting = self.guest().agent().greeting()?;
        // It may be killed before its end is told.
        self.guest().spawn("systemctl reboot")?;
        self.await_agent(&greeting)?;
        self.qmp()?
            .wait_event(mark, EVENT_LIMIT, |name, _| (name == "RESET").then_some(()))
            .context("The guest came up again without a reset")
    }

    /// Waits until a guest that boots from its own disk is up, and says how: `running`,
    /// `degraded` if a unit has failed, `maintenance` if it is in emergency mode.
    pub fn await_boot(&self) -> Result<String> {
        let state = self.guest().sh("systemctl is-system-running --wait || true")?;
        Ok(state.trim().to_owned())
    }

    fn and_then_event(&self, command: &str, event: &str) -> Result<()> {
        let mark = self.qmp()?.mark();
        self.qmp()?.execute(command, json!({}))?;
        self.qmp()?
            .wait_event(mark, EVENT_LIMIT, |name, _| (name == event).then_some(()))
            .with_context(|| format!("QEMU tells of no {event}"))
    }
}
