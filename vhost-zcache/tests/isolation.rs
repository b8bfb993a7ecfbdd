// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What one guest does is no business of another.

mod client;

use client::daemon::Daemon;
use client::wire::{EXCLUSIVE, PERSISTENT, Page, Req, SHARED, opcode, status};
use client::{Client, Setup, Shape, eventually, page};
use rustix::process::Signal;

const UUID: [u8; 16] = [0xab; 16];
const ALLOWED: &str = "allow-shared=abababab-abab-abab-abab-abababababab";

/// Conformance: ZC-DEV-45.
#[test]
fn the_same_key_of_two_guests_is_two_pages() {
    let daemon = Daemon::with(&["", ""], &[]);
    let mut one = Client::attach(&daemon.socket(0));
    let mut two = Client::attach(&daemon.socket(1));
    for guest in [&mut one, &mut two] {
        guest.create(0, PERSISTENT);
        guest.create(1, 0);
    }
    for pool in [0, 1] {
        assert_eq!(one.put(pool, 1, 1, &page(1)), status::OK);
        assert_eq!(two.get(pool, 1, 1), Err(status::MISS), "guest two reads a page of guest one");
        assert_eq!(two.put(pool, 1, 1, &page(2)), status::OK);
        assert_eq!(one.get(pool, 1, 1), Ok(page(1)), "guest two has replaced a page of guest one");
        two.one(Req::flush_pool(pool));
        assert_eq!(one.get(pool, 1, 1), Ok(page(1)), "guest two has flushed a page of guest one");
        two.one(Req::destroy(pool));
        assert_eq!(one.get(pool, 1, 1), Ok(page(1)), "guest two has destroyed a pool of guest one");
    }
    two.hello(9);
    drop(two);
    eventually("guest two is gone", || daemon.guest_stats(1)["connected"] == false);
    assert_eq!(one.get(0, 1, 1), Ok(page(1)), "guest one loses a page with guest two's end");
    assert_eq!(one.get(1, 1, 1), Ok(page(1)));
}

#[test]
fn a_shared_pool_is_for_those_the_operator_named() {
    let daemon = Daemon::with(&[ALLOWED, ALLOWED, ""], &[]);
    let mut one = Client::attach(&daemon.socket(0));
    let mut two = Client::attach(&daemon.socket(1));
    let mut stranger = Client::attach(&daemon.socket(2));
    assert_eq!(one.status(Req::create(1, SHARED, UUID)), status::OK);
    assert_eq!(two.status(Req::create(2, SHARED, UUID)), status::OK);
    assert_eq!(stranger.status(Req::create(1, SHARED, UUID)), status::DENIED);
    assert_eq!(stranger.status(Req::flush_pool(1)), status::NO_POOL, "a denied pool was created");
    assert_eq!(one.status(Req::create(3, SHARED, [1; 16])), status::DENIED, "another UUID");

    assert_eq!(one.put(1, 7, 7, &page(1)), status::OK);
    assert_eq!(two.get(2, 7, 7), Ok(page(1)));
    assert_eq!(two.put(2, 7, 7, &page(2)), status::OK);
    assert_eq!(one.get(1, 7, 7), Ok(page(2)));
    assert_eq!(two.one(Req::flush_object(2, 7)).value, 1);
    assert_eq!(one.get(1, 7, 7), Err(status::MISS));
}

/// A pool of the same UUID is another one in each trust domain, also for who joins again after the
/// worker has died.
#[test]
fn a_shared_pool_ends_at_the_trust_domain() {
    let of = |domain: &str| format!("{ALLOWED},trust-domain={domain}");
    let daemon = Daemon::with(&[&of("red"), &of("red"), &of("blue"), ALLOWED], &[]);
    let mut guests: Vec<Client> = (0..4).map(|number| Client::attach(&daemon.socket(number))).collect();
    for guest in &mut guests {
        assert_eq!(guest.status(Req::create(1, SHARED, UUID)), status::OK);
    }
    for round in 0..2 {
        let [red, friend, blue, other] = &mut guests[..] else { panic!("four guests") };
        assert_eq!(red.put(1, 7, round, &page(1)), status::OK);
        assert_eq!(friend.get(1, 7, round), Ok(page(1)), "guests of one domain share it");
        for (stranger, whose) in [(blue, "another domain"), (other, "no named domain")] {
            assert_eq!(stranger.get(1, 7, round), Err(status::MISS), "a guest of {whose} reads it");
            assert_eq!(stranger.put(1, 7, round, &page(2)), status::OK);
            assert_eq!(stranger.one(Req::flush_object(1, 7)).value, 1, "a guest of {whose} has more than its page");
            stranger.one(Req::flush_pool(1));
        }
        assert_eq!(red.get(1, 7, round), Ok(page(1)), "guests of other domains have changed it");
        daemon.signal_worker(Signal::KILL);
    }
    assert_eq!(daemon.guest_stats(2)["trust_domain"], "blue");
    assert_eq!(daemon.guest_stats(3)["trust_domain"], "default");
}

#[test]
fn a_denied_pool_whose_id_is_taken_exists() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.status(Req::create(1, SHARED, UUID)), status::EXISTS);
}

