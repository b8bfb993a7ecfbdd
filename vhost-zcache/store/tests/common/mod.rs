// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages the tests recognise.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use zcache_store::{PAGE_SIZE, Page, Store};

/// Waits until the background has given all memory of guests that are gone back.
#[allow(dead_code, reason = "not every test that uses this module lets guests go")]
pub(crate) fn wait_until_empty(store: &Store) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.stats().physical_bytes > 0 {
        assert!(Instant::now() < deadline, "memory is charged to guests that are gone: {:?}", store.stats());
        thread::sleep(Duration::from_millis(1));
    }
}

/// The page of a seed: same-filled, compressible or incompressible, different for each seed.
pub(crate) fn page(seed: u32) -> Page {
    let mut page = [0; PAGE_SIZE];
    let word = (u64::from(seed) << 8 | 1).to_le_bytes();
    match seed % 3 {
        0 => page.as_chunks_mut::<8>().0.fill(word),
        1 => {
            let text = page.as_chunks_mut::<8>().0;
            let used = 20 + (seed as usize / 3) % 200;
            let mut state = u64::from(seed);
            for chunk in &mut text[..used] {
                *chunk = next(&mut state).to_le_bytes();
            }
        }
        _ => {
            let mut state = u64::from(seed);
            for chunk in page.as_chunks_mut::<8>().0 {
                *chunk = next(&mut state).to_le_bytes();
            }
        }
    }
    page
}

/// The seed of a page that `page` made: it is in the first word of the same-filled, and found by
/// trying for the others, which start with the first number of their seed.
#[allow(dead_code, reason = "not every test that uses this module reads seeds")]
pub(crate) fn seed_of(content: &Page) -> Option<u32> {
    let first = u64::from_le_bytes(*content.first_chunk()?);
    let known = |seed: u32| (page(seed) == *content).then_some(seed);
    // Undo the first step of splitmix64 from the state `seed`.
    let seed = unmix(first).wrapping_sub(STEP);
    u32::try_from(seed).ok().and_then(known).or_else(|| u32::try_from(first >> 8).ok().and_then(known))
}

/// A stream of numbers that a seed decides.
#[allow(dead_code, reason = "not every test that uses this module rolls dice")]
pub(crate) struct Numbers(u64);

#[allow(dead_code, reason = "not every test that uses this module rolls dice")]
impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        next(&mut self.0) % limit
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.below(from.len() as u64);
        &from[usize::try_from(at).expect("an index of a slice")]
    }
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The inverse of the mixing in `next`.
fn unmix(mixed: u64) -> u64 {
    let mut z = mixed ^ (mixed >> 31) ^ (mixed >> 62);
    z = z.wrapping_mul(inverse(0x94d0_49bb_1331_11eb));
    z ^= (z >> 27) ^ (z >> 54);
    z = z.wrapping_mul(inverse(0xbf58_476d_1ce4_e5b9));
    z ^ (z >> 30) ^ (z >> 60)
}

/// The number that undoes multiplication by an odd one, by Newton's method.
fn inverse(odd: u64) -> u64 {
    (0..6).fold(odd, |guess, _| guess.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(guess))))
}

/// One step of the splitmix64 generator.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(STEP);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Changes one byte of a file, unless it was never written.
#[allow(dead_code, reason = "not every test that uses this module damages files")]
pub(crate) fn damage(file: &File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("the file is that long");
    if byte != [0] {
        file.write_all_at(&[byte[0] ^ 0x40], at).expect("the file can be written");
    }
}

/// A copy of a memory file as it is now.
#[allow(dead_code, reason = "not every test that uses this module makes a store twice")]
pub(crate) fn copy(file: &File) -> File {
    let copy = File::from(memfd_create("copy", MemfdFlags::CLOEXEC).expect("a file is made"));
    copy.set_len(file.metadata().expect("a file has a length").len()).expect("a file can be of that length");
    let mut at = 0;
    while let Ok(data) = seek(file, SeekFrom::Data(at)) {
        let end = seek(file, SeekFrom::Hole(data)).expect("data ends somewhere");
        let mut bytes = vec![0; usize::try_from(end - data).expect("it was in memory")];
        file.read_exact_at(&mut bytes, data).expect("the file can be read");
        copy.write_all_at(&bytes, data).expect("there is memory");
        at = end;
    }
    copy
}
