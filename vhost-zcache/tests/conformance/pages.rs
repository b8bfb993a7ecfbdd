// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SPEC.md section 7: PUT, GET and the flushes; section 12: limits.

use std::time::{Duration, Instant};

use crate::client::daemon::Daemon;
use crate::client::wire::{EXCLUSIVE, PAGE, PERSISTENT, Page, Req, status};
use crate::client::{Client, eventually, page};

/// Pages of every kind the store treats differently.
fn all_kinds_of_pages() -> Vec<Page> {
    let mut noise = [0; PAGE];
    let mut state = 1u64;
    for byte in &mut noise {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state.to_le_bytes()[4];
    }
    let mut one_byte = [0; PAGE];
    one_byte[PAGE - 1] = 1;
    let mut words = [0; PAGE];
    for word in words.chunks_mut(8) {
        word.copy_from_slice(b"sameword");
    }
    vec![[0; PAGE], [0xff; PAGE], words, one_byte, noise, page(1), page(2)]
}

/// Conformance: ZC-DEV-27, ZC-DEV-31.
#[test]
fn a_page_comes_back_as_it_was_put_last() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    for (pool, flags) in [(1, 0), (2, PERSISTENT)] {
        guest.create(pool, flags);
        for index in [0, 1, 63, 64, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(guest.get(pool, 1, index), Err(status::MISS), "index {index} before the put");
            for (kind, content) in all_kinds_of_pages().iter().enumerate() {
                assert_eq!(guest.put(pool, 1, index, content), status::OK);
                assert_eq!(guest.get(pool, 1, index), Ok(*content), "kind {kind} at index {index}, flags {flags}");
            }
        }
        assert_eq!(guest.get(pool, 2, 0), Err(status::MISS), "another object");
        assert_eq!(guest.get(pool, 1, 2), Err(status::MISS), "another index");
    }
}

/// Conformance: ZC-DEV-28, ZC-DEV-29, ZC-DEV-30, ZC-DEV-46.
#[test]
fn a_full_guest_is_refused_and_keeps_what_was_accepted() {
    let daemon = Daemon::with(&["memory-limit=1M"], &[]);
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    guest.create(2, 0);
    let noise = all_kinds_of_pages()[4];
    let put: Vec<u16> = (0..600).map(|index| guest.put(1, 1, index, &page(index))).collect();
    assert!(put.contains(&status::REFUSED), "600 pages were accepted within 1 MiB");
    assert!(put.contains(&status::OK), "no page was accepted within 1 MiB");

    // Pages that need more room, over pages that were accepted: a refusal removes the old one.
    let mut replaced_by_nothing = 0;
    for (index, accepted) in (0..).zip(&put) {
        if *accepted == status::OK && index % 5 == 0 {
            match guest.put(1, 1, index, &noise) {
                status::OK => assert_eq!(guest.get(1, 1, index), Ok(noise), "page {index}"),
                status::REFUSED => {
                    assert_eq!(guest.get(1, 1, index), Err(status::MISS), "page {index} after a refused put");
                    replaced_by_nothing += 1;
                }
                other => panic!("a put was answered {other}"),
            }
        }
    }
    // Ephemeral pages, tiny objects and empty keys must not push anything persistent out.
    for index in 0..2000 {
        guest.put(2, (index % 251) as u8, index << 32, &page(index));
        guest.one(Req::flush_page(1, (index % 251) as u8, index << 20));
        let bytes = if index % 500 == 0 { daemon.guest_stats(0)["physical_bytes"].as_u64() } else { Some(0) };
        assert!(bytes <= Some(1 << 20), "the guest uses {bytes:?} bytes of 1 MiB");
    }
    for (index, accepted) in (0..).zip(&put) {
        let expected = if *accepted == status::OK { Ok(page(index)) } else { Err(status::MISS) };
        if index % 5 != 0 {
            assert_eq!(guest.get(1, 1, index), expected, "page {index}, accepted long ago");
        }
    }
    println!("{replaced_by_nothing} pages were removed by refused puts");
}

/// Conformance: ZC-DEV-32.
#[test]
fn an_exclusive_hit_removes_the_page() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, 0);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    let gets = [Req::get(1, 1, 1, 0), Req::get(1, 1, 1, EXCLUSIVE), Req::get(1, 1, 1, EXCLUSIVE), Req::get(1, 1, 1, 0)];
    let statuses: Vec<u16> = guest.submit(0, &gets).iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [status::OK, status::OK, status::MISS, status::MISS]);
}

/// Conformance: ZC-DEV-34.
#[test]
fn damaged_pages_are_not_returned() {
    let daemon = Daemon::with(&[""], &["--memory-limit=16M"]);
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, 0);
    guest.create(2, PERSISTENT);
    // A page that does not compress is stored as it is, so that it can be found.
    let noise = all_kinds_of_pages()[4];
    for pool in [1, 2] {
        assert_eq!(guest.put(pool, 1, 1, &noise), status::OK);
        assert_eq!(guest.put(pool, 1, 2, &page(2)), status::OK);
    }
    assert_eq!(daemon.damage(&noise[1000..1064]), 2, "places in the store's memory that hold the page");
    assert_eq!(guest.get(1, 1, 1), Err(status::MISS), "a damaged ephemeral page");
    assert_eq!(guest.get(2, 1, 1), Err(status::CORRUPT), "a damaged persistent page");
    for pool in [1, 2] {
        assert_eq!(guest.get(pool, 1, 2), Ok(page(2)), "another page of pool {pool}");
        assert_eq!(guest.put(pool, 1, 1, &page(3)), status::OK, "a new page for the damaged key");
        assert_eq!(guest.get(pool, 1, 1), Ok(page(3)));
    }
}