#[test]
fn a_guest_at_its_limit_leaves_room_for_others() {
    let daemon = Daemon::with(&["memory-limit=256K", ""], &["--memory-limit", "16M"]);
    let mut greedy = Client::attach(&daemon.socket(0));
    let mut modest = Client::attach(&daemon.socket(1));
    for guest in [&mut greedy, &mut modest] {
        guest.create(0, PERSISTENT);
    }
    assert_eq!(modest.put(0, 1, 1, &page(1)), status::OK);
    let statuses: Vec<u16> = (0..1000).map(|index| greedy.put(0, 1, index, &page(index))).collect();
    assert!(statuses.contains(&status::REFUSED), "1000 pages were accepted within 256 KiB");
    for (index, put) in (0..).zip(&statuses) {
        let expected = if *put == status::OK { Ok(page(index)) } else { Err(status::MISS) };
        assert_eq!(greedy.get(0, 1, index), expected, "page {index}, whose put was answered {put}");
    }
    let bytes = daemon.guest_stats(0)["physical_bytes"].as_u64();
    assert!(bytes <= Some(256 << 10), "the guest has {bytes:?} bytes");
    assert_eq!(modest.get(0, 1, 1), Ok(page(1)));
    assert_eq!(modest.put(0, 1, 2, &page(2)), status::OK);
}

/// Nobody has set a limit for anybody: half of the store is for whoever comes first, the other half
/// in equal parts for each.
///
/// Conformance: ZC-DEV-92.
#[test]
fn without_limits_no_guest_can_take_everything() {
    let daemon = Daemon::with(&["", ""], &["--memory-limit", "8M"]);
    let mut greedy = Client::attach(&daemon.socket(0));
    let mut late = Client::attach(&daemon.socket(1));
    for guest in [&mut greedy, &mut late] {
        guest.create(0, PERSISTENT);
    }
    // Pages that do not compress: of 8 MiB, 6 MiB are at most 1536 of them.
    let put = |guest: &mut Client, index: u64| guest.put(0, 1, index, &noise(index));
    let taken = (0..2000).find(|index| put(&mut greedy, *index) == status::REFUSED);
    assert!(taken.is_some_and(|taken| (1200..1536).contains(&taken)), "the first guest got {taken:?} pages");
    assert_eq!(daemon.guest_stats(0)["pools"][0]["refused"]["share"], 1);
    let taken = (0..2000).find(|index| put(&mut late, *index) == status::REFUSED);
    assert!(taken >= Some(300), "the second guest got {taken:?} pages of a quarter of the store");
    assert_eq!(greedy.get(0, 1, 0), Ok(noise(0)), "a page of the first guest is lost");
}

/// A page that does not compress.
fn noise(number: u64) -> Page {
    let mut state = number + 1;
    let mut page = page(number);
    for word in page.as_chunks_mut::<8>().0 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *word = (state ^ state >> 29).to_le_bytes();
    }
    page
}

#[test]
fn a_default_limit_is_for_guests_without_their_own() {
    let daemon = Daemon::with(&["memory-limit=5M", ""], &["--guest-memory-limit", "3M"]);
    assert_eq!(daemon.guest_stats(0)["memory_limit"], 5 << 20);
    assert_eq!(daemon.guest_stats(1)["memory_limit"], 3 << 20);
}

/// Requests that are under way on another queue when a new driver says HELLO belong to the old
/// session or to none: nothing of them is in the new one.
#[test]
fn a_new_session_has_nothing_of_requests_under_way() {
    let daemon = Daemon::start();
    let mut guest = Client::connect(&daemon.socket(0), Setup { queue_size: 1024, ..Setup::default() });
    for round in 0..50u8 {
        guest.hello(2 * round + 1);
        guest.create(1, PERSISTENT);
        let batch: Vec<Req> = (0..8).map(|index| Req::put(1, 1, index, &page(index))).collect();
        let posted: Vec<_> = (0..30).map(|_| guest.post(1, &batch, Shape::Whole)).collect();
        let (_, resumed) = guest.hello(2 * round + 2);
        assert!(!resumed, "another instance was resumed");
        let stored = guest.one(Req::flush_pool(1));
        assert_eq!(stored.status, status::NO_POOL, "round {round}: the pool of the old session is still there");
        for chain in &posted {
            let done = guest.wait(chain);
            for result in done.bytes.chunks(16) {
                let answer = u16::from_le_bytes([result[0], result[1]]);
                assert!([status::OK, status::NO_POOL].contains(&answer), "round {round}: a PUT was answered {answer}");
            }
        }
        assert_eq!(daemon.stats()["store"]["pages"], 0, "round {round}: a page of the old session is left");
    }
}

#[test]
fn an_exclusive_hit_goes_to_one_queue_only() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(0, 0);
    for round in 0..200 {
        assert_eq!(guest.put(0, 1, 1, &page(round)), status::OK);
        let get = [Req::get(0, 1, 1, EXCLUSIVE)];
        assert_eq!(get[0].opcode(), opcode::GET);
        let chains = [guest.post(0, &get, Shape::Whole), guest.post(1, &get, Shape::Whole)];
        let hits = chains.iter().filter(|chain| guest.wait(chain).written > 16).count();
        assert_eq!(hits, 1, "round {round}");
    }
}
