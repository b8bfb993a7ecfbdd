// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One chain as a batch: reads requests and pages once, checks the lengths, writes results.

use std::ops::Range;

use zcache_protocol as wire;
use zcache_protocol::{Opcode, PAGE_SIZE, RequestResult, Status};
use zcache_store::{Page, Scratch};
use zerocopy::{FromZeros, IntoBytes};

use super::chain::{Chain, stream_length};
use super::execute::Executor;
use super::guest_memory::{Memory, MemoryError, Reader, Writer};
use crate::crash::{self, Place};

/// Most requests in one chain. Enough to make the cost of a kick small, and small enough that a
/// queue can be stopped, and a HELLO let in, within a fraction of a millisecond.
pub const MAX_BATCH: u16 = 32;

const MAX_REQUESTS: usize = MAX_BATCH as usize;
const HEADER_SIZE: usize = size_of::<wire::Batch>();
const REQUEST_SIZE: usize = size_of::<wire::Request>();
const RESULT_SIZE: usize = size_of::<RequestResult>();
const ZEROS: Page = [0; PAGE_SIZE];

/// How a chain was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Length for the used ring.
    pub written: u32,
    /// Whether the chain was a batch: ZC-DEV-8.
    pub well_formed: bool,
    /// Puts in it.
    pub puts: u64,
    /// Gets in it.
    pub gets: u64,
}

/// What is in a batch.
#[derive(Clone, Copy)]
struct Load {
    requests: usize,
    puts: usize,
    gets: usize,
}

/// What it takes to serve a chain, allocated once per reactor.
pub struct Batch {
    requests: Box<[wire::Request; MAX_REQUESTS]>,
    results: Box<[RequestResult; MAX_REQUESTS]>,
    page: Box<Page>,
    scratch: Scratch,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            requests: Box::new([wire::Request::new_zeroed(); MAX_REQUESTS]),
            results: Box::new([RequestResult::default(); MAX_REQUESTS]),
            page: Box::new(ZEROS),
            scratch: Scratch::new(),
        }
    }
}

impl Batch {
    /// Executes the chain from the `first` request on and writes its results. Those before were
    /// carried out, and their pages written, by a process that died; their results are noted.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] when the chain's memory has gone since the chain was collected.
    pub fn serve(
        &mut self,
        memory: &Memory,
        chain: &Chain,
        executor: &Executor,
        first: usize,
    ) -> Result<Served, MemoryError> {
        let mut input = Reader::new(memory, chain.readable());
        match self.read_requests(&mut input, chain)? {
            Some(Load { requests, puts, gets }) => {
                let written = self.execute(first..requests, input, memory, chain, executor)?;
                let well_formed = true;
                Ok(Served { written, well_formed, puts: puts as u64, gets: gets as u64 })
            }
            None => refuse(memory, chain),
        }
    }

    /// Reads the batch header and the requests; what there is, or `None` when the lengths of the
    /// streams are not those of a batch.
    fn read_requests(&mut self, input: &mut Reader<'_>, chain: &Chain) -> Result<Option<Load>, MemoryError> {
        let readable = stream_length(chain.readable());
        if readable < HEADER_SIZE as u64 {
            return Ok(None);
        }
        let mut header = wire::Batch::default();
        input.read(header.as_mut_bytes())?;
        let count = usize::from(header.count.get());
        if header.reserved16 != 0 || header.reserved32 != 0 || !(1..=MAX_REQUESTS).contains(&count) {
            return Ok(None);
        }
        let requests_end = HEADER_SIZE + count * REQUEST_SIZE;
        if readable < requests_end as u64 {
            return Ok(None);
        }
        let requests = &mut self.requests[..count];
        input.read(requests.as_mut_bytes())?;

        let of_opcode = |opcode: Opcode| requests.iter().filter(|r| r.header.opcode == opcode as u16).count();
        let (puts, gets) = (of_opcode(Opcode::Put), of_opcode(Opcode::Get));
        let readable_size = requests_end + puts * PAGE_SIZE;
        let writable_size = count * RESULT_SIZE + gets * PAGE_SIZE;
        let fits = readable == readable_size as u64 && stream_length(chain.writable()) >= writable_size as u64;
        Ok(fits.then_some(Load { requests: count, puts, gets }))
    }

    fn execute(
        &mut self,
        Range { start: first, end: count }: Range<usize>,
        mut input: Reader<'_>,
        memory: &Memory,
        chain: &Chain,
        executor: &Executor,
    ) -> Result<u32, MemoryError> {
        let mut pages = Writer::new(memory, chain.writable());
        let results_size = count * RESULT_SIZE;
        pages.skip(results_size)?;
        let mut written = results_size;
        // Pages between `written` and the one of the next GET, of GETs that did not hit.
        let mut gap = 0;

        let results = &mut self.results[..count];
        for (number, (request, result)) in self.requests.iter().zip(results.iter_mut()).enumerate() {
            let was_done = number < first;
            let opcode = Opcode::from_wire(request.header.opcode.get());
            if opcode == Some(Opcode::Put) {
                input.read(self.page.as_mut_slice())?;
            }
            *result = if was_done {
                executor.queue().result(number)
            } else {
                executor.execute(number, request, &mut self.page, &mut self.scratch)
            };
            if opcode == Some(Opcode::Get) {
                if result.status == Status::Ok as u16 {
                    if was_done {
                        pages.skip((gap + 1) * PAGE_SIZE)?;
                    } else {
                        for _ in 0..gap {
                            pages.write(&ZEROS)?;
                        }
                        pages.write(self.page.as_slice())?;
                        crash::point(Place::PageWritten);
                    }
                    written += (gap + 1) * PAGE_SIZE;
                    gap = 0;
                } else {
                    gap += 1;
                }
            }
            if !was_done {
                executor.queue().done(number, result);
            }
        }
        Writer::new(memory, chain.writable()).write(results.as_bytes())?;
        crash::point(Place::ResultsWritten);
        // At most MAX_BATCH results and pages, far below 2^32.
        Ok(u32::try_from(written).unwrap_or(u32::MAX))
    }
}

/// Answers a chain that is not a batch.
fn refuse(memory: &Memory, chain: &Chain) -> Result<Served, MemoryError> {
    let mut written = 0;
    if stream_length(chain.writable()) >= RESULT_SIZE as u64 {
        let result = RequestResult { status: (Status::Malformed as u16).into(), ..RequestResult::default() };
        Writer::new(memory, chain.writable()).write(result.as_bytes())?;
        written = u32::try_from(RESULT_SIZE).unwrap_or(u32::MAX);
    }
    let well_formed = false;
    Ok(Served { written, well_formed, puts: 0, gets: 0 })
}
