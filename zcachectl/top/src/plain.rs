// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table as text, for pipes and for terminals that are none.

use crate::format::FIGURE;
use crate::model::{Column, Model};
use crate::view::figure;

/// The daemon's line, and one for each guest. Names are whole.
#[must_use]
pub fn table(model: &Model) -> String {
    let rows = model.rows();
    let names = rows.iter().map(|row| figure(row, Column::Guest));
    let width = names.map(|name| unicode_width::UnicodeWidthStr::width(name.as_str())).max().unwrap_or(0);
    let width = width.max(Column::Guest.title().len());
    let line = |cells: &mut dyn Iterator<Item = (Column, String)>| {
        let mut line = String::new();
        for (column, cell) in cells {
            let cells = unicode_width::UnicodeWidthStr::width(cell.as_str());
            if column == Column::Guest {
                line += &cell;
                line += &" ".repeat(width - cells);
            } else {
                line += &" ".repeat(1 + FIGURE.saturating_sub(cells));
                line += &cell;
            }
        }
        line.truncate(line.trim_end().len());
        line + "\n"
    };
    let mut text = line(&mut Column::ALL.into_iter().map(|column| (column, column.title().to_owned())));
    for row in rows {
        text += &line(&mut Column::ALL.into_iter().map(|column| (column, figure(row, column))));
    }
    text
}
