// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host's package in a clean Debian: installed, upgraded while a guest swaps, removed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::{STOP_LOAD, swaphog_until_told};
use zcache_tests::{Container, Debian, Endpoint, Kernel, VmOptions, scenario, target_folder};

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn extra_a_package_is_upgraded_under_swap_on_debian_12() {
    lives("package_debian_12", Debian::Bookworm);
}

#[test]
fn extra_a_package_is_upgraded_under_swap_on_debian_13() {
    lives("package_debian_13", Debian::Trixie);
}

fn lives(name: &str, debian: Debian) {
    if let Some(what) = Container::missing() {
        eprintln!("skipped: {what} is missing");
        return;
    }
    scenario(name, Duration::from_secs(600), |s| {
        let host = Container::boot(debian, s.dir())?;
        let package = host
            .take(&target_folder().join(format!("dist/vhost-zcache_{}_amd64.deb", env!("CARGO_PKG_VERSION"))))
            .context("There is no package: cargo xtask dist builds it")?;
        let install = format!("apt-get install --yes --no-install-recommends {package} 2>&1");
        host.sh(&install)?;
        host.sh(
            "systemctl is-active vhost-zcache zcache-admin; test \"$(zcachectl guests)\" = 'There are no guests.'",
        )?;
        host.sh(
            "printf '\\n[guest.web1]\\nsocket = \"/run/zcache/web1.sock\"\\nmemory-limit = \"1G\"\\n' >>/etc/vhost-zcache.toml
             vhost-zcache check /etc/vhost-zcache.toml; systemctl reload vhost-zcache; zcachectl guests web1",
        )?;

        let mut options = VmOptions::new("guest").disk_mib(512);
        options.kernel = Kernel::Uml;
        let vm = s.vm(options)?;
        let guest = vm.guest();
        let backend = i32::try_from(std::process::id())?;
        vm.attach_to(&Endpoint { socket: host.socket("web1.sock"), queues: 8, backend })?;
        guest.await_driver_state("attached", LIMIT)?;
        guest.sh("zcachesetup swap on --backing /dev/vdb")?;
        let hog = guest.spawn(&swaphog_until_told(vm.options().memory_mib + 64))?;
        let loads = || -> Result<u64> { guest.driver_stats()?.count("loads") };
        until("a page is loaded", || Ok(loads()? > 0))?;

        let removed = host.run("apt-get remove --yes vhost-zcache 2>&1")?;
        let said = String::from_utf8_lossy(&removed.stdout).into_owned();
        ensure!(!removed.status.success(), "The package was removed under a guest: {said}");
        ensure!(said.contains("Unplug their devices"), "A removal that is refused does not say why: {said}");

        let before = loads()?;
        host.sh(&format!("{install} --reinstall"))?;
        until("a page is loaded from what was upgraded", || Ok(loads()? > before))?;
        host.sh("zcachectl guests web1 | grep -q served").context("The guest is not served after the upgrade")?;
        guest.sh(STOP_LOAD)?;
        hog.success(LIMIT).context("A page changed while the package was upgraded")?;
        ensure!(guest.driver_stats()?.count("losses")? == 0, "The upgrade counts as the loss of the device");

        vm.detach()?;
        // A daemon of its own for a guest, as docs/operating.md has it.
        host.sh(
            "printf '[guest.web2]\\nfd = \"web2\"\\n' | install -D -m 644 /dev/stdin /etc/vhost-zcache/web2.toml
             systemctl enable --now vhost-zcache@web2.socket
             test -S /run/zcache-guests/web2.sock; systemctl start vhost-zcache@web2; systemctl reload vhost-zcache@web2",
        )?;
        let removed = host.run("apt-get remove --yes vhost-zcache 2>&1")?;
        ensure!(!removed.status.success(), "The package was removed under a daemon of one guest");
        host.sh("systemctl stop vhost-zcache@web2")?;
        host.sh("apt-get purge --yes vhost-zcache 2>&1")?;
        host.sh("test ! -e /etc/vhost-zcache.toml; test ! -e /usr/bin/vhost-zcache; ! systemctl is-active vhost-zcache")
            .map(drop)
    });
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = std::time::Instant::now() + LIMIT;
    while !is_so()? {
        ensure!(std::time::Instant::now() < until, "For {LIMIT:?} it was awaited in vain that {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
