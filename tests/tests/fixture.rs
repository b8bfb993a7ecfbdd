// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The fixture itself: what it reports must be so, or no other test can be believed.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process_group};
use zcache_tests::{DaemonOptions, Exit, Kernel, Modules, VmOptions, lone_scenario};

#[test]
fn the_fixture_tells_the_truth() {
    tells_the_truth(Kernel::Classic);
}

#[test]
fn the_fixture_tells_the_truth_on_uml() {
    tells_the_truth(Kernel::Uml);
}

fn tells_the_truth(kernel: Kernel) {
    lone_scenario(&format!("fixture_{kernel}"), Duration::from_secs(120), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let mut options = VmOptions::new("guest").daemon(&daemon, 0).disk_mib(64);
        options.kernel = kernel;
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

        let long = guest.sh(&format!("echo {}; seq 100000", "x".repeat(60_000)))?;
        ensure!(long.len() == 60_001 + 588_895, "Of a long output of a long command came {} bytes", long.len());

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

        guest.sh("zhost attach; zhost kill-daemon; zhost restart-daemon; zhost attach; zhost detach")?;

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
    takes_too_long(Kernel::Classic);
}

#[test]
#[should_panic(expected = "was stopped after")]
fn a_test_that_takes_too_long_is_stopped_on_uml() {
    takes_too_long(Kernel::Uml);
}

fn takes_too_long(kernel: Kernel) {
    lone_scenario(&format!("fixture_limit_{kernel}"), Duration::from_secs(12), |s| {
        let mut options = VmOptions::new("guest");
        options.kernel = kernel;
        s.vm(options)?.guest().sh_within("sleep 600", Duration::from_secs(600)).map(drop)
    });
}

#[test]
fn a_killed_test_leaves_no_guest_behind() {
    killed("a_guest_that_is_left_alone").expect("no guest of QEMU");
    killed("a_guest_that_is_left_alone_on_uml").expect("no guest of user-mode Linux");
}

/// Runs one of the tests below and kills it.
fn killed(name: &str) -> Result<()> {
    let mut test = Command::new(std::env::current_exe()?)
        .args(["--exact", name, "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()?;
    let group = BufReader::new(test.stdout.take().context("Its output is a pipe")?)
        .lines()
        .find_map(|line| line.ok()?.split_once("leader=")?.1.parse().ok().and_then(Pid::from_raw));
    test.kill()?;
    test.wait()?;
    let group = group.context("It ended before its guest was up")?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while test_kill_process_group(group) != Err(Errno::SRCH) {
        ensure!(Instant::now() < deadline, "Processes of the group {group:?} still run");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
#[ignore = "waits to be killed by another test"]
fn a_guest_that_is_left_alone() {
    left_alone(Kernel::Classic);
}

#[test]
#[ignore = "waits to be killed by another test"]
fn a_guest_that_is_left_alone_on_uml() {
    left_alone(Kernel::Uml);
}

fn left_alone(kernel: Kernel) {
    lone_scenario(&format!("fixture_left_alone_{kernel}"), Duration::from_secs(120), |s| {
        let mut options = VmOptions::new("guest");
        options.kernel = kernel;
        let vm = s.vm(options)?;
        println!("leader={}", vm.process().pid());
        vm.guest().sh_within("sleep 600", Duration::from_secs(600)).map(drop)
    });
}
