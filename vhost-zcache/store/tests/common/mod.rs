// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages the tests recognise.

use std::fs::File;
use std::os::unix::fs::FileExt;

use zcache_store::{PAGE_SIZE, Page};

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

/// One step of the splitmix64 generator.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
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
