// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the keeper, or anybody else, may see of the ledger while a worker writes to it: each
//! interleaving, and whatever order of stores a processor may show.
//!
//! Who writes does so in the thread of the model, which goes first. Of a store loom asks what else
//! may come before it by the last access alone, and the writer's own look at what it is about to
//! store to is that one: who reads first would be all that it ever tried.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use zcache_protocol::RequestResult;
use zerocopy::IntoBytes;

use super::record::Record;
use super::restore::RestoreLedger;
use super::service::{Attempt, QueueLedger};

/// Versions are told from each other by both words.
type Small = Record<[u64; 2], 2>;

fn version(number: u64) -> [u64; 2] {
    [number, number << 32]
}

/// A record with a version, to which others are written at the same time as it is looked at.
fn look_during(writes: &'static [u64], look: fn(&Small)) {
    loom::model(move || {
        let record = Arc::new(Small::unwritten());
        record.write(&version(1));
        let theirs = Arc::clone(&record);
        let reader = thread::spawn(move || look(&theirs));
        writes.iter().for_each(|number| record.write(&version(*number)));
        reader.join().expect("the reader does not panic");
        assert_eq!(record.read(), writes.last().map(|number| version(*number)), "after all");
    });
}

#[test]
fn who_reads_a_record_while_it_is_written_sees_the_one_version_or_the_other() {
    look_during(&[2], |record| {
        let read = || record.read().expect("the copy that is valid is not written to");
        let seen = [read(), read()];
        let [one, other] = [1, 2].map(version);
        assert!(seen == [one, one] || seen == [one, other] || seen == [other, other], "{seen:?}");
    });
}

#[test]
fn who_reads_a_record_for_longer_than_it_is_valid_sees_none_or_one_that_is_whole() {
    look_during(&[2, 3], |record| {
        let seen = record.read();
        assert!(seen.is_none_or(|seen| [1, 2, 3].map(version).contains(&seen)), "{seen:?} is mixed");
    });
}

fn result(number: u64) -> RequestResult {
    RequestResult { status: 1.into(), value: (number + 70).into(), ..RequestResult::default() }
}

#[test]
fn a_request_that_counts_as_done_has_its_result_and_a_plan_is_whole() {
    loom::model(|| {
        let queue = Arc::new(QueueLedger::unused());
        let theirs = Arc::clone(&queue);
        let next = thread::spawn(move || {
            // As the next worker would, if this moment were the other's last.
            let Attempt::From(done) = theirs.take(7) else { panic!("it was taken twice") };
            for number in 0..done {
                assert_eq!(theirs.result(number).as_bytes(), result(number as u64).as_bytes(), "of request {number}");
            }
            assert!(theirs.planned(0).is_none_or(|plan| plan == [5, 6]), "half a plan");
        });
        assert_eq!(queue.take(7), Attempt::From(0));
        queue.plan(0, [5, 6]);
        queue.done(0, &result(0));
        next.join().expect("the next worker does not panic");
    });
}

#[test]
fn a_guest_is_under_way_until_the_last_thread_is_done_with_it() {
    loom::model(|| {
        let guest = Arc::new(RestoreLedger::default());
        let is_over = Arc::new(AtomicBool::new(false));
        let (theirs, over) = (Arc::clone(&guest), Arc::clone(&is_over));
        guest.begin();
        let part = thread::spawn(move || {
            theirs.begin();
            theirs.end();
            over.store(true, Ordering::Release);
            theirs.end();
        });
        let was_under_way = guest.is_under_way();
        assert!(was_under_way || is_over.load(Ordering::Relaxed), "one thread has ended the other's part");
        part.join().expect("the thread does not panic");
        assert!(!guest.is_under_way());
    });
}
