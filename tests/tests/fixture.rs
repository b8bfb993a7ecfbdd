// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The fixture itself: what it reports must be so, or no other test can be believed.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use zcache_tests::{DaemonOptions, Exit, Modules, VmOptions, scenario};

#[test]
fn the_fixture_tells_the_truth() {
    scenario("fixture", Duration::from_secs(120), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let mut options = VmOptions::new("guest").daemon(&daemon, 0).disk_mib(64);
        options.modules = Modules::NotLoaded;
        let vm = s.vm(options)?;
        let guest = vm.guest();

        let output = guest.try_sh("echo out; echo err >&2; exit 7")?;
        ensure!(output.exit == Exit::Status(7), "Status 7 came back as {}", output.exit);
        ensure!(output.stdout == "out\n" && output.stderr == "err\n", "The output came back as {output:?}");
        let Err(error) = guest.sh("false | true; echo not reached") else { bail!("A failed command went unnoticed") };
        ensure!(error.to_string().contains("exit status 1"), "{error:#}");

        let started = Instant::now();
        ensure!(guest.sh_within("sleep 60", Duration::from_secs(1)).is_err(), "A limit did not end a command");
        ensure!(started.elapsed() < Duration::from_secs(20), "A limit of 1 s took {:?}", started.elapsed());

        let contents: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        guest.push("/root/folder/file", 0o640, &contents)?;
        let answer = guest.sh("stat -c %a,%s /root/folder/file")?;
        ensure!(answer.trim() == "640,200000", "A pushed file arrived as {answer}");

        let before = vm.disk_io()?["vdb"];
        guest.sh("dd if=/dev/vdb of=/dev/null bs=64k count=4 iflag=direct status=none")?;
        let after = vm.disk_io()?["vdb"];
        ensure!(after.reads - before.reads == 4, "4 reads were counted as {}", after.reads - before.reads);
        ensure!(after.read_bytes - before.read_bytes == 256 << 10, "256 KiB were counted wrongly");

        for program in ["swaphog", "coherence", "clones", "zeroed"] {
            let help = guest.sh_within(&format!("{program} --help"), Duration::from_secs(20))?;
            ensure!(help.starts_with(&format!("usage: {program} ")), "{program} --help says {help}");
        }

        let unknown = guest.try_sh("zhost nonsense")?;
        ensure!(unknown.exit == Exit::Status(2), "zhost took nonsense: {unknown:?}");
        guest.sh("zhost attach; zhost stats | grep -q '\"attached\":true'; zhost detach; zhost stats | grep -q '\"attached\":false'")?;

        ensure!(vm.complaints()?.is_empty(), "The kernel complains about nothing: {:?}", vm.complaints()?);
        guest.sh("echo 'BUG: KASAN: nothing, this is a test' > /dev/kmsg")?;
        ensure!(vm.complaints()?.len() == 1, "A complaint in the kernel log went unnoticed");
        guest.sh("dmesg --clear")?;
        Ok(())
    });
}

/// The limit of a test ends it even if the body waits for something else.
#[test]
#[should_panic(expected = "was stopped after")]
fn a_test_that_takes_too_long_is_stopped() {
    scenario("fixture_limit", Duration::from_secs(12), |s| {
        let vm = s.vm(VmOptions::new("guest"))?;
        vm.guest().sh_within("sleep 600", Duration::from_secs(600))?;
        Ok(())
    });
}
