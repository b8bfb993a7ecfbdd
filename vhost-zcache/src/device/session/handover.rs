// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A session as it leaves for another daemon, and as it comes from one.
//!
//! A session that is saved is only looked at. One that comes is nobody's until it is there as a
//! whole: its pools are filled while the guest holds nothing as far as anybody can tell, a later
//! process included, and then one note says that it does. Whatever is left of a load that came to
//! nothing goes with the next HELLO, load or process.

use thiserror::Error;
use zcache_protocol::ID_SIZE;
use zcache_store::{Creation, Key, PoolId, PoolKind, Scratch, StoredPage};

use super::{Phase, QueueIndex, RingPosition, Session};
use crate::device::request::OFFERED;
use crate::device_state::TransferError;

/// A ring has started, so that the guest may have changed what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a queue was started meanwhile")]
pub struct Disturbed;

/// A state comes to a guest that has nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the guest has said HELLO on this connection")]
pub struct NotEmpty;

/// A session without its pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Instance and epoch of the last HELLO.
    pub holds: Option<([u8; ID_SIZE], u64)>,
    /// Whether a session is open.
    pub open: bool,
    /// Where rings have stopped in it.
    pub stopped: Vec<(QueueIndex, RingPosition)>,
    /// The guest's pools.
    pub pools: Vec<(PoolId, PoolKind)>,
}

/// Tells whether a ring was started, or HELLO said, since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(u64);

impl Session {
    /// This moment.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment(self.state().moves)
    }

    /// What it is, if that is what it was at a moment.
    ///
    /// # Errors
    ///
    /// [`Disturbed`].
    pub fn image(&self, moment: Moment) -> Result<Image, Disturbed> {
        let state = self.state();
        if state.moves != moment.0 {
            return Err(Disturbed);
        }
        let (open, stopped) = match &state.phase {
            Phase::Closed => (false, Vec::new()),
            Phase::Open(stopped) => (true, stopped.iter().collect()),
        };
        Ok(Image { holds: state.holds, open, stopped, pools: self.guest.pools() })
    }

    /// Makes sure that it is what it was at a moment.
    ///
    /// # Errors
    ///
    /// [`Disturbed`].
    pub fn check_still(&self, moment: Moment) -> Result<(), Disturbed> {
        if self.state().moves == moment.0 { Ok(()) } else { Err(Disturbed) }
    }

    /// Whether nobody has said HELLO on this connection, nor was a session taken over.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.state().holds.is_none()
    }

    /// Begins to take another daemon's session over, if it still is that moment.
    ///
    /// # Errors
    ///
    /// [`TransferError`].
    pub fn load(&self, moment: Moment) -> Result<Loading<'_>, TransferError> {
        let state = self.state_mut();
        if state.moves != moment.0 {
            return Err(Disturbed.into());
        }
        if state.holds.is_some() {
            return Err(NotEmpty.into());
        }
        self.guest.reset();
        Ok(Loading { session: self, moment })
    }
}

/// A session that is being taken over. Unless it is finished it leaves nothing.
pub struct Loading<'a> {
    session: &'a Session,
    moment: Moment,
}

impl Loading<'_> {
    /// Whether the operator lets the guest share pools of this UUID.
    #[must_use]
    pub fn may_share(&self, uuid: &[u8; ID_SIZE]) -> bool {
        self.session.allowed_shared.contains(uuid)
    }

    /// Creates a pool, or joins a shared one.
    ///
    /// # Errors
    ///
    /// [`TransferError`].
    pub fn create_pool(&self, pool: PoolId, kind: PoolKind) -> Result<Creation, TransferError> {
        let state = self.session.state();
        if state.moves != self.moment.0 {
            return Err(Disturbed.into());
        }
        self.session.guest.create_pool(pool, kind).map_err(|error| TransferError::Pool(pool.0, error))
    }

    /// Stores a page.
    ///
    /// # Errors
    ///
    /// [`TransferError`].
    pub fn import(&self, scratch: &mut Scratch, key: &Key, page: StoredPage<'_>) -> Result<(), TransferError> {
        let state = self.session.state();
        if state.moves != self.moment.0 {
            return Err(Disturbed.into());
        }
        Ok(self.session.guest.import(scratch, key, page)?)
    }

    /// All is there. Of shared pools nobody's pages stay: the guest has flushed pages where it was
    /// that may be here.
    ///
    /// # Errors
    ///
    /// [`Disturbed`].
    pub fn finish(self, image: Image) -> Result<(), Disturbed> {
        let session = self.session;
        let mut state = session.state_mut();
        if state.moves != self.moment.0 {
            return Err(Disturbed);
        }
        let Image { holds, open, stopped, pools } = image;
        let shared = || pools.iter().filter(|(_, kind)| matches!(kind, PoolKind::SharedEphemeral(_)));
        for (pool, _) in shared() {
            // It was joined just before.
            let _ = session.guest.flush_pool(*pool);
        }
        let Some((instance, epoch)) = holds else { return Ok(()) };
        session.journal.note(|noted| {
            (noted.open, noted.holds, noted.instance, noted.epoch) = (u32::from(open), 1, instance, epoch);
            noted.features = OFFERED;
            noted.is_known = u32::from(pools.len() > shared().count());
            noted.clear_stopped();
            for (queue, position) in &stopped {
                noted.set_stopped(*queue, Some(*position));
            }
            noted.leave_all();
            for (pool, kind) in &pools {
                if let PoolKind::SharedEphemeral(uuid) = kind {
                    noted.join(pool.0, *uuid);
                }
            }
        });
        state.holds = holds;
        // A state does not say what its driver has acknowledged, which daemons that know of no
        // features could not read. Who asks for something has.
        state.features = OFFERED;
        state.phase = if open { Phase::Open(stopped.into_iter().collect()) } else { Phase::Closed };
        Ok(())
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        // What was finished, or what a driver has said HELLO to since, stays.
        let state = self.session.state_mut();
        if state.holds.is_none() {
            self.session.guest.reset();
        }
    }
}
