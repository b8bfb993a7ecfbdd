// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest's state, as a VMM writes it or a file has it. The bytes are records, said in a stream
//! whose checksums are right, so that they are looked at; and a second time the stream itself.

use twox_hash::XxHash3_64;
use vhost_zcache::device_state::stream::{Damage, Decoder, Encoder, MAX_CHUNK, Record, VERSION};
use vhost_zcache::saving::key::Key;
use vhost_zcache::saving::sealed::{OpenError, Opener};
use zcache_store::{Guest, GuestConfig, PoolKind, Scratch, Store, StoreConfig, StoredPage};

/// Reads the bytes as a stream and as what is in one.
pub fn run(data: &[u8]) {
    let whole = decode(data, usize::MAX);
    let (piece, rest) = data.split_first().map_or((1, data), |(first, rest)| (usize::from(*first) + 1, rest));
    assert_eq!(decode(data, piece), whole, "it matters in which pieces a state comes");
    take(rest);
    // The head of a saved state is read before anything is known to be true.
    let key = Key::of(&[7; 32]).expect("a key");
    match Opener::new(data, &key, "guest").map(|_| ()) {
        Err(OpenError::Io(error)) => panic!("bytes cannot be read: {error}"),
        Ok(()) => panic!("a head was authenticated that nobody has sealed"),
        Err(_) => {}
    }
}

/// What a decoder makes of a stream that comes in pieces: how many records, and how it ends.
fn decode(stream: &[u8], piece: usize) -> (usize, Result<(), Damage>) {
    let mut decoder = Decoder::default();
    let mut records = 0;
    for bytes in stream.chunks(piece.max(1)) {
        decoder.push(bytes);
        loop {
            match decoder.next_record() {
                Ok(Some(_)) => records += 1,
                Ok(None) => break,
                Err(damage) => return (records, Err(damage)),
            }
        }
    }
    (records, decoder.finish().map(drop))
}

/// Takes records as the worker does: whatever they say, the store stays a store, and what it has
/// taken of them it can say again.
fn take(records: &[u8]) {
    let records = &records[..records.len().min(MAX_CHUNK)];
    let mut decoder = Decoder::default();
    decoder.push(&framed(records));
    let store = Store::new(StoreConfig::new(1 << 20)).expect("a store");
    let guest = store.register_guest(GuestConfig::new("guest"));
    let mut scratch = Scratch::new();
    // Pages that are refused are said again all the same: they are records.
    let mut encoder = Encoder::default();
    let mut said = 0;
    while let Ok(Some(record)) = decoder.next_record() {
        match record {
            Record::Pool(pool, kind) if !matches!(kind, PoolKind::SharedEphemeral(_)) => {
                // There may be too many.
                let _ = guest.create_pool(pool, kind);
            }
            Record::Page(key, page) => {
                // It may be none, or of a pool that there is not. A sum is easier made than found.
                let _ = guest.import(&mut scratch, &key, page);
                let sum = XxHash3_64::oneshot(page.bytes);
                let _ = guest.import(&mut scratch, &key, StoredPage { sum, ..page });
            }
            _ => {}
        }
        encoder.add(record);
        said += 1;
    }
    if said > 0 {
        assert_eq!(decode(&encoder.finish().0, usize::MAX), (said, Ok(())), "what was understood is said again");
    }
    read_all(&guest);
    store.check().expect("the store is consistent");
}

/// Whatever was taken can be had.
fn read_all(guest: &Guest) {
    for (pool, kind) in guest.pools() {
        if kind == PoolKind::Persistent {
            let mut export = guest.export(pool).expect("the pool is there");
            while export.next_page().expect("a page that was taken is whole").is_some() {}
        }
    }
}

/// A stream with one chunk, which has these records and a right checksum.
fn framed(records: &[u8]) -> Vec<u8> {
    let head = [&b"zcachest"[..], &VERSION.to_le_bytes(), &[0; 4]].concat();
    let length = u32::try_from(records.len()).expect("a chunk").to_le_bytes();
    let chunk = [&length, records].concat();
    let sum = XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&head), &chunk);
    [&head, &chunk, &sum.to_le_bytes()[..]].concat()
}
