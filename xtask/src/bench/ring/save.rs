// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask bench save`: how long a guest's pages take to be saved at the daemon's end, and to
//! be taken back by the next one, beside plain writes and reads of as many bytes.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use zcache_protocol::Status;
use zcache_store::Page;
use zcache_tests::{Daemon, DaemonOptions, SocketOptions, fresh_folder};

use super::device::{Device, get, hello, put};
use super::queue::Used;
use crate::bench::corpus::Corpus;
use crate::bench::median::median;
use crate::bench::memory;
use crate::build;

/// Pages between two looks at how much is stored.
const STEP: usize = 8192;
/// How long the daemon may take to save.
const PATIENCE: Duration = Duration::from_secs(600);

/// Pages saved at the daemon's end and taken back, beside a plain file of as many bytes
#[derive(Args)]
pub(crate) struct Arguments {
    /// Pages to store: 4 KiB pages one after the other, zstd-compressed if the name ends in .zst.
    /// Without it pages are sampled from this machine.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// Compressed pages that are stored
    #[arg(long, value_name = "N", default_value_t = 1024)]
    mib: u64,
    /// How often it is measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    turns: usize,
    /// Write all figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What was measured: medians, in megabytes (10^6) of the file in a second.
#[derive(Debug, Serialize)]
struct Figures {
    pages: usize,
    file_bytes: u64,
    /// From SIGTERM until the daemon has ended.
    save_mb_per_s: f64,
    /// From the connection until HELLO is answered.
    take_back_mb_per_s: f64,
    /// The same bytes, written to a file that is then on the disk.
    plain_write_mb_per_s: f64,
    /// The same bytes, read of that file; it is in memory as the saved one is.
    plain_read_mb_per_s: f64,
}

/// What one turn took.
struct Turn {
    file_bytes: u64,
    save: Duration,
    take_back: Duration,
    write: Duration,
    read: Duration,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let files: Vec<PathBuf> = arguments.corpus.iter().cloned().collect();
    let corpora = Corpus::load(&files)?;
    let corpus = corpora.first().context("there is no corpus")?;
    let bytes = arguments.mib << 20;
    ensure!(memory::available()? > 4 * bytes, "the machine has not enough memory for {} MiB", arguments.mib);
    let dir = fresh_folder("bench-save")?;
    let saved = dir.join("saved");
    let daemon = daemon(&dir, &saved)?;
    let socket = daemon.endpoint(0)?.socket;
    let mut device = Device::connect(&socket, 1)?;
    let pages = fill(&daemon, &mut device, &corpus.pages, bytes)?;
    let mut turns = Vec::new();
    for _ in 0..arguments.turns.max(1) {
        let turn;
        (device, turn) = measure(&daemon, &saved, &socket, device, pages)?;
        turns.push(turn);
    }
    drop((device, daemon));
    fs::remove_dir_all(&saved).context("what was saved cannot be removed")?;
    let rate = |time: fn(&Turn) -> Duration| {
        median(turns.iter().map(|turn| turn.file_bytes as f64 / 1e6 / time(turn).as_secs_f64()))
    };
    let figures = Figures {
        pages,
        file_bytes: turns[0].file_bytes,
        save_mb_per_s: rate(|turn| turn.save),
        take_back_mb_per_s: rate(|turn| turn.take_back),
        plain_write_mb_per_s: rate(|turn| turn.write),
        plain_read_mb_per_s: rate(|turn| turn.read),
    };
    println!("pages of {}, {} turns", corpus.name, turns.len());
    let text = serde_json::to_string_pretty(&figures)?;
    println!("{text}");
    let Some(path) = &arguments.json else { return Ok(()) };
    fs::write(path, text + "\n").with_context(|| format!("{} cannot be written", path.display()))
}

fn daemon(dir: &Path, saved: &Path) -> Result<Daemon> {
    fs::create_dir(saved)?;
    fs::set_permissions(saved, Permissions::from_mode(0o700))?;
    let key = dir.join("key");
    fs::write(&key, [1; 32])?;
    fs::set_permissions(&key, Permissions::from_mode(0o400))?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
    let arguments = ["--save-directory".to_owned(), text(saved)?, "--save-key".to_owned(), text(&key)?];
    let timeout = ["--save-timeout".to_owned(), PATIENCE.as_secs().to_string()];
    let options = DaemonOptions {
        binary: build::daemon()?,
        sockets: vec![SocketOptions::default()],
        memory_limit: Some("64G".to_owned()),
        queues: 1,
        workers: None,
        die_at: None,
        arguments: arguments.into_iter().chain(timeout).collect(),
    };
    Daemon::start(options, dir)
}

/// Puts pages until so many bytes are stored; how many pages that are.
fn fill(daemon: &Daemon, device: &mut Device, pages: &[Page], bytes: u64) -> Result<usize> {
    let queue = &mut device.queues[0];
    let is_put = |used: Used| -> Result<()> {
        ensure!(used.status == Status::Ok as u16, "a put has status {}", used.status);
        Ok(())
    };
    let mut next = 0;
    loop {
        for number in next..next + STEP {
            if !queue.has_room() {
                is_put(queue.wait()?)?;
            }
            queue.submit(&put(number), Some(&pages[number % pages.len()]))?;
        }
        while queue.under_way() > 0 {
            is_put(queue.wait()?)?;
        }
        next += STEP;
        if daemon.stats()?["store"]["compressed_bytes"].as_u64().context("no compressed_bytes")? >= bytes {
            return Ok(next);
        }
    }
}

/// Ends the daemon, and has the next one take back what was saved; the machine that goes on there.
fn measure(daemon: &Daemon, saved: &Path, socket: &Path, device: Device, pages: usize) -> Result<(Device, Turn)> {
    let started = Instant::now();
    daemon.end(PATIENCE)?;
    let save = started.elapsed();
    drop(device);
    let file = fs::read_dir(saved)?.next().context("nothing was saved")??.path();
    let (write, read) = plain(&file, &saved.with_file_name("plain"))?;
    let file_bytes = fs::metadata(&file)?.len();

    daemon.restart()?;
    let mut device = Device::attach(socket, 1)?;
    let started = Instant::now();
    device.queues[0].submit(&hello(), None)?;
    while device.queues[0].poll().is_none() {
        sleep(Duration::from_millis(1));
    }
    let take_back = started.elapsed();
    let got = daemon.stats()?["store"]["pages"].as_u64();
    ensure!(got == Some(pages as u64), "{got:?} of {pages} pages are there again");
    device.queues[0].ask(&get(pages - 1), None)?;
    Ok((device, Turn { file_bytes, save, take_back, write, read }))
}

/// Writes a file's bytes to another, and reads them; the times.
fn plain(of: &Path, to: &Path) -> Result<(Duration, Duration)> {
    let mut bytes = fs::read(of)?;
    let started = Instant::now();
    let mut file = File::create(to)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    let write = started.elapsed();
    let started = Instant::now();
    File::open(to)?.read_exact(&mut bytes)?;
    let read = started.elapsed();
    fs::remove_file(to)?;
    Ok((write, read))
}
