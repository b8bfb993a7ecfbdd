// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Private memory of the host for the index, as runs of pages that come and go one by one.

use std::slice;

use super::backing;
use super::host::{HOST_PAGE, HUGE_PAGE, NoMemory};
use super::prefetch::prefetch;
use crate::fault::Faults;

/// Pages in a [`PageRun`]: as many as a huge page has.
pub(crate) const RUN_PAGES: usize = HUGE_PAGE / HOST_PAGE;
/// 32-bit cells on a page of a run.
pub(crate) const PAGE_CELLS: usize = HOST_PAGE / 4;

/// A run of private pages for the index, each of which can be given back on its own.
pub(crate) struct PageRun {
    mapping: backing::Private,
    faults: Faults,
}

impl PageRun {
    pub(crate) fn new(faults: Faults) -> Result<Self, NoMemory> {
        faults.check()?;
        let mapping = backing::Private::new(RUN_PAGES * HOST_PAGE)?;
        Ok(Self { mapping, faults })
    }

    /// A run that is resident as a whole, on one huge page if the host has one.
    pub(crate) fn new_huge(faults: Faults) -> Result<Self, NoMemory> {
        faults.check()?;
        let mapping = backing::Private::new_huge(RUN_PAGES * HOST_PAGE)?;
        Ok(Self { mapping, faults })
    }

    /// All cells of the run; those of pages that are not resident read as zero.
    pub(crate) fn cells(&self) -> &[u32] {
        // SAFETY: the mapping is exclusively ours, aligned to a page and zero-initialised by the
        // host; `&self` excludes writers.
        unsafe { slice::from_raw_parts(self.mapping.base().cast().as_ptr(), RUN_PAGES * PAGE_CELLS) }
    }

    /// All cells of the run. Write only to populated pages.
    pub(crate) fn cells_mut(&mut self) -> &mut [u32] {
        // SAFETY: as in `cells`; `&mut self` excludes all other access.
        unsafe { slice::from_raw_parts_mut(self.mapping.base().cast().as_ptr(), RUN_PAGES * PAGE_CELLS) }
    }

    /// Asks for the cache line of a cell, to be read soon. Whether the cell exists does not matter.
    pub(crate) fn prefetch(&self, cell: usize) {
        prefetch(self.mapping.base().cast::<u32>().as_ptr().wrapping_add(cell).cast());
    }

    /// Makes a page resident.
    pub(crate) fn populate(&mut self, page: usize) -> Result<(), NoMemory> {
        self.faults.check()?;
        self.mapping.populate(page * HOST_PAGE, HOST_PAGE)
    }

    /// Gives a page back; it reads as zeroes afterwards.
    pub(crate) fn discard(&mut self, page: usize) {
        self.mapping.discard(page * HOST_PAGE, HOST_PAGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_was_given_back_is_empty() {
        let mut run = PageRun::new(Faults::default()).expect("there is memory");
        run.populate(1).expect("there is memory");
        run.cells_mut()[PAGE_CELLS..2 * PAGE_CELLS].fill(5);
        run.discard(1);
        assert!(run.cells().iter().all(|cell| *cell == 0));
    }
}
