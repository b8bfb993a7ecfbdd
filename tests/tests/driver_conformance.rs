// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver keeps the rules of SPEC.md: a real guest against the witness device, which
//! records every request, answers as it is told, and notes each broken rule.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use zcache_protocol::{Opcode, Status};
use zcache_tests::witness::{Behaviour, Witness};
use zcache_tests::{Endpoint, Kernel, Modules, Scenario, Vm, VmOptions, scenario};

/// A folder's worth of files with one checksum for all of it.
const WRITE_FILES: &str = "mkdir -p /mnt/set && for n in $(seq 40); do \
    head -c 512K /dev/urandom > /mnt/set/$n; done; sync; cat /mnt/set/* | md5sum > /tmp/set.md5";
/// Evicts the files from the page cache, reads them again and compares.
const CHECK_FILES: &str = "echo 1 > /proc/sys/vm/drop_caches; cat /mnt/set/* | md5sum | cmp - /tmp/set.md5";
const EXT4: &str = "mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt";
const SWAP: &str = "mkswap /dev/vdc >/dev/null && swapon /dev/vdc";

/// A witness and a guest with a disk for files and one for swap.
fn guest_and_witness(s: &Scenario, behaviour: Behaviour, modules: Modules) -> Result<(std::sync::Arc<Vm>, Witness)> {
    let witness = Witness::start(&s.dir().join("witness.sock"), behaviour)?;
    let mut options = VmOptions::new("guest").disk_mib(256).disk_mib(256);
    options.memory_mib = 128;
    options.modules = modules;
    Ok((s.vm(options)?, witness))
}

fn endpoint(witness: &Witness, queues: u16) -> Endpoint {
    Endpoint { socket: witness.socket().to_owned(), queues, backend: std::process::id().cast_signed() }
}

