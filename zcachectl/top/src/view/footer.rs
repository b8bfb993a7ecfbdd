// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Keys; or what is the matter.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::Look;
use crate::format::printable;
use crate::model::{Mode, Model};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, look: Look) {
    let (column, is_reversed) = model.sort();
    let filter = model.filter();
    let line = match (model.mode(), model.error()) {
        (Mode::Filter, _) => Line::raw(format!("filter: {filter}_   Enter keeps it, Esc leaves it")),
        (Mode::Help, _) => Line::raw("any key leaves the help"),
        (Mode::Table, Some(error)) => {
            // What to do about it is in lines that follow, for which there is no room.
            let error: String = error.lines().next().unwrap_or_default().chars().map(printable).collect();
            Line::from(Span::styled(error, look.alarm()))
        }
        (Mode::Table, None) => {
            let mut line = Line::default();
            if model.is_paused() {
                line.push_span(Span::styled("PAUSED  ", look.strong()));
            }
            let way = if is_reversed { " reversed" } else { "" };
            line.push_span(format!("q quit  p pause  s order: {}{way}  r reverse  / filter", column.title()));
            if !filter.is_empty() {
                line.push_span(Span::styled(format!(": {filter}"), look.strong()));
            }
            line.push_span("  h help");
            line
        }
    };
    frame.render_widget(line, area);
}
