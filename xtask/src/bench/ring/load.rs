// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Many requests at a time, of one guest and of many.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use zcache_protocol::{PAGE_SIZE, Request, Status};
use zcache_store::Page;

use super::device::{Device, flush, get, put};
use super::latency::Times;
use super::queue::Queue;
use crate::bench::codec::{Codec, Encoded};
use crate::bench::random::Random;

/// Requests of one guest under way.
const DEPTH: usize = 32;
/// Requests of the codec in a turn.
const TURN: usize = 4000;

/// Pages a second.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) put: f64,
    pub(super) get: f64,
}

/// The codec alone, on one core.
pub(super) fn codec(pages: &[Page]) -> Result<Rates> {
    let mut codec = Codec::new();
    let kept: Vec<Encoded> = pages.iter().map(|page| codec.keep(page)).collect::<Result<_>>()?;
    let mut out = [0; PAGE_SIZE];
    let start = Instant::now();
    for number in 0..TURN {
        black_box(codec.encode(&pages[number * 7 % pages.len()])?);
    }
    let put = TURN as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    for number in 0..TURN {
        kept[number * 7 % pages.len()].decode(&mut out)?;
        black_box(&out);
    }
    Ok(Rates { put, get: TURN as f64 / start.elapsed().as_secs_f64() })
}

/// All these queues kept full for a while, by this thread: pages a second.
pub(super) fn rate(
    queues: &mut [&mut Queue],
    time: Duration,
    depth: usize,
    mut next: impl FnMut() -> usize,
    pages: Option<&[Page]>,
) -> Result<f64> {
    let start = Instant::now();
    let mut done = 0u64;
    while start.elapsed() < time {
        for queue in queues.iter_mut() {
            while queue.under_way() < depth {
                let number = next();
                let page = pages.map(|pages| &pages[number]);
                queue.submit(&if page.is_some() { put(number) } else { get(number) }, page)?;
            }
            done += collect(queue)?;
        }
    }
    let rate = done as f64 / start.elapsed().as_secs_f64();
    for queue in queues.iter_mut() {
        drain(queue)?;
    }
    Ok(rate)
}

/// Takes what is used.
fn collect(queue: &mut Queue) -> Result<u64> {
    let mut done = 0;
    while let Some(used) = queue.poll() {
        ensure!(
            used.status == Status::Ok as u16,
            "{} was answered with status {}",
            queue.asked(used.slot),
            used.status
        );
        done += 1;
    }
    queue.keep_quiet();
    Ok(done)
}

fn drain(queue: &mut Queue) -> Result<()> {
    while queue.under_way() > 0 {
        collect(queue)?;
    }
    Ok(())
}

/// One guest with 32 requests under way.
pub(super) fn deep(device: &mut Device, pages: &[Page], time: Duration) -> Result<Rates> {
    let mut random = Random::new(5);
    let mut queues = [&mut device.queues[0]];
    let get = rate(&mut queues, time, DEPTH, || random.below(pages.len()), None)?;
    let put = rate(&mut queues, time, DEPTH, || random.below(pages.len()), Some(pages))?;
    Ok(Rates { put, get })
}

/// Gets of all guests together.
pub(super) fn wide(devices: &mut [Device], pages: usize, time: Duration) -> Result<f64> {
    let mut random = Random::new(6);
    let depth = (DEPTH / devices.len()).max(4);
    let mut queues: Vec<_> = devices.iter_mut().map(|device| &mut device.queues[0]).collect();
    rate(&mut queues, time, depth, || random.below(pages), None)
}

/// What others do meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flood {
    Nothing,
    Puts,
    Flushes,
}

/// One guest's gets, one at a time, while others keep their queues full.
pub(super) fn flooded(
    victim: &mut Queue,
    others: &mut [Device],
    pages: &[Page],
    flood: Flood,
    time: Duration,
) -> Result<Times> {
    let mut random = Random::new(7);
    let mut times = Times::default();
    let start = Instant::now();
    let mut asked = None;
    while start.elapsed() < time {
        match asked {
            None => {
                victim.submit(&get(random.below(pages.len())), None)?;
                asked = Some(Instant::now());
            }
            Some(since) => {
                if collect(victim)? > 0 {
                    times.add(since.elapsed());
                    asked = None;
                }
            }
        }
        for device in others.iter_mut() {
            let queue = &mut device.queues[0];
            // A page at a time, so that the victim is looked at often.
            if flood != Flood::Nothing && queue.has_room() {
                let number = random.below(pages.len());
                let (request, page): (Request, Option<&[u8; PAGE_SIZE]>) = match flood {
                    Flood::Flushes => (flush(number), None),
                    _ => (put(number), Some(&pages[number])),
                };
                queue.submit(&request, page)?;
            }
            collect(queue)?;
        }
    }
    drain(victim)?;
    for device in others {
        drain(&mut device.queues[0])?;
    }
    Ok(times)
}
