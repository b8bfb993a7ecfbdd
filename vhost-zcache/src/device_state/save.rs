// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Writes a guest's state. Nothing of the guest changes by it.

use zcache_store::PoolKind;

use super::pipe::Pipe;
use super::stream::{Encoder, Record};
use super::{Moved, TransferError};
use crate::crash::{self, Place};
use crate::device::session::Session;
use crate::device::session::handover::Moment;

/// Writes the state of a guest whose rings are stopped, and have been since a moment. Every page is
/// verified as it leaves.
///
/// # Errors
///
/// [`TransferError`]. What was written then is no state, as it has no end.
pub fn save(session: &Session, moment: Moment, pipe: &Pipe) -> Result<Moved, TransferError> {
    let image = session.image(moment)?;
    let mut encoder = Encoder::default();
    encoder.add(Record::Session { holds: image.holds, open: image.open });
    for (queue, position) in image.stopped {
        encoder.add(Record::Ring(queue, position));
    }
    for (pool, kind) in &image.pools {
        encoder.add(Record::Pool(*pool, *kind));
    }
    for (pool, _) in image.pools.iter().filter(|(_, kind)| *kind == PoolKind::Persistent) {
        let mut export = session.guest().export(*pool)?;
        while let Some((key, page)) = export.next_page()? {
            encoder.add(Record::Page(key, page));
            let ready = encoder.take();
            if !ready.is_empty() {
                session.check_still(moment)?;
                pipe.write_all(&ready)?;
                crash::point(Place::StateMoved);
            }
        }
    }
    let (rest, moved) = encoder.finish();
    // What was read before belongs together.
    session.check_still(moment)?;
    pipe.write_all(&rest)?;
    crash::point(Place::StateMoved);
    Ok(moved)
}
