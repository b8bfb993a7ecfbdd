// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Boots a guest and checks that it has what the tests rely on.
//!
//! `cargo run -p zcache-images --example boot [classic|classic-debug]`

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use zcache_images::{AGENT_PORT, GUEST_CMDLINE, Images, Kernel, PAYLOAD_SERIAL, PayloadFile};

/// What has to work in the guest: a name and a script that must succeed.
const CHECKS: &[(&str, &str)] = &[
    ("memory", "head -1 /proc/meminfo"),
    ("payload", "cmp /payload/etc/cmdline <(echo zcache)"),
    ("cleancache", "test -d /sys/kernel/debug/cleancache"),
    ("frontswap", "test -d /sys/kernel/debug/frontswap"),
    ("file systems", "for f in ext4 btrfs ocfs2 overlay; do grep -qw $f /proc/filesystems || exit; done"),
    ("ext4", "mkfs.ext4 -q /dev/vdc && mount /dev/vdc /mnt && echo x >/mnt/x && umount /mnt"),
    ("btrfs", "mkfs.btrfs -q -f /dev/vdc && mount /dev/vdc /mnt && echo x >/mnt/x && umount /mnt"),
    (
        "ocfs2",
        "mkfs.ocfs2 -q -M local -F /dev/vdc </dev/null && mount -t ocfs2 /dev/vdc /mnt && echo x >/mnt/x && umount /mnt",
    ),
    ("swap", "mkswap -q /dev/vdc && swapon /dev/vdc && grep vdc /proc/swaps && swapoff /dev/vdc"),
    ("loop", "truncate -s 8M /tmp/i && mkfs.ext4 -q /tmp/i && mount -o loop /tmp/i /mnt && umount /mnt"),
    ("zram", "test -e /sys/block/zram0/disksize"),
    ("zswap", "grep -q N /sys/module/zswap/parameters/enabled"),
    (
        "memory cgroup",
        "mkdir /sys/fs/cgroup/t && echo +memory >/sys/fs/cgroup/cgroup.subtree_control && test -e /sys/fs/cgroup/t/memory.max",
    ),
    ("drop_caches", "echo 3 >/proc/sys/vm/drop_caches"),
    ("direct I/O", "dd if=/dev/zero of=/dev/vdc bs=4k count=4 oflag=direct status=none"),
    ("fio", "fio --version"),
    ("fio job", "fio --name=j --filename=/tmp/f --size=1m --rw=randrw --bs=4k --verify=crc32c --output=/dev/null"),
    ("stress-ng", "stress-ng --version"),
    (
        "tools",
        "type gawk xxd hexdump sha256sum md5sum flock taskset fallocate losetup blkid insmod modprobe dmsetup cmp timeout",
    ),
    ("zhost is there", "type zhost"),
];

fn main() -> Result<()> {
    let kernel: Kernel = std::env::args().nth(1).as_deref().unwrap_or(Kernel::Classic.name()).parse()?;
    let dir = tempfile::tempdir()?;
    let disk = dir.path().join("disk");
    File::create(&disk)?.set_len(512 << 20)?;
    let file = dir.path().join("cmdline");
    fs::write(&file, "zcache\n")?;

    let started = Instant::now();
    let images = Images::open()?;
    let qemu = images.qemu()?;
    let built = images.kernel(kernel)?;
    let rootfs = images.rootfs()?;
    let payload = images.payload(&[PayloadFile { source: file, path: "etc/cmdline".to_owned() }])?;
    let accel = images.accel()?;
    println!("{}, Linux {}, {accel:?}", qemu.version()?, built.release()?);
    println!("images after {:.1} s", started.elapsed().as_secs_f32());

    let socket = dir.path().join("agent");
    let console = dir.path().join("console");
    let drive = |name: &str, path: &Path, options: &str| {
        format!("if=none,id={name},format=raw,file={},{options}", path.display())
    };
    let mut command = qemu.command();
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-machine", "q35", "-m", memory(kernel), "-smp", "2"])
        .args(accel.qemu_args())
        .arg("-kernel")
        .arg(built.image())
        .arg("-append")
        .arg(format!("{GUEST_CMDLINE} quiet"))
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-drive", &drive("root", &rootfs, "read-only=on")])
        .args(["-device", "virtio-blk-pci,drive=root"])
        .args(["-drive", &drive("payload", &payload, "read-only=on")])
        .args(["-device", &format!("virtio-blk-pci,drive=payload,serial={PAYLOAD_SERIAL}")])
        .args(["-drive", &drive("disk", &disk, "discard=unmap")])
        .args(["-device", "virtio-blk-pci,drive=disk"])
        .args(["-device", "virtio-serial-pci"])
        .arg("-chardev")
        .arg(format!("socket,id=agent,path={},server=on,wait=off", socket.display()))
        .args(["-device", &format!("virtserialport,chardev=agent,name={AGENT_PORT}")])
        .stdin(Stdio::null());
    let booted = Instant::now();
    let mut guest = Guest(command.spawn()?);
    let outcome = check(&mut guest, &socket, booted);
    if outcome.is_err() {
        eprintln!("--- console\n{}", String::from_utf8_lossy(&fs::read(&console)?));
    }
    outcome
}

