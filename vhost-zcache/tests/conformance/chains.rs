// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SPEC.md section 6: chains, batches, used lengths.

use crate::client::daemon::Daemon;
use crate::client::wire::{self, PAGE, Page, Req, header, status, writable_size};
use crate::client::{Client, Done, Setup, Shape, page};

/// A guest with the ephemeral pool 1 and a queue with room for a descriptor per byte of a request.
fn guest(daemon: &Daemon) -> Client {
    let mut guest = Client::connect(&daemon.socket(0), Setup { queue_size: 1024, ..Setup::default() });
    guest.hello(1);
    guest.create(1, 0);
    guest
}

fn max_batch(guest: &mut Client) -> u16 {
    let word = u32::from_le_bytes(guest.config(16, 4).try_into().expect("four bytes"));
    u16::try_from(word).expect("a count that a batch can hold")
}

/// Conformance: ZC-DEV-7.
#[test]
fn the_division_into_descriptors_means_nothing() {
    let daemon = Daemon::start();
    let mut guest = guest(&daemon);
    let batch = [Req::put(1, 1, 1, &page(1)), Req::get(1, 1, 1, 0), Req::get(1, 1, 2, 0)];
    for piece in [17, 19, 47, 48, 49, 4095, 4096, 4097, 10_000] {
        for shape in [Shape::Pieces(piece), Shape::Indirect(piece)] {
            let answers = guest.submit_as(1, &batch, shape);
            let statuses = [answers[0].status, answers[1].status, answers[2].status];
            assert_eq!(statuses, [status::OK, status::OK, status::MISS], "{shape:?}");
            assert_eq!(answers[1].page, Some(page(1)), "{shape:?}");
        }
    }
    for shape in [Shape::Pieces(1), Shape::Indirect(1)] {
        let answer = guest.submit_as(1, &[Req::flush_page(1, 1, 1), Req::flush_pool(1)], shape);
        assert_eq!((answer[0].status, answer[1].status), (status::OK, status::OK), "{shape:?}");
        guest.put(1, 1, 1, &page(1));
    }
}

/// Conformance: ZC-DEV-8.
#[test]
fn a_chain_that_is_no_batch_is_answered_and_not_executed() {
    let daemon = Daemon::start();
    let mut guest = guest(&daemon);
    let most = max_batch(&mut guest);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);

    let flush = wire::encode(&[Req::flush_pool(1)]);
    let put = wire::encode(&[Req::put(1, 1, 1, &page(2))]);
    let too_many: Vec<Req> = (0..=most).map(|_| Req::flush_pool(1)).collect();
    let get = [Req::flush_pool(1), Req::get(1, 1, 1, 0)];
    let dirty = |at: usize| {
        let mut bytes = flush.clone();
        bytes[at] = 1;
        bytes
    };
    let longer = |bytes: &[u8], by: usize| [bytes, &vec![0; by]].concat();
    for (what, readable, writable) in [
        ("no readable byte", vec![], 64),
        ("half a header", header(1)[..7].to_vec(), 64),
        ("no request", header(0), 64),
        ("count without requests", header(1), 64),
        ("half a request", flush[..55].to_vec(), 64),
        ("reserved16", dirty(2), 64),
        ("reserved32", dirty(7), 64),
        ("a byte too many", longer(&flush, 1), 64),
        ("a page without PUT", longer(&flush, PAGE), 64),
        ("a PUT without its page", put[..56].to_vec(), 64),
        ("a PUT with half a page", put[..56 + PAGE / 2].to_vec(), 64),
        ("a PUT with two pages", longer(&put, PAGE), 64),
        ("too many requests", wire::encode(&too_many), 16 * too_many.len()),
        ("65535 requests", [header(u16::MAX), vec![0; 48]].concat(), 64),
        ("no room for the second result", wire::encode(&[Req::flush_pool(1), Req::flush_pool(1)]), 31),
        ("no room for the page", wire::encode(&get), writable_size(&get) - 1),
    ] {
        let Done { written, bytes } = guest.raw(1, &readable, writable, Shape::Whole);
        assert_eq!(written, 16, "{what}: used length");
        let result = wire::result_of(&bytes);
        assert_eq!((result.status, result.flags, result.value), (status::MALFORMED, 0, 0), "{what}");
        assert!(bytes[16..].iter().all(|byte| *byte == 0xee), "{what}: more than the result was written");
        assert_eq!(guest.get(1, 1, 1), Ok(page(1)), "{what}: something was executed");
    }
    for writable in [0, 1, 15] {
        let done = guest.raw(1, &flush, writable, Shape::Whole);
        assert_eq!(done.written, 0, "no room for a result: used length");
        assert!(done.bytes.iter().all(|byte| *byte == 0xee), "{writable} bytes are no room, and were written to");
        assert_eq!(guest.get(1, 1, 1), Ok(page(1)), "no room for a result: something was executed");
    }
}