/// Conformance: ZC-DEV-35, ZC-DEV-36.
#[test]
fn flushes_remove_what_they_cover_and_count_it() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    for (pool, flags) in [(1, 0), (2, PERSISTENT)] {
        guest.create(pool, flags);
        let indexes = [0, 1, 2, 63, 64, 65, 4095, 1 << 32, u64::MAX - 1, u64::MAX];
        for (what, flush, gone) in [
            ("one page", Req::flush_page(pool, 1, 64), vec![64]),
            ("a page that is not there", Req::flush_page(pool, 1, 66), vec![]),
            ("a range", Req::flush_range(pool, 1, 1, 64), vec![1, 2, 63, 64]),
            ("an empty range", Req::flush_range(pool, 1, 66, 4000), vec![]),
            ("the last page", Req::flush_range(pool, 1, u64::MAX, 1), vec![u64::MAX]),
            ("to the end", Req::flush_range(pool, 1, 65, u64::MAX - 64), indexes[5..].to_vec()),
            ("all but the first", Req::flush_range(pool, 1, 1, u64::MAX), indexes[1..].to_vec()),
            ("nearly all", Req::flush_range(pool, 1, 0, u64::MAX), indexes[..9].to_vec()),
            ("the object", Req::flush_object(pool, 1), indexes.to_vec()),
            ("another object", Req::flush_object(pool, 3), vec![]),
        ] {
            for index in indexes {
                assert_eq!(guest.put(pool, 1, index, &page(index)), status::OK);
            }
            assert_eq!(guest.put(pool, 2, 64, &page(2)), status::OK);
            let answer = guest.one(flush);
            assert_eq!((answer.status, answer.value), (status::OK, gone.len() as u64), "{what}");
            for index in indexes {
                let expected = if gone.contains(&index) { Err(status::MISS) } else { Ok(page(index)) };
                assert_eq!(guest.get(pool, 1, index), expected, "{what}: index {index}");
            }
            assert_eq!(guest.get(pool, 2, 64), Ok(page(2)), "{what}: another object's page");
        }
        assert_eq!(guest.one(Req::flush_pool(pool)).value, 11, "the pool");
        assert_eq!(guest.one(Req::flush_pool(pool)).value, 0, "the empty pool");

        for (first, count) in [(0, 0), (5, 0), (2, u64::MAX), (u64::MAX, 2), (u64::MAX, u64::MAX)] {
            let answer = guest.one(Req::flush_range(pool, 1, first, count));
            assert_eq!(answer.status, status::INVALID, "{count} pages from {first}");
        }
    }
}

/// Conformance: ZC-DEV-91.
#[test]
fn what_was_removed_at_once_makes_room_at_once() {
    let daemon = Daemon::with(&[""], &["--memory-limit", "4M"]);
    let mut guest = Client::attach(&daemon.socket(0));
    let removals: [fn() -> Req; 3] = [|| Req::destroy(1), || Req::flush_pool(1), || Req::flush_object(1, 1)];
    for remove in removals {
        guest.create(1, PERSISTENT);
        let stored = (0..).take_while(|index| guest.put(1, 1, *index, &page(*index)) == status::OK).count();
        assert!(stored > 1000, "4 MiB took {stored} pages only");
        let answer = guest.one(remove());
        assert_eq!((answer.status, answer.value), (status::OK, stored as u64), "pages removed");
        guest.create(1, PERSISTENT);
        assert_eq!(guest.get(1, 1, 0), Err(status::MISS));
        for index in 0..stored as u64 / 2 {
            assert_eq!(guest.put(1, 1, index, &page(index + 1)), status::OK, "page {index} beside what was removed");
        }
        assert_eq!(guest.status(Req::destroy(1)), status::OK);
    }
    eventually("the memory has followed", || daemon.stats()["store"]["garbage_bytes"] == 0);
}

/// Conformance: ZC-DEV-37.
#[test]
fn a_flush_costs_by_its_pages() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, 0);
    for object in 0..200 {
        let batch: Vec<Req> = (0..32).map(|index| Req::put(1, object, index << 30, &page(index))).collect();
        guest.submit(0, &batch);
    }
    // By count these are 2^64 pages each; even a step for every 2^32 of them would take for ever.
    let start = Instant::now();
    for object in 0..200 {
        assert_eq!(guest.one(Req::flush_range(1, object, 1, u64::MAX - 1)).value, 31);
        assert_eq!(guest.one(Req::flush_range(1, 255, 0, u64::MAX)).value, 0, "an object without pages");
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "400 flushes took {took:?}");
}
