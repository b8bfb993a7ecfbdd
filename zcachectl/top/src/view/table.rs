// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A line for each guest.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row as TableRow, Table};

use super::Look;
use crate::format::{FIGURE, NOTHING, bytes, name, number, percent, time};
use crate::model::{Column, Model, Row};

/// Columns of a name at least and at most.
const NAME: (usize, usize) = (14, 40);
/// Columns of a history at least.
const HISTORY: usize = 8;

/// What there is room for.
struct Room {
    columns: Vec<Column>,
    name: usize,
    /// 0 for no history.
    history: usize,
}

impl Room {
    /// In so many columns of the terminal. Columns on the right are left out first; a name gets
    /// what is over before a history does.
    fn of(width: usize) -> Self {
        // The sign of trouble and a blank, then each figure with a blank before.
        let mut left = width.saturating_sub(2 + NAME.0);
        let figures = (left / (FIGURE + 1)).min(Column::ALL.len() - 1);
        left -= figures * (FIGURE + 1);
        let history = if left > HISTORY { HISTORY } else { 0 };
        left -= if history > 0 { history + 1 } else { 0 };
        let more = left.min(NAME.1 - NAME.0);
        let history = if history > 0 { history + left - more } else { 0 };
        Self { columns: Column::ALL[..=figures].to_vec(), name: (NAME.0 + more).min(width.saturating_sub(2)), history }
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, look: Look) {
    let room = Room::of(area.width.into());
    let (order, _) = model.sort();
    let mut head: Vec<Cell<'_>> = vec![Cell::new("")];
    head.extend(room.columns.iter().map(|column| {
        let style = if *column == order { look.order() } else { look.strong() };
        let title = Line::from(Span::styled(column.title(), style));
        Cell::new(if *column == Column::Guest { title } else { title.right_aligned() })
    }));
    if room.history > 0 {
        head.push(Cell::new(Line::from(Span::styled("HISTORY", look.strong())).right_aligned()));
    }
    let lines = usize::from(area.height).saturating_sub(1);
    let rows = model.rows();
    let selected = model.selected();
    let first = first_shown(selected.unwrap_or(0), lines, rows.len());
    let shown = rows.iter().enumerate().skip(first).take(lines).map(|(at, row)| {
        let line = line(row, &room, look);
        if Some(at) == selected { line.style(look.selected()) } else { line }
    });
    let width = |columns: usize| Constraint::Length(u16::try_from(columns).unwrap_or(u16::MAX));
    let mut widths = vec![width(1), width(room.name)];
    widths.extend(room.columns.iter().skip(1).map(|_| width(FIGURE)));
    if room.history > 0 {
        widths.push(width(room.history));
    }
    frame.render_widget(Table::new(shown, widths).header(TableRow::new(head)).column_spacing(1), area);
}

/// The first line to show of so many, so that the one that is looked at is in the middle, or as
/// near to it as the ends allow.
fn first_shown(selected: usize, lines: usize, rows: usize) -> usize {
    selected.saturating_sub(lines / 2).min(rows.saturating_sub(lines))
}

fn line(row: &Row, room: &Room, look: Look) -> TableRow<'static> {
    let trouble = row.figures.trouble;
    let sign = trouble.map_or(' ', |trouble| trouble.letter()).to_string();
    let is_serious = trouble.is_some_and(|trouble| trouble.is_serious());
    let mut cells = vec![Cell::new(if is_serious { Span::styled(sign, look.alarm()) } else { Span::raw(sign) })];
    cells.extend(room.columns.iter().map(|column| match column {
        Column::Guest => Cell::new(name(&row.name, room.name)),
        column => Cell::new(Line::raw(figure(row, *column)).right_aligned()),
    }));
    if room.history > 0 {
        let history = look.bars.history(row.history.requests(), room.history);
        cells.push(Cell::new(Span::styled(history, look.bars())));
    }
    TableRow::new(cells)
}

/// A guest's figure of a column, as text.
pub(crate) fn figure(row: &Row, column: Column) -> String {
    let figures = &row.figures;
    let rate = |rate: Option<f64>| rate.map_or_else(|| NOTHING.into(), number);
    match column {
        Column::Guest => row.name.chars().map(crate::format::printable).collect(),
        Column::Puts => rate(figures.puts),
        Column::Gets => rate(figures.gets),
        Column::Hits => {
            figures.hits.zip(figures.gets).map_or_else(|| NOTHING.into(), |(hits, gets)| percent(hits, gets))
        }
        Column::Memory => bytes(figures.physical_bytes),
        Column::Ratio => figures
            .ratio()
            .map_or_else(|| NOTHING.into(), |ratio| if ratio < 99.5 { format!("{ratio:.1}") } else { number(ratio) }),
        Column::GetHalf => time(figures.get_times.quantile(0.5)),
        Column::GetMost => time(figures.get_times.quantile(0.99)),
        Column::PutMost => time(figures.put_times.quantile(0.99)),
        Column::Refused => rate(figures.refused.total()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_on_the_right() {
        for width in 0..300 {
            let room = Room::of(width);
            let figures = (room.columns.len() - 1) * (FIGURE + 1);
            let history = if room.history > 0 { room.history + 1 } else { 0 };
            let all = 2 + room.name + figures + history;
            assert!(width < 16 || all <= width, "{all} of {width} columns");
            assert!(width < 80 || room.columns.len() == Column::ALL.len(), "a column is missing at {width}");
        }
        assert!(Room::of(80).history >= HISTORY, "no history at 80 columns");
    }

    #[test]
    fn the_line_that_is_looked_at_is_shown() {
        for selected in 0..100 {
            let first = first_shown(selected, 12, 100);
            assert!((first..first + 12).contains(&selected) && first <= 88, "{first} for {selected}");
        }
        assert_eq!(first_shown(2, 12, 3), 0);
    }
}
