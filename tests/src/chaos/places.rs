// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! When workers pass the places at which they can die.

use vhost_zcache::crash::Place;

/// When workers pass a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// Not in chaos: by the first one only, or when the state of a guest moves.
    NotHere,
    /// Each one, when it takes over.
    AtStart,
    /// When a connection, a session, a pool or a queue comes or goes.
    OnChange,
    /// All the time.
    InService,
}

/// When workers pass this one.
pub(super) fn passed(place: Place) -> Passed {
    match place {
        Place::ArenaMade | Place::ArenaGiven | Place::StateMoved | Place::StateLoaded => Passed::NotHere,
        Place::Rebuilding | Place::Reopened | Place::PagesFound | Place::SessionRestored | Place::Ready => {
            Passed::AtStart
        }
        // Also when a worker takes over, and some queue may be served then.
        Place::Connected
        | Place::Dropped
        | Place::Changed
        | Place::Acknowledged
        | Place::RingPaused
        | Place::StopNoted
        | Place::RingStarted
        | Place::AnswerPlanned
        | Place::SessionClosed
        | Place::PoolsDestroyed
        | Place::SessionOpened
        | Place::PoolMade
        | Place::PoolNoted
        | Place::PoolGone
        | Place::HalfARecord
        | Place::RecordWritten
        | Place::RecordValid => Passed::OnChange,
        Place::ChainTaken
        | Place::Executed
        | Place::PageWritten
        | Place::ResultNoted
        | Place::RequestDone
        | Place::ResultsWritten
        | Place::UsedPublished
        | Place::ChainForgotten
        | Place::Notified => Passed::InService,
    }
}
