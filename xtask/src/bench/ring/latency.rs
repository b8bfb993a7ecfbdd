// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One request at a time.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use zcache_protocol::{Opcode, PAGE_SIZE, Status};
use zcache_store::Page;

use super::bare::{Bare, Mode};
use super::device::{Device, get, put};
use super::queue::{Queue, request};
use crate::bench::codec::{Codec, Encoded};
use crate::bench::random::Random;

/// Requests of each kind in a turn.
const TURN: usize = 500;

/// Longer than a device looks at an empty ring.
const PAUSE: Duration = Duration::from_millis(1);
/// Requests of a turn of which each follows a pause.
const KICKED_TURN: usize = 50;

/// Times, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<f64>);

impl Times {
    pub(super) fn add(&mut self, time: Duration) {
        self.0.push(time.as_nanos() as f64);
    }

    /// A time that this part of all is not above.
    pub(super) fn quantile(&mut self, part: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        let last = self.0.len().saturating_sub(1);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let at = (part * last as f64).round() as usize;
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// What one request at a time takes, and what it would take at least.
#[derive(Debug, Default)]
pub(super) struct Latency {
    pub(super) bare: Times,
    pub(super) decompress: Times,
    pub(super) compress: Times,
    pub(super) get: Times,
    pub(super) put: Times,
    pub(super) kicked_bare: Times,
    pub(super) kicked: Times,
}

/// Everything in turns, so that noise of the machine meets all.
pub(super) fn measure(device: &mut Device, pages: &[Page], turns: usize) -> Result<Latency> {
    let mut latency = Latency::default();
    let mut codec = Codec::new();
    let kept: Vec<Encoded> = pages.iter().map(|page| codec.keep(page)).collect::<Result<_>>()?;
    let mut out = [0; PAGE_SIZE];
    let mut random = Random::new(3);
    let queue = &mut device.queues[0];
    for _ in 0..turns {
        {
            let mut bare = Bare::start(Mode::Poll)?;
            for _ in 0..TURN {
                let start = Instant::now();
                bare.queue.submit(&get(0), None)?;
                bare.queue.spin();
                latency.bare.add(start.elapsed());
            }
        }
        for _ in 0..TURN {
            let number = random.below(pages.len());
            latency.decompress.add(timed(|| kept[number].decode(&mut out))?);
            latency.compress.add(timed(|| codec.encode(&pages[number]).map(<[u8]>::len))?);
        }
        for _ in 0..TURN {
            let number = random.below(pages.len());
            latency.get.add(timed(|| ask(queue, number, None))?);
        }
        for _ in 0..TURN {
            let number = random.below(pages.len());
            latency.put.add(timed(|| ask(queue, number, Some(&pages[number])))?);
        }
        kicked(queue, &mut latency)?;
    }
    Ok(latency)
}

fn ask(queue: &mut Queue, number: usize, page: Option<&[u8; PAGE_SIZE]>) -> Result<()> {
    let request = if page.is_some() { put(number) } else { get(number) };
    queue.submit(&request, page)?;
    let used = queue.spin();
    ensure!(used.status == Status::Ok as u16, "page {number} was answered with status {}", used.status);
    Ok(())
}

fn timed<T>(what: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let start = Instant::now();
    black_box(what()?);
    Ok(start.elapsed())
}

/// Round trips in which both sides sleep, of requests that cost nothing.
fn kicked(queue: &mut Queue, latency: &mut Latency) -> Result<()> {
    let mut bare = Bare::start(Mode::Kick)?;
    // Of a pool that is not there.
    let nothing = request(Opcode::FlushPool, 77, 0, &[]);
    for _ in 0..KICKED_TURN {
        for (queue, times) in [(&mut bare.queue, &mut latency.kicked_bare), (&mut *queue, &mut latency.kicked)] {
            std::thread::sleep(PAUSE);
            let start = Instant::now();
            queue.submit(&nothing, None)?;
            queue.wait()?;
            times.add(start.elapsed());
        }
    }
    Ok(())
}