/// KASAN keeps an eighth of the memory for itself and makes most things larger.
fn memory(kernel: Kernel) -> &'static str {
    if kernel == Kernel::ClassicDebug { "512M" } else { "256M" }
}

fn check(guest: &mut Guest, socket: &Path, booted: Instant) -> Result<()> {
    let mut agent = Agent(guest.connect(socket)?);
    let hello = agent.receive()?;
    ensure!(hello.kind == 129, "the agent's first frame is of type {}", hello.kind);
    println!("{} after {:.1} s", String::from_utf8_lossy(&hello.payload), booted.elapsed().as_secs_f32());
    let mut failed = Vec::new();
    for (name, script) in CHECKS {
        let begun = Instant::now();
        let (status, printed) = agent.run(script)?;
        let result = if status == 0 { "ok" } else { "FAILED" };
        println!("{result:6} {name} ({:.2} s) {}", begun.elapsed().as_secs_f32(), printed.trim());
        if status != 0 {
            failed.push(*name);
        }
    }
    agent.send(5, &[])?;
    guest.wait_for_end()?;
    ensure!(failed.is_empty(), "these do not work in the guest: {}", failed.join(", "));
    Ok(())
}

struct Guest(Child);

impl Guest {
    fn connect(&mut self, socket: &Path) -> Result<UnixStream> {
        for _ in 0..200 {
            if let Ok(stream) = UnixStream::connect(socket) {
                stream.set_read_timeout(Some(Duration::from_secs(60)))?;
                return Ok(stream);
            }
            if let Some(status) = self.0.try_wait()? {
                bail!("QEMU ended at once: {status}");
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("QEMU does not listen")
    }

    fn wait_for_end(&mut self) -> Result<()> {
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(20) {
            if self.0.try_wait()?.is_some() {
                println!("powered off in {:.1} s", asked.elapsed().as_secs_f32());
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("the guest does not power off")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

/// Just enough of the protocol in `images/guest/README.md` for one command at a time.
struct Agent(UnixStream);

impl Agent {
    fn send(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        let mut frame = u32::try_from(payload.len() + 5)?.to_le_bytes().to_vec();
        frame.extend(1_u32.to_le_bytes());
        frame.push(kind);
        frame.extend(payload);
        self.0.write_all(&frame).context("writing to the agent")
    }

    fn receive(&mut self) -> Result<Frame> {
        let mut header = [0; 9];
        self.0.read_exact(&mut header).context("waiting for the agent")?;
        let [a, b, c, d, _, _, _, _, kind] = header;
        let length = u32::from_le_bytes([a, b, c, d]).checked_sub(5).context("a short frame")?;
        let mut payload = vec![0; usize::try_from(length)?];
        self.0.read_exact(&mut payload).context("reading from the agent")?;
        Ok(Frame { kind, payload })
    }

    /// Returns the exit status (the signal + 128 for a kill) and all that was printed.
    fn run(&mut self, script: &str) -> Result<(u32, String)> {
        self.send(1, format!("/bin/bash\0-o\0pipefail\0-c\0{script}\0").as_bytes())?;
        let mut printed = String::new();
        loop {
            let frame = self.receive()?;
            match (frame.kind, frame.payload.as_slice()) {
                (130 | 131, text) => printed += &String::from_utf8_lossy(text),
                (132, [0, a, b, c, d, ..]) => {
                    return Ok((u32::from_le_bytes([*a, *b, *c, *d]), printed));
                }
                (132, [1, signal, ..]) => return Ok((128 + u32::from(*signal), printed)),
                (132, [_, _, _, _, _, text @ ..]) => bail!("{}", String::from_utf8_lossy(text)),
                (kind, _) => bail!("unexpected frame of type {kind}"),
            }
        }
    }
}
