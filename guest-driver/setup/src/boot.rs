// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Lines of the table are opened and closed, beside each other: a slow one holds up no other.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result, Voice, print};
use crate::lock::Lock;
use crate::mapped::{self, device::Mapped};
use crate::privilege::as_root;
use crate::spec::Spec;
use crate::swapdisk::SwapDisk;
use crate::swapnotes;
use crate::table::line::{Line, What};
use crate::table::{self, Entry};

/// Which lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    All,
    /// Those that are marked for it.
    Initramfs,
    Named(Vec<String>),
}

/// How many lines are at work at once: each waits for udev more than it computes.
const AT_ONCE: usize = 8;

/// How long until devices that are awaited are looked for again.
const PAUSE: Duration = Duration::from_millis(500);

impl Selection {
    fn has(&self, entry: &Entry) -> bool {
        match self {
            Self::All => true,
            // What is wrong with other lines is not for the initramfs to say.
            Self::Initramfs => entry.in_initramfs,
            Self::Named(names) => names.contains(&entry.name),
        }
    }
}

/// A line that is wanted, and who speaks of it.
struct Job {
    line: Line,
    voice: Voice,
}

/// Opens lines, waiting for devices until `patience` is at an end. Prints the path of the device
/// that lies over `root`.
pub(crate) fn start(selection: &Selection, patience: Duration, root: Option<&Spec>) -> Result<()> {
    let (jobs, mut all_well) = jobs(selection)?;
    if !jobs.is_empty() {
        as_root()?;
    }
    let end = Instant::now().checked_add(patience);
    let mut waiting = jobs;
    loop {
        let is_over = end.is_some_and(|end| Instant::now() >= end);
        let (ready, absent): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|job| is_over || patience.is_zero() || can_start(&job.line));
        all_well &= side_by_side(ready, |job| start_line(job, root));
        if absent.is_empty() {
            break;
        }
        waiting = absent;
        thread::sleep(PAUSE);
    }
    ended(all_well)
}

/// Closes lines. The root filesystem is on what the initramfs opened, which is closed by name only.
pub(crate) fn stop(selection: &Selection) -> Result<()> {
    let (mut jobs, mut all_well) = jobs(selection)?;
    if *selection == Selection::All {
        jobs.retain(|job| !job.line.is_for_initramfs());
    }
    if !jobs.is_empty() {
        as_root()?;
    }
    all_well &= side_by_side(jobs, |job| stop_line(&job.line));
    ended(all_well)
}

/// Prints the lines as they were understood.
pub(crate) fn list() -> Result<()> {
    let (jobs, all_well) = jobs(&Selection::All)?;
    let lines: String = jobs.iter().map(|job| format!("{}\n", job.line)).collect();
    print(&lines)?;
    ended(all_well)
}

/// Everything has been said by then.
fn ended(all_well: bool) -> Result<()> {
    if all_well { Ok(()) } else { Err(Error::Said) }
}

/// The lines that were chosen, and whether all of them are good. Says what is wrong with the
/// others.
fn jobs(selection: &Selection) -> Result<(Vec<Job>, bool)> {
    let path = table::path();
    let entries = table::read(&path)?;
    let mut jobs = Vec::new();
    let mut all_well = true;
    for entry in entries.iter().filter(|entry| selection.has(entry)) {
        let voice = Voice::of(&entry.place);
        match &entry.line {
            Ok(line) => jobs.push(Job { line: line.clone(), voice }),
            Err(message) => {
                voice.say(message);
                all_well = false;
            }
        }
    }
    if let Selection::Named(names) = selection {
        for name in names.iter().filter(|name| entries.iter().all(|entry| entry.name != **name)) {
            Voice::default().say(format!("{name}: no such line in {}", path.display()));
            all_well = false;
        }
    }
    Ok((jobs, all_well))
}

/// Does something with each line, and returns whether all went well.
fn side_by_side(jobs: Vec<Job>, work: impl Fn(&Job) -> Result<()> + Sync) -> bool {
    let threads = jobs.len().min(AT_ONCE);
    let queue = Mutex::new(jobs.into_iter());
    let next = || queue.lock().ok().and_then(|mut jobs| jobs.next());
    let worker = || {
        let mut all_well = true;
        while let Some(job) = next() {
            if let Err(error) = work(&job) {
                job.voice.say(error);
                all_well = false;
            }
        }
        all_well
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(false)).fold(true, |all, one| all & one)
    })
}

/// Whether nothing has to be waited for.
fn can_start(line: &Line) -> bool {
    is_started(line) || line.device().is_none_or(|device| device.resolve().is_some())
}

fn is_started(line: &Line) -> bool {
    match &line.what {
        What::Mapped { .. } => Mapped::find(line.name.as_str()).is_some_and(|mapped| mapped.is_ours()),
        // A disk that was not turned off by us is not ours any more.
        What::Swap(_) => swapnotes::disk_of(&line.name).is_some_and(|disk| disk.is_swapped_to()),
    }
}

fn start_line(job: &Job, root: Option<&Spec>) -> Result<()> {
    let line = &job.line;
    match &line.what {
        What::Swap(options) => {
            let _lock = Lock::of_name(&line.name)?;
            if !is_started(line) {
                let disk = SwapDisk::on(options)?;
                swapnotes::note(&line.name, &disk)?;
            }
            Ok(())
        }
        What::Mapped { device, put, .. } => {
            mapped::open_or_pass(device, &line.name, *put, &job.voice)?;
            if root.is_some_and(|root| is_same(device, root)) {
                print(&format!("/dev/mapper/{}\n", line.name))?;
            }
            Ok(())
        }
    }
}

fn is_same(one: &Spec, other: &Spec) -> bool {
    matches!((one.resolve(), other.resolve()), (Some(one), Some(other)) if one.number == other.number)
}

fn stop_line(line: &Line) -> Result<()> {
    match &line.what {
        What::Swap(_) => {
            let _lock = Lock::of_name(&line.name)?;
            swapnotes::disk_of(&line.name).map_or(Ok(()), |disk| swapnotes::turn_off(&disk))
        }
        What::Mapped { .. } if Mapped::find(line.name.as_str()).is_some() => mapped::close(&line.name),
        What::Mapped { .. } => Ok(()),
    }
}
