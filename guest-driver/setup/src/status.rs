// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `zcachesetup status`: what is cached, what that saves and what is wrong.

mod columns;
mod facts;
mod problems;
mod text;

use std::fs;

use serde::Serialize;

use crate::error::{Result, failed, print};
use crate::mapped::details::Details;
use crate::swapdisk::SwapDisk;
use crate::table;

use facts::Facts;

/// All there is to know.
#[derive(Debug, Serialize)]
struct Status {
    /// Whether the host's device is there, in the driver's word for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    dm: Vec<Facts>,
    swap: Vec<Facts>,
    problems: Vec<String>,
}

impl Status {
    fn get() -> Result<Self> {
        let dm: Vec<_> = Details::of_all()?.iter().map(Facts::of_device).collect();
        let swap: Vec<_> = SwapDisk::all().iter().map(Facts::of_swap).collect();
        let host = host_state();
        let path = table::path();
        // No table is as good as an empty one.
        let entries = if path.exists() { table::read(&path)? } else { Vec::new() };
        let problems = problems::find(host.as_deref(), &dm, &swap, &entries);
        Ok(Self { host, dm, swap, problems })
    }
}

/// Without debugfs it is not known.
fn host_state() -> Option<String> {
    let stats = fs::read_to_string("/sys/kernel/debug/zcache/stats").ok()?;
    stats.lines().find_map(|line| Some(line.strip_prefix("state ")?.trim().to_owned()))
}

/// Of everything.
pub(crate) fn all(json: bool) -> Result<()> {
    let status = Status::get()?;
    if json { print_json(&status) } else { print(&text::of(&status)) }
}

/// Of swap disks.
pub(crate) fn swap(json: bool) -> Result<()> {
    let swap: Vec<_> = SwapDisk::all().iter().map(Facts::of_swap).collect();
    if json { print_json(&swap) } else { print(&text::of_swap(&swap)) }
}

/// Of one device or swap disk.
pub(crate) fn one(name: &str, json: bool) -> Result<()> {
    let device = name.strip_prefix("/dev/mapper/").unwrap_or(name);
    let facts = match SwapDisk::find(name) {
        Some(disk) => Facts::of_swap(&disk),
        None => {
            Details::of_all()?.iter().find(|details| details.mapped.name == device).map(Facts::of_device).ok_or_else(
                || failed(format!("{name}: no such zcache device; those that are open: zcachesetup status")),
            )?
        }
    };
    if json { print_json(&facts) } else { print(&text::of_one(&facts)) }
}

fn print_json(what: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string(what).map_err(|error| failed(error.to_string()))?;
    print(&(json + "\n"))
}