/// Conformance: ZC-DEV-9.
#[test]
fn a_batch_is_executed_in_order_and_to_its_end() {
    let daemon = Daemon::start();
    let mut guest = guest(&daemon);
    let most = usize::from(max_batch(&mut guest));
    let nonsense = Req::new(77, 0, 1);
    let mut batch = vec![
        Req::put(1, 1, 1, &page(1)),
        nonsense,
        Req::get(1, 1, 1, 0),
        Req::flush_page(9, 1, 1),
        Req::put(1, 1, 1, &page(2)),
        Req::get(1, 1, 1, 1),
        Req::get(1, 1, 1, 0),
    ];
    batch.resize(most, Req::flush_pool(1));
    let answers = guest.submit(1, &batch);
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    let mut expected =
        vec![status::OK, status::UNSUPPORTED, status::OK, status::NO_POOL, status::OK, status::OK, status::MISS];
    expected.resize(most, status::OK);
    assert_eq!(statuses, expected);
    assert_eq!((answers[2].page, answers[5].page), (Some(page(1)), Some(page(2))));
}

/// Conformance: ZC-DEV-10.
#[test]
fn the_used_length_ends_with_the_last_hit() {
    let daemon = Daemon::start();
    let mut guest = guest(&daemon);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    let (hit, miss, invalid) = (Req::get(1, 1, 1, 0), Req::get(1, 1, 2, 0), Req::get(1, 1, 1, 8));
    for (what, batch, pages) in [
        ("no hit", vec![miss.clone(), invalid.clone()], vec![]),
        ("a hit", vec![hit.clone()], vec![page(1)]),
        ("a hit, then none", vec![hit.clone(), miss.clone()], vec![page(1)]),
        ("hits around others", vec![miss, invalid, hit.clone(), Req::flush_pool(2), hit], {
            let none: Page = [0; PAGE];
            vec![none, none, page(1), page(1)]
        }),
    ] {
        let done = guest.raw(1, &wire::encode(&batch), writable_size(&batch) + 8, Shape::Whole);
        let results = 16 * batch.len();
        assert_eq!(done.written as usize, results + PAGE * pages.len(), "{what}: used length");
        assert!(done.bytes[results..done.written as usize] == pages.concat(), "{what}: pages");
    }
}

/// Conformance: ZC-DEV-11.
#[test]
fn a_request_that_changes_meanwhile_is_one_of_the_two() {
    let daemon = Daemon::start();
    let mut guest = guest(&daemon);
    // The batch flips between one PUT and as many FLUSH_POOLs of the same length while the device
    // reads it: whatever it saw, the answer fits one reading, and the daemon lives.
    let put = wire::encode(&[Req::put(1, 1, 1, &page(1))]);
    let mut flushes = wire::encode(&[Req::flush_pool(1)]);
    flushes.resize(put.len(), 0);
    for round in 0..300 {
        let posted = guest.post_raw(1, &put, 16, Shape::Whole);
        let address = posted.first_readable();
        for _ in 0..4 {
            guest.ram().write(address, &flushes[..56]);
            guest.ram().write(address, &put[..56]);
        }
        let done = guest.wait(&posted);
        let result = wire::result_of(&done.bytes);
        // OK: the PUT was read; MALFORMED: the flush, which must not have a page; or a mixture of
        // both.
        let legal = [status::OK, status::MALFORMED, status::INVALID, status::UNSUPPORTED, status::NO_POOL];
        assert!(legal.contains(&result.status) && done.written == 16, "round {round}: {result:?}");
    }
    assert_eq!(guest.put(1, 1, 1, &page(3)), status::OK, "the queue still works");
}

/// Conformance: ZC-DEV-12.
#[test]
fn what_has_no_meaning_in_a_result_is_zero() {
    let daemon = Daemon::start();
    let mut guest = guest(&daemon);
    let batch = [
        Req::create(2, 1, [0; 16]),
        Req::create(2, 0, [0; 16]),
        Req::put(1, 1, 1, &page(1)),
        Req::get(1, 1, 1, 0),
        Req::get(1, 1, 2, 0),
        Req::flush_page(8, 1, 2),
        Req::new(99, 3, 3),
        Req::hello(1).with(24, &[7]),
    ];
    for (request, answer) in batch.iter().zip(guest.submit(1, &batch)) {
        let zeros = (answer.flags, answer.reserved, answer.value);
        assert_eq!(zeros, (0, 0, 0), "opcode {}, status {}", request.opcode(), answer.status);
    }
}
