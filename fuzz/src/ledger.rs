// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What one worker leaves to the next, in memory in which anything may stand: the words of queues
//! and guests, records of sessions, and a session that is made of such a record.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use arbitrary::{Arbitrary, Unstructured};
use vhost_zcache::device::request::OFFERED;
use vhost_zcache::device::session::Session;
use vhost_zcache::device::ticket::Ticket;
use vhost_zcache::ledger::Ledger;
use vhost_zcache::ledger::service::Attempt;
use vhost_zcache::ledger::session::SessionState;
use zcache_store::{Background, GuestConfig, PoolId, PoolKind, Store, StoreConfig};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const GUESTS: usize = 2;
const QUEUES: u16 = 2;
/// Most requests of one chain.
const REQUESTS: usize = 32;

/// A part of the file that is written over; its place is taken modulo the file's length.
#[derive(Arbitrary, Debug)]
struct Written<'a> {
    at: u16,
    word: bool,
    bytes: &'a [u8],
}

struct Workplace {
    ledger: Ledger,
    file: File,
    empty: Vec<u8>,
    store: Store,
}

fn workplace() -> Workplace {
    let (ledger, file) = Ledger::create(GUESTS, QUEUES).expect("there is memory");
    let mut empty = vec![0; usize::try_from(file.metadata().expect("it has a length").len()).expect("it is small")];
    file.read_exact_at(&mut empty, 0).expect("it can be read");
    let store = StoreConfig { background: Background::Manual, shards: 1, ..StoreConfig::new(64 << 20) };
    Workplace { ledger, file, empty, store: Store::new(store).expect("a store is made") }
}

/// Writes the bytes to the ledger, and takes over what is there then.
pub fn run(data: &[u8]) {
    static WORKPLACE: OnceLock<Workplace> = OnceLock::new();
    let Workplace { ledger, file, empty, store } = WORKPLACE.get_or_init(workplace);
    let mut bytes = Unstructured::new(data);
    // Behind the header, which never changes, and which is looked at before anything else.
    let header = 64;
    file.write_all_at(&empty[header..], header as u64).expect("it can be written");
    let of_session = bytes.arbitrary::<bool>().unwrap_or_default();
    while let Ok(Written { at, word, bytes: written }) = bytes.arbitrary() {
        if bytes.is_empty() && written.is_empty() {
            break;
        }
        let at = header + usize::from(at) % (empty.len() - header);
        let at = if word { at & !7 } else { at };
        let length = written.len().min(empty.len() - at);
        file.write_all_at(&written[..length], at as u64).expect("it can be written");
    }
    for guest in 0..GUESTS {
        for queue in ledger.queues(guest) {
            let _ = (queue.in_service(), queue.progress(), queue.is_quarantined());
            for number in 0..REQUESTS {
                let _ = (queue.result(number), queue.planned(number));
            }
            match queue.take(7) {
                Attempt::From(first) => assert!(first <= REQUESTS, "{first} requests were done"),
                Attempt::Poisoned => assert!(!matches!(queue.take(7), Attempt::From(_)), "it is served after all"),
            }
            queue.forgive();
            queue.complete();
            assert_eq!(queue.take(8), Attempt::From(0), "a chain is not the next one");
            queue.forget();
            assert!(queue.progress().is_none() && !queue.is_quarantined());
        }
        let restore = ledger.restore(guest);
        let _ = restore.worker_died(true);
        restore.begin();
        restore.end();
        restore.absolve();
        restore.forget();
        assert!(!restore.is_quarantined());
        let noted = ledger.session(guest).read();
        // A record with a checksum that is right is rather made than found.
        let noted = noted.or_else(|| of_session.then(|| state_of(data)));
        if let Some(noted) = noted {
            take_over(store, ledger, guest, noted);
        }
    }
    store.maintain(std::time::Duration::ZERO, std::time::Duration::ZERO);
}

/// A session of the bytes, with which the record of one is filled.
fn state_of(data: &[u8]) -> SessionState {
    let mut state = SessionState::new_zeroed();
    let bytes = state.as_mut_bytes();
    for (to, from) in bytes.iter_mut().zip(data.iter().chain(data).chain(data)) {
        *to = *from;
    }
    SessionState::read_from_bytes(bytes).unwrap_or_default()
}

/// Makes a session of what was noted, which is noted the same, and says HELLO in it.
fn take_over(store: &Store, ledger: &Ledger, number: usize, noted: SessionState) {
    let guest = store.register_guest(GuestConfig::new("found"));
    guest.create_pool(PoolId(1), PoolKind::Persistent).expect("a pool is made");
    let record = ledger.session(number);
    let (open, stopped) = (noted.open != 0, noted.stopped().collect::<Vec<_>>());
    let session = Session::restore(guest, vec![[7; 16]], record, noted);
    assert_eq!(session.access().is_ok(), open, "a session is open that was not, or the other way round");
    let again = record.read().expect("a record was written");
    assert_eq!(again.stopped().collect::<Vec<_>>(), stopped, "rings have stopped somewhere else");
    let queue = &ledger.queues(number)[0];
    assert_eq!(queue.take(0), Attempt::From(0));
    let welcome = session.hello([5; 16], OFFERED, Ticket::new(queue, 0));
    queue.complete();
    assert_eq!(queue.take(1), Attempt::From(0));
    let again = session.hello([5; 16], OFFERED, Ticket::new(queue, 0));
    assert!(again.resumed && again.epoch == welcome.epoch, "{welcome:?} became {again:?}");
    queue.forget();
    assert!(record.read().is_some_and(|noted| noted.open != 0 && noted.epoch == again.epoch));
}
