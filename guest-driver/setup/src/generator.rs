// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! systemd's generator: a unit for each line of `/etc/zcachetab`, as crypttab's. Each waits for its
//! own device and for nothing else, and is there before whoever uses `/dev/mapper/NAME`.

mod units;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, Voice};
use crate::table;

use units::Units;

/// The name by which the program is called then.
pub(crate) const NAME: &str = "zcache-generator";

/// Writes the units into the folder that systemd names first.
pub(crate) fn run(folder: Option<&Path>) -> Result<()> {
    let folder = folder.ok_or_else(|| Error::Usage("a folder for units is needed".to_owned()))?;
    let table = table::path();
    // An initramfs opens what it needs itself.
    if !table.exists() || Path::new("/etc/initrd-release").exists() {
        return Ok(());
    }
    let tool = env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/sbin/zcachesetup"));
    let mut units = Units::new(&tool.display().to_string());
    let mut all_well = true;
    for entry in table::read(&table)? {
        match entry.line {
            Ok(line) => units.add(&line),
            Err(message) => {
                Voice::of(&entry.place).say(message);
                all_well = false;
            }
        }
    }
    let fstab = env::var_os("ZCACHE_FSTAB").map_or_else(|| PathBuf::from("/etc/fstab"), PathBuf::from);
    for complaint in units.order_mounts(&fs::read_to_string(fstab).unwrap_or_default()) {
        Voice::default().say(complaint);
        all_well = false;
    }
    units.claim_origins();
    all_well &= units.write(folder);
    if all_well { Ok(()) } else { Err(Error::Said) }
}
