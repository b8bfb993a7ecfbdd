// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The daemon ends in good order with a guest's swapped pages, and the next one has them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::{DaemonOptions, Kernel, Modules, Scenario, VmOptions};

use crate::swapping::{await_live, caged_hog, swap_on};

/// Takes less than that, unless it never ends.
const SOON: Duration = Duration::from_secs(60);

/// User-mode Linux's own end of the connection warns when the daemon closes its end.
const OF_UML: &str = "virtio_uml.c";

/// The device is away from the daemon's end on, and whoever needs a page waits for it. It comes
/// back with the next daemon, and every page is what it was.
fn swapped_pages_outlive_the_daemon(kernel: Kernel) {
    crate::with_kernel("swap_saved", kernel, Duration::from_secs(300), |s| {
        // What the kernel says of a daemon that has ended is looked at here.
        let s = &Scenario::unframed(s.dir().to_owned());
        let saved = s.dir().join("saved");
        let mut options = DaemonOptions::usual()?;
        options.arguments = saving(&saved, &s.dir().join("key"))?;
        let daemon = s.daemon(options)?;
        let mut options: VmOptions = crate::guest(kernel).daemon(&daemon, 0).disk_mib(512);
        options.modules = Modules::NotLoaded;
        let vm = s.vm(options)?;
        let guest = vm.guest();
        guest.sh("insmod /payload/modules/zcache.ko swap_loss=wait
             insmod /payload/modules/zcache_virtio.ko; insmod /payload/modules/zcache_swap.ko")?;
        swap_on(&vm, "--backing /dev/vdb")?;
        vm.attach()?;
        let hog = caged_hog(&vm, 72, 48, 60)?;
        await_live(&vm, 3000)?;
        // Who finds all pages of the cage in use waits, and is not killed.
        guest.sh("echo 40M > /tmp/groups/caged/memory.high")?;

        daemon.end(SOON)?;
        let files = fs::read_dir(&saved)?.count();
        ensure!(files == 1, "{files} files were saved: {}", daemon.log()?);
        guest.await_driver_state("lost", SOON * vm.options().patience())?;
        vm.detach()?;
        daemon.restart()?;
        vm.attach().context("The device does not come back")?;
        hog.success(Duration::from_secs(180) * vm.options().patience())
            .context("A page that the daemon before had is lost or another")?;
        let stats = guest.driver_stats()?;
        for counter in ["load_lost", "swap_pages_lost"] {
            ensure!(stats.count(counter)? == 0, "'{counter}' is not zero though every page was saved");
        }
        ensure!(fs::read_dir(&saved)?.next().is_none(), "A state is left that was taken back");
        let log = daemon.log()?;
        ensure!(log.contains("what was saved is there again"), "Nothing was taken back: {log}");
        let complaints: Vec<String> = vm.complaints()?.into_iter().filter(|line| !line.contains(OF_UML)).collect();
        ensure!(complaints.is_empty(), "The kernel complains: {complaints:#?}");
        Ok(())
    });
}

/// Arguments of a daemon that saves what guests have to a folder.
fn saving(folder: &Path, key: &Path) -> Result<Vec<String>> {
    fs::create_dir(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    fs::write(key, [1; 32])?;
    fs::set_permissions(key, Permissions::from_mode(0o400))?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("A path that is no text");
    Ok(vec!["--save-directory".to_owned(), text(folder)?, "--save-key".to_owned(), text(key)?])
}

#[test]
fn swapped_pages_outlive_the_daemon_on_uml() {
    swapped_pages_outlive_the_daemon(Kernel::Uml);
}
