// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What keys do, and what columns mean.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Text;

/// In as many lines as a small terminal has.
const HELP: &str = "\
q  end                          up down, page up and down, home, end
p  pause, and go on                look at another guest
s >  order by the next column   /  show guests only whose names contain a text
S <  by the one before          Esc  show all of them
r  the other way around         h  this help

PUT/s GET/s  puts and gets a second       HIT    gets that found a page
MEM    memory that is charged             RATIO  bytes of pages per byte of it
GET50 GET99 PUT99  what 50 or 99 of 100 took at most since the last look
REF/s  refused puts a second              HISTORY  puts and gets of late
Before a name: Q quarantined, L memory lost, S queue stopped, f frozen,
- not connected, n no session of a driver.
Refused because of: the guest's limit, its share (the rest is reserved for
others), a full store, no memory of the host, or frozen. Pages: same are of one
repeated word, raw do not compress, cold are in the denser tier. A dash is
what is not known, or nothing of nothing.";

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect) {
    frame.render_widget(Text::raw(HELP), area);
}
