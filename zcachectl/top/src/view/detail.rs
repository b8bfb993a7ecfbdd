// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest that is looked at.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span, Text};
use zcache_report::Histogram;

use super::Look;
use crate::format::{NOTHING, bytes, name, number, percent, time};
use crate::model::{Model, Row};

pub(super) const LINES: u16 = 5;

/// Columns of the histories.
const HISTORY: usize = 20;
/// Columns of the name in the title.
const NAME: usize = 36;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, look: Look) {
    let rows = model.rows();
    let Some(row) = model.selected().and_then(|at| rows.get(at)) else { return };
    let figures = &row.figures;
    let (puts, gets) = (row.history.puts(), row.history.gets());
    let lines = vec![
        title(row, look),
        times("put", figures.puts, &figures.put_times, look.bars.history(puts, HISTORY), look),
        times("get", figures.gets, &figures.get_times, look.bars.history(gets, HISTORY), look),
        refusals(row, look),
        contents(row),
    ];
    frame.render_widget(Text::from(lines), area);
}

fn title(row: &Row, look: Look) -> Line<'static> {
    let figures = &row.figures;
    let limit = figures.memory_limit.map_or_else(String::new, |limit| format!(" of {}", bytes(limit)));
    let mut line = Line::from(vec![
        Span::styled(format!("= {} =", name(&row.name, NAME)), look.strong()),
        Span::raw(format!(" {}{limit}", bytes(figures.physical_bytes))),
    ]);
    if let Some(trouble) = figures.trouble {
        let style = if trouble.is_serious() { look.alarm() } else { Style::new() };
        line.push_span(Span::styled(format!("  {}", trouble.text()), style));
    }
    line
}

fn times(what: &str, rate: Option<f64>, times: &Histogram, history: String, look: Look) -> Line<'static> {
    let rate = rate.map_or_else(|| NOTHING.into(), number);
    let parts = [("50%", 0.5), ("90%", 0.9), ("99%", 0.99), ("99.9%", 0.999)];
    let quantiles: String =
        parts.iter().map(|(name, part)| format!("  {name} {:>5}", time(times.quantile(*part)))).collect();
    Line::from(vec![
        Span::raw(format!("{what}s/s {rate:>5} ")),
        Span::styled(history, look.bars()),
        Span::raw(quantiles),
    ])
}

fn refusals(row: &Row, look: Look) -> Line<'static> {
    let rate = |rate: Option<f64>| rate.map_or_else(|| NOTHING.into(), number);
    let mut line = Line::raw("refused/s");
    for (reason, refused) in row.figures.refused.by_reason {
        let style = if refused.is_some_and(|refused| refused > 0.0) { look.strong() } else { Style::new() };
        line.push_span(Span::styled(format!("  {reason} {}", rate(refused)), style));
    }
    line
}

fn contents(row: &Row) -> Line<'static> {
    let contents = &row.figures.contents;
    let pages = contents.pages as f64;
    Line::raw(format!(
        "pages {}  swap {}  same {}  raw {}  cold {}  evicted/s {}",
        number(pages),
        number(row.figures.persistent_pages as f64),
        percent(contents.same_filled as f64, pages),
        percent(contents.raw as f64, pages),
        percent(contents.cold as f64, pages),
        row.figures.evicted.map_or_else(|| NOTHING.into(), number),
    ))
}
