// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a model is shown: the daemon above, a line for each guest, the guest that is looked at
//! below, and keys at the bottom. What there is no room for is left out, the least important first.

mod detail;
mod footer;
mod header;
mod help;
mod look;
mod table;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};

use crate::model::{Mode, Model};

pub use look::Look;
pub(crate) use table::figure;

/// Lines from which on there is room for the guest that is looked at.
const ROOM_FOR_DETAIL: u16 = 18;

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, model: &Model, look: Look) {
    let has_detail = frame.area().height >= ROOM_FOR_DETAIL;
    let [top, middle, below, bottom] = Layout::vertical([
        Constraint::Max(header::LINES),
        Constraint::Min(2),
        Constraint::Length(if has_detail { detail::LINES } else { 0 }),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    header::draw(frame, top, model, look);
    if model.mode() == Mode::Help {
        help::draw(frame, middle.union(below));
    } else {
        table::draw(frame, middle, model, look);
        if has_detail {
            detail::draw(frame, below, model, look);
        }
    }
    footer::draw(frame, bottom, model, look);
}
