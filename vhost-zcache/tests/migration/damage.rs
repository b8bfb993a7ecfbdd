// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A state that is not what was saved is refused, and leaves nothing.
#![allow(clippy::cast_possible_truncation, reason = "a test's numbers are small")]

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use vhost_zcache::device_state::stream::{Decoder, Encoder, Record, VERSION};
use zcache_store::{Codec, Key, ObjectId, PoolId, PoolKind, StoredPage};

use crate::client::daemon::Daemon;
use crate::client::state::Way;
use crate::client::{Client, Setup};
use crate::guest::{ALLOW, expect_nothing, settle, verify};

/// What becomes of a state on its way.
#[derive(Debug, Clone)]
enum Harm {
    Flip(Index, u8),
    Cut(Index),
    CutOut(Index, u16),
    Insert(Index, Vec<u8>),
    Double(Index, u16),
    Append(Vec<u8>),
}

fn harm() -> impl Strategy<Value = Harm> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..20);
    prop_oneof![
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        any::<Index>().prop_map(Harm::Cut),
        (any::<Index>(), 1..9000u16).prop_map(|(at, length)| Harm::CutOut(at, length)),
        (any::<Index>(), bytes()).prop_map(|(at, bytes)| Harm::Insert(at, bytes)),
        (any::<Index>(), 1..9000u16).prop_map(|(at, length)| Harm::Double(at, length)),
        bytes().prop_map(Harm::Append),
    ]
}

impl Harm {
    fn done_to(&self, state: &[u8]) -> Vec<u8> {
        let mut state = state.to_vec();
        let range = |at: &Index, length: u16| {
            let at = at.index(state.len());
            at..state.len().min(at + usize::from(length))
        };
        match self {
            Self::Flip(at, bit) => {
                let at = at.index(state.len());
                state[at] ^= 1 << bit;
            }
            Self::Cut(at) => state.truncate(at.index(state.len())),
            Self::CutOut(at, length) => drop(state.drain(range(at, *length))),
            Self::Insert(at, bytes) => {
                let at = at.index(state.len());
                drop(state.splice(at..at, bytes.iter().copied()));
            }
            Self::Double(at, length) => {
                let range = range(at, *length);
                let again = state[range.clone()].to_vec();
                drop(state.splice(range.end..range.end, again));
            }
            Self::Append(bytes) => state.extend(bytes),
        }
        state
    }
}

/// Reads a state in pieces of so many bytes; how many records it has.
fn read(state: &[u8], piece: usize) -> Result<usize, String> {
    let mut decoder = Decoder::default();
    let mut records = 0;
    for bytes in state.chunks(piece) {
        decoder.push(bytes);
        while decoder.next_record().map_err(|error| error.to_string())?.is_some() {
            records += 1;
        }
    }
    decoder.finish().map_err(|error| error.to_string())?;
    Ok(records)
}

/// A state of several chunks.
fn written() -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.add(Record::Session { holds: Some(([7; 16], 9)), open: true });
    encoder.add(Record::Pool(PoolId(1), PoolKind::Persistent));
    encoder.add(Record::Pool(PoolId(2), PoolKind::SharedEphemeral([3; 16])));
    for index in 0..200u64 {
        let key = Key { pool: PoolId(1), object: ObjectId([(index % 3) as u8; 24]), index };
        let bytes = vec![index as u8; 8 + (index as usize * 61) % 4000];
        encoder.add(Record::Page(key, StoredPage { codec: Codec::Lz4, bytes: &bytes, sum: index }));
    }
    encoder.finish().0
}

#[test]
fn a_decoder_finds_all_harm() {
    let state = written();
    assert!(state.len() > 3 * (64 << 10), "a state of several chunks");
    for piece in [1, 7, 4096, 65536, state.len()] {
        assert_eq!(read(&state, piece), Ok(203), "in pieces of {piece}");
    }
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&(harm(), 1..9000usize), |(harm, piece)| {
        let harmed = harm.done_to(&state);
        prop_assume!(harmed != state);
        prop_assert!(read(&harmed, piece).is_err());
        Ok(())
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[test]
fn a_decoder_takes_any_bytes() {
    let head = &written()[..16];
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(any::<u8>(), 0..300), |bytes| {
        prop_assert!(read(&bytes, 64).is_err());
        prop_assert!(read(&[head, &bytes].concat(), 64).is_err());
        Ok(())
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// Conformance: ZC-DEV-95.
#[test]
fn a_state_that_was_harmed_is_refused_and_leaves_nothing() {
    let here = Daemon::with(&[ALLOW], &[]);
    let there = Daemon::with(&[ALLOW], &[]);
    let mut guest = settle(&here, 0, 120);
    let state = guest.save(Way::Socket);
    let stranger = Client::connect(&there.socket(0), Setup { start: false, ..Setup::default() });
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&harm(), |harm| {
        let harmed = harm.done_to(&state);
        prop_assume!(harmed != state);
        prop_assert!(!stranger.load(Way::Pipe, &harmed));
        Ok(())
    });
    assert!(outcome.is_ok(), "{outcome:?}");
    expect_nothing(&there, 0);

    let mut newer = state.clone();
    newer[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
    assert!(!stranger.load(Way::Pipe, &newer), "a state of another version");
    for (what, bytes) in [("nothing", &[][..]), ("text", b"GET / HTTP/1.1\r\n\r\n")] {
        assert!(!stranger.load(Way::Pipe, bytes), "{what}");
    }
    expect_nothing(&there, 0);
    assert_eq!(there.deaths(), 0);
    drop(stranger);

    let mut guest = guest.moved_to(&there.socket(0));
    assert!(guest.load(Way::Socket, &state), "the state as it was saved");
    guest.start_all();
    verify(&mut guest, 120);
}
