// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads a guest's state, which counts when all of it was read.

use std::collections::BTreeSet;

use zcache_store::{Creation, PoolId, PoolKind, Scratch};

use super::pipe::Pipe;
use super::stream::{Damage, Decoder, Record};
use super::{Moved, TransferError};
use crate::crash::{self, Place};
use crate::device::session::Session;
use crate::device::session::handover::{Image, Loading, Moment};

/// Bytes that are read at a time.
const READ: usize = 64 << 10;

/// Reads the state of a guest with so many queues, which has nothing yet, and of which no ring was
/// started since a moment.
///
/// # Errors
///
/// [`TransferError`]. The guest has nothing then.
pub fn load(session: &Session, moment: Moment, queues: usize, pipe: &Pipe) -> Result<Moved, TransferError> {
    let mut taker =
        Taker { loading: session.load(moment)?, queues, image: Image::default(), persistent: BTreeSet::new() };
    let mut decoder = Decoder::default();
    let mut scratch = Scratch::new();
    let mut bytes = vec![0; READ];
    loop {
        let read = pipe.read(&mut bytes)?;
        if read == 0 {
            break;
        }
        decoder.push(&bytes[..read]);
        while let Some(record) = decoder.next_record()? {
            taker.take(record, &mut scratch)?;
        }
        crash::point(Place::StateMoved);
    }
    let moved = decoder.finish()?;
    taker.loading.finish(taker.image)?;
    crash::point(Place::StateLoaded);
    Ok(moved)
}

struct Taker<'a> {
    loading: Loading<'a>,
    queues: usize,
    image: Image,
    persistent: BTreeSet<PoolId>,
}

impl Taker<'_> {
    fn take(&mut self, record: Record<'_>, scratch: &mut Scratch) -> Result<(), TransferError> {
        let image = &mut self.image;
        match record {
            Record::Session { holds, open } => (image.holds, image.open) = (holds, open),
            Record::Ring(queue, position) => {
                if queue >= self.queues {
                    return Err(TransferError::Queue(queue));
                }
                if !image.open || image.stopped.iter().any(|(other, _)| *other == queue) {
                    return Err(Damage::Nonsense("a ring that cannot be").into());
                }
                image.stopped.push((queue, position));
            }
            Record::Pool(..) if image.holds.is_none() => {
                return Err(Damage::Nonsense("a pool without a session").into());
            }
            Record::Pool(pool, kind) => {
                if let PoolKind::SharedEphemeral(uuid) = kind
                    && !self.loading.may_share(&uuid)
                {
                    return Err(TransferError::NotAllowed(pool.0));
                }
                let created = self.loading.create_pool(pool, kind)?;
                if created != Creation::Created {
                    return Err(Damage::Nonsense("a pool that is there twice").into());
                }
                if kind == PoolKind::Persistent {
                    self.persistent.insert(pool);
                }
                image.pools.push((pool, kind));
            }
            Record::Page(key, page) => {
                if !self.persistent.contains(&key.pool) {
                    return Err(Damage::Nonsense("a page of a pool that has none").into());
                }
                self.loading.import(scratch, &key, page)?;
            }
        }
        Ok(())
    }
}
