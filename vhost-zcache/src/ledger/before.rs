// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ledger of the release before, which a keeper that goes on where that one has ended makes one
//! of today's.
//!
//! Layout 3 is layout 4 without the session's trust domain and features, and without the counts of
//! WANTED: a guest of it has acknowledged no features, and shares pools as the configuration says.

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;

use zerocopy::{FromBytes as _, FromZeros as _};

use super::adopt::words;
use super::record::Record;
use super::restore::RestoreLedger;
use super::service::QueueLedger;
use super::session::SessionState;
use super::{Header, LINE, Layout, Ledger};
use crate::device::counters::QueueCounters;

/// What layout 3 says of itself.
const LAYOUT: u64 = u64::from_le_bytes(*b"zcacheL\x03");

/// Bytes of a session.
const SESSION: usize = size_of::<SessionState>() - (SessionState::ADDED.end - SessionState::ADDED.start);

/// Bytes of a queue that layout 3 does not have.
const ADDED_TO_QUEUE: Range<usize> = {
    let counters = offset_of!(QueueLedger, counters);
    counters + QueueCounters::OF_WANTED.start..counters + QueueCounters::OF_WANTED.end
};

/// Bytes of a queue, the last of which are of no meaning.
const QUEUE: usize = {
    let end = offset_of!(QueueLedger, counters) + size_of::<QueueCounters>();
    (end - (ADDED_TO_QUEUE.end - ADDED_TO_QUEUE.start)).next_multiple_of(LINE)
};

impl Ledger {
    /// Makes a ledger with all that is in one of the layout before, to which nobody writes any
    /// more; its file, too.
    ///
    /// # Errors
    ///
    /// When that is none, or the host does not give the memory.
    pub fn convert(file: &File) -> io::Result<(Self, File)> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not a ledger of this version or the one before");
        let length = usize::try_from(file.metadata()?.len()).map_err(|_| wrong())?;
        let mut header = [0; size_of::<Header>()];
        file.read_exact_at(&mut header, 0)?;
        let number = |at: usize| {
            let bytes = header[at..].first_chunk().copied().unwrap_or_default();
            u64::from_ne_bytes(bytes)
        };
        let guests = usize::try_from(number(offset_of!(Header, guests))).map_err(|_| wrong())?;
        let queues = u16::try_from(number(offset_of!(Header, queues))).map_err(|_| wrong())?;
        let layout = Layout::of(guests, queues.into(), QUEUE).filter(|layout| layout.bytes == length);
        let layout = layout.filter(|_| number(offset_of!(Header, magic)) == LAYOUT).ok_or_else(wrong)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0)?;

        let (ledger, file) = Self::create(guests, queues)?;
        fill::<Record<SessionState>>(ledger.sessions, &bytes[size_of::<Header>()..]);
        fill::<RestoreLedger>(ledger.restores, &bytes[layout.restores_at..]);
        for (queue, bytes) in ledger.queues.iter().zip(bytes[layout.queues_at..].chunks(QUEUE)) {
            fill::<QueueLedger>(std::slice::from_ref(queue), &widened(bytes, ADDED_TO_QUEUE));
        }
        for session in ledger.sessions {
            if let Some(before) = session.read_first(SESSION) {
                session.write(&widened_session(&before));
            }
        }
        Ok((ledger, file))
    }
}

fn widened_session(before: &[u8]) -> SessionState {
    let bytes = widened(before, SessionState::ADDED);
    SessionState::read_from_bytes(&bytes).unwrap_or_else(|_| SessionState::new_zeroed())
}

/// What has zeros where the layout before has nothing.
fn widened(before: &[u8], added: Range<usize>) -> Vec<u8> {
    let (first, rest) = before.split_at(added.start);
    [first, &vec![0; added.len()], rest].concat()
}

/// Fills entries of a ledger that nobody else has yet.
fn fill<T>(entries: &[T], bytes: &[u8]) {
    for (word, bytes) in words(entries).iter().zip(bytes.as_chunks::<8>().0) {
        word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zcache_protocol::{Opcode, Status};
    use zerocopy::IntoBytes as _;

    use super::*;
    use crate::ledger::service::Attempt;

    /// What is in the entries of a ledger.
    fn contents<T>(entries: &[T]) -> Vec<u8> {
        words(entries).iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect()
    }

    fn narrowed(mut now: Vec<u8>, added: Range<usize>) -> Vec<u8> {
        now.drain(added);
        now
    }

    /// A file of layout 3 with what of a ledger that can have.
    fn before(now: &Ledger, guests: usize, queues: usize) -> File {
        let layout = Layout::of(guests, queues, QUEUE).unwrap();
        let mut bytes = [LAYOUT, guests as u64, queues as u64, 1].as_bytes().to_vec();
        bytes.resize(size_of::<Header>(), 0);
        for guest in 0..guests {
            let record: Box<Record<[u8; SESSION]>> = Box::new(Record::unwritten());
            if let Some(session) = now.session(guest).read() {
                let session = narrowed(session.as_bytes().to_vec(), SessionState::ADDED);
                record.write(session.as_slice().try_into().unwrap());
            }
            bytes.extend(contents(std::slice::from_ref(&*record)));
        }
        bytes.resize(layout.restores_at, 0);
        bytes.extend(contents(now.restores));
        bytes.resize(layout.queues_at, 0);
        for queue in now.queues {
            let mut queue = narrowed(contents(std::slice::from_ref(queue)), ADDED_TO_QUEUE);
            queue.resize(QUEUE, 0);
            bytes.extend(queue);
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn what_the_release_before_has_written_is_there() {
        let (made, _file) = Ledger::create(3, 2).unwrap();
        let mut session = SessionState::new(7, 1);
        session.epoch = 11;
        session.join(5, [3; 16]);
        made.session(1).write(&session);
        made.restore(2).begin();
        assert_eq!(made.queues(1)[1].take(9), Attempt::From(0));
        made.queues(1)[1].counters.count_request(Opcode::Put as u16, Status::Ok);
        made.queues(1)[1].counters.count_request(0, Status::Unsupported);
        made.queues(1)[1].counters.count_chain(true);

        let (ledger, file) = Ledger::convert(&before(&made, 3, 2)).unwrap();
        assert_eq!(ledger.session(1).read(), Some(session));
        assert!(ledger.restore(2).is_under_way() && !ledger.restore(1).is_under_way());
        for (is, was) in ledger.all_queues().iter().zip(made.all_queues()) {
            assert_eq!(contents(std::slice::from_ref(is)), contents(std::slice::from_ref(was)));
        }
        assert!(Ledger::open(&file).is_ok(), "it is none of today's");
    }

    #[test]
    fn what_is_no_ledger_of_before_is_refused() {
        let (made, file) = Ledger::create(2, 1).unwrap();
        assert!(Ledger::convert(&file).is_err(), "one of today's");
        let file = before(&made, 2, 1);
        let length = file.metadata().unwrap().len();
        file.set_len(length - 64).unwrap();
        assert!(Ledger::convert(&file).is_err(), "one that is too short");
        assert!(Ledger::convert(&tempfile::tempfile().unwrap()).is_err(), "an empty file");
    }
}