/// Waits until the witness has seen `count` requests of a kind.
fn wait_for(witness: &Witness, opcode: Opcode, count: usize) -> Result<()> {
    let start = Instant::now();
    while witness.ledger().count(opcode) < count {
        ensure!(start.elapsed() < Duration::from_secs(30), "The driver sent no {opcode:?} within 30 s");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn no_violation(witness: &Witness) -> Result<()> {
    let verdict = witness.ledger().verdict();
    ensure!(verdict.is_empty(), "The driver broke the rules:\n{}", verdict.join("\n"));
    Ok(())
}

/// Conformance: ZC-DRV-3, ZC-DRV-4, ZC-DRV-5, ZC-DRV-6, ZC-DRV-7, ZC-DRV-9, ZC-DRV-11.
/// Conformance: ZC-DRV-16, ZC-DRV-17, ZC-DRV-18.
#[test]
fn a_guest_under_load_keeps_every_rule() {
    scenario("driver_rules", Duration::from_secs(300), |s| {
        let (vm, witness) = guest_and_witness(s, Behaviour::default(), Modules::Loaded)?;
        let guest = vm.guest();
        guest.sh(EXT4)?;
        guest.sh(SWAP)?;
        guest.sh(WRITE_FILES)?;
        guest.sh("truncate -s 64M /tmp/gone && mkfs.ext4 -q /tmp/gone && mkdir -p /mnt2 && mount -o loop /tmp/gone /mnt2 && umount /mnt2")?;

        vm.attach_to(&endpoint(&witness, 2))?;
        wait_for(&witness, Opcode::PoolCreate, 2)?;
        let first = witness.ledger().seen.first().cloned().context("The witness saw nothing")?;
        ensure!(first.is(Opcode::Hello), "The first request was no HELLO but {first:?}");
        let pools = witness.ledger().pools.clone();
        ensure!(pools.len() == 2, "One mounted filesystem and one swap area, but the pools are {pools:?}");

        for _ in 0..3 {
            guest.sh_within(CHECK_FILES, Duration::from_secs(60)).context("The files changed")?;
        }
        guest.sh_within("swaphog --mib 110 --seconds 3", Duration::from_secs(120)).context("A swapped page changed")?;
        guest.sh("rm /mnt/set/7 /mnt/set/8; truncate -s 100k /mnt/set/9; umount /mnt")?;
        for opcode in [Opcode::Put, Opcode::Get, Opcode::PoolDestroy] {
            ensure!(witness.ledger().count(opcode) > 0, "The load made the driver send no {opcode:?}");
        }

        vm.detach()?;
        let before = witness.ledger().seen.len();
        guest.sh("mount /dev/vdb /mnt && echo stale > /mnt/set/1")?;
        ensure!(witness.ledger().seen.len() == before, "The driver used a device that is gone");
        vm.attach_to(&endpoint(&witness, 2))?;
        wait_for(&witness, Opcode::Hello, 2)?;
        let content = guest.sh("echo 1 > /proc/sys/vm/drop_caches; cat /mnt/set/1")?;
        ensure!(content.trim() == "stale", "A file written between detach and attach reads '{content}'");

        ensure!(witness.ledger().config_writes == 0, "ZC-DRV-4: the driver wrote to the configuration space");
        no_violation(&witness)
    });
}

/// Conformance: ZC-DRV-15.
#[test]
fn a_pool_with_requests_everywhere_is_flushed_everywhere() {
    scenario("driver_flush_everywhere", Duration::from_secs(300), |s| {
        let (vm, witness) = guest_and_witness(s, Behaviour::default(), Modules::Loaded)?;
        let guest = vm.guest();
        guest.sh("mkfs.ext4 -q -N 10000 /dev/vdb && mount /dev/vdb /mnt && mkdir /mnt/set")?;
        guest
            .sh("for n in $(seq 4000); do echo $n > /mnt/set/$n; done; sync; cat /mnt/set/* | md5sum > /tmp/set.md5")?;
        vm.attach_to(&endpoint(&witness, 2))?;
        wait_for(&witness, Opcode::PoolCreate, 1)?;
        guest.sh("echo 3 > /proc/sys/vm/drop_caches; cat /mnt/set/* > /dev/null; echo 1 > /proc/sys/vm/drop_caches")?;
        // A device this slow leaves the driver no room for its invalidations, one for each file.
        witness.behave(|b| b.delay = Duration::from_millis(20));
        guest.sh("echo 2 > /proc/sys/vm/drop_caches")?;
        witness.behave(|b| b.delay = Duration::ZERO);
        wait_for(&witness, Opcode::FlushPool, 2)?;
        guest.sh("cat $(ls -d /mnt/set/* ) | md5sum | cmp - /tmp/set.md5")?;
        no_violation(&witness)
    });
}

/// Conformance: ZC-DRV-1, ZC-DRV-2, ZC-DRV-8.
#[test]
fn identification_queues_and_instance() {
    scenario("driver_identification", Duration::from_secs(180), |s| {
        let wrong_magic = Behaviour { magic: 0x6469_7276, ..Behaviour::default() };
        let (vm, witness) = guest_and_witness(s, wrong_magic, Modules::Loaded)?;
        for (what, fix) in [("magic", zcache_protocol::MAGIC), ("version", zcache_protocol::VERSION)] {
            vm.attach_to(&endpoint(&witness, 2))?;
            let start = Instant::now();
            while witness.ledger().config_reads == 0 {
                ensure!(
                    start.elapsed() < Duration::from_secs(10),
                    "The driver did not look at the configuration space"
                );
                std::thread::sleep(Duration::from_millis(50));
            }
            // A driver that takes the device says HELLO within milliseconds.
            std::thread::sleep(Duration::from_secs(1));
            ensure!(witness.ledger().seen.is_empty(), "The driver used a device of another {what}");
            vm.guest().sh("grep -q '^state unattached' /sys/kernel/debug/zcache/stats")?;
            witness.ledger().config_reads = 0;
            vm.detach()?;
            if what == "magic" {
                witness.behave(|b| (b.magic, b.version) = (fix, 2));
            } else {
                witness.behave(|b| b.version = fix);
            }
        }

        vm.attach_to(&endpoint(&witness, 1))?;
        wait_for(&witness, Opcode::Hello, 1)?;
        vm.guest().sh(EXT4)?;
        vm.guest().sh(WRITE_FILES)?;
        // The first pass reads the disk; only pages that were read are put when they are evicted.
        for _ in 0..2 {
            vm.guest().sh(CHECK_FILES)?;
        }
        ensure!(witness.ledger().count(Opcode::Get) > 0, "The driver does not use a device with one queue");
        no_violation(&witness)?;
        vm.power_off()?;

        let again = s.vm(VmOptions::new("again"))?;
        again.attach_to(&endpoint(&witness, 1))?;
        wait_for(&witness, Opcode::Hello, 2)?;
        let instances: Vec<_> =
            witness.ledger().seen.iter().filter_map(zcache_tests::witness::Seen::instance).collect();
        let [first, second] = instances[..] else { bail!("Expected two HELLOs, saw {instances:x?}") };
        ensure!(first != second && first != [0; 16], "Instances are not random: {first:x?} and {second:x?}");
        Ok(())
    });
}

/// Conformance: ZC-DRV-10, ZC-DRV-14.
#[test]
fn a_page_that_was_not_accepted_comes_from_the_disk() {
    scenario("driver_refused", Duration::from_secs(300), |s| {
        let (vm, witness) = guest_and_witness(s, Behaviour::default(), Modules::Loaded)?;
        let guest = vm.guest();
        guest.sh(EXT4)?;
        guest.sh(SWAP)?;
        guest.sh(WRITE_FILES)?;
        vm.attach_to(&endpoint(&witness, 2))?;
        wait_for(&witness, Opcode::PoolCreate, 2)?;
        // 999 is a status of no version.
        for status in [Status::Refused as u16, 999] {
            witness.behave(|b| b.answer = Some((Opcode::Put, status)));
            guest
                .sh_within("swaphog --mib 110 --seconds 1", Duration::from_secs(120))
                .with_context(|| format!("A page whose PUT was answered {status} was lost"))?;
            guest.sh(CHECK_FILES).with_context(|| format!("A file changed: PUT answered {status}"))?;
        }
        witness.behave(|b| b.answer = Some((Opcode::Get, 999)));
        guest.sh("swapoff /dev/vdc")?;
        for _ in 0..3 {
            guest.sh(CHECK_FILES).context("A file changed: GET answered 999")?;
        }
        no_violation(&witness)
    });
}

/// Conformance: ZC-DRV-13.
#[test]
fn a_swap_page_the_device_cannot_give_back_is_never_garbage() {
    scenario("driver_corrupt_swap", Duration::from_secs(120), |s| {
        let (vm, witness) = guest_and_witness(s, Behaviour::default(), Modules::Loaded)?;
        let guest = vm.guest();
        guest.sh(SWAP)?;
        vm.attach_to(&endpoint(&witness, 2))?;
        wait_for(&witness, Opcode::PoolCreate, 1)?;
        let hog = guest.spawn("swaphog --mib 150 --seconds 15")?;
        wait_for(&witness, Opcode::Put, 3000)?;
        witness.behave(|b| b.answer = Some((Opcode::Get, Status::Corrupt as u16)));
        // The default policy is to wait: the hog neither ends nor sees a wrong page.
        match hog.wait(Duration::from_secs(25)) {
            Err(_) => Ok(()),
            Ok(output) => bail!("The hog went on without its pages: {output:?}"),
        }
    });
}

/// Conformance: ZC-DRV-12, ZC-DRV-19, ZC-DRV-20.
#[test]
fn a_device_that_falls_silent_is_left_alone() {
    scenario("driver_silent", Duration::from_secs(180), |s| {
        let (vm, witness) = guest_and_witness(s, Behaviour::default(), Modules::Loaded)?;
        let guest = vm.guest();
        guest.sh(EXT4)?;
        guest.sh(WRITE_FILES)?;
        vm.attach_to(&endpoint(&witness, 2))?;
        wait_for(&witness, Opcode::PoolCreate, 1)?;
        guest.sh(CHECK_FILES)?;
        guest.sh("echo 2000 > /sys/module/zcache_virtio/parameters/timeout_ms")?;

        witness.behave(|b| b.silent = true);
        let start = Instant::now();
        guest.sh_within(CHECK_FILES, Duration::from_secs(60)).context("Reads must go on without the device")?;
        let waited = start.elapsed();
        ensure!(waited < Duration::from_secs(30), "One time-out of 2 s became {waited:?}");

        let config_reads = witness.ledger().config_reads;
        let held = witness.ledger().held();
        for _ in 0..2 {
            guest.sh(CHECK_FILES)?;
        }
        ensure!(witness.ledger().config_reads == config_reads, "The driver read the configuration of a lost device");
        ensure!(witness.ledger().held() == held, "The driver sent requests to a lost device");

        // The late answer goes to buffers that nobody uses for anything else.
        let scribbled = witness.scribble()?;
        ensure!(scribbled > 0, "The device held no buffer to write to");
        guest.sh(CHECK_FILES).context("A late answer reached a page of the guest")?;
        vm.detach()
    });
}

/// Conformance: ZC-DRV-21, ZC-DRV-22, ZC-DRV-23.
#[test]
fn wanted_pages_are_taken_back_when_they_are_asked_for() {
    scenario("driver_take_back", Duration::from_secs(240), |s| {
        let witness = Witness::start(&s.dir().join("witness.sock"), Behaviour::default())?;
        let mut options = VmOptions::new("guest").disk_mib(256);
        (options.kernel, options.memory_mib, options.modules) = (Kernel::Uml, 128, Modules::NotLoaded);
        let vm = s.vm(options)?;
        let guest = vm.guest();
        guest.sh("for module in zcache zcache_virtio zcache_swap; do insmod /payload/modules/$module.ko; done
                  zcachesetup swap on --backing /dev/vdb")?;
        vm.attach_to(&endpoint(&witness, 2))?;
        wait_for(&witness, Opcode::PoolCreate, 1)?;
        guest.sh("sleep 2")?;
        ensure!(witness.ledger().count(Opcode::Wanted) == 0, "A guest without pages asks");

        let hog = guest.spawn("swaphog --mib 150 --seconds 20")?;
        wait_for(&witness, Opcode::Put, 2000)?;
        wait_for(&witness, Opcode::Wanted, 2)?;
        witness.behave(|b| b.wanted = (1500, 500));
        let taken = "until [ $(awk '/^taken_back/ { print $2 }' /sys/kernel/debug/zcache/stats) -gt 1000 ]
                     do sleep 0.1; done";
        guest.sh_within(taken, Duration::from_secs(60)).context("Wanted pages are not taken back")?;
        hog.success(Duration::from_secs(120)).context("A page changed that was taken back")?;
        witness.behave(|b| b.wanted = (0, 500));

        // Another device that looks the same and knows nothing of it.
        vm.detach()?;
        witness.behave(|b| b.forgets_features = true);
        let asked = witness.ledger().count(Opcode::Wanted);
        vm.attach_to(&endpoint(&witness, 2))?;
        wait_for(&witness, Opcode::Hello, 3)?;
        let stored = witness.ledger().count(Opcode::Put);
        guest.sh_within("swaphog --mib 150 --seconds 4", Duration::from_secs(120)).context("A page changed")?;
        ensure!(witness.ledger().count(Opcode::Put) > stored, "A device without the feature is not used");
        ensure!(witness.ledger().count(Opcode::Wanted) == asked, "It is asked although it knows of no such request");
        no_violation(&witness)
    });
}
