// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The daemon as a whole.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span, Text};

use super::Look;
use crate::format::{NOTHING, age, bytes, number, percent, printable};
use crate::model::Model;

pub(super) const LINES: u16 = 4;

/// Columns of the histories of all guests.
const HISTORY: usize = 20;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, look: Look) {
    frame.render_widget(
        Text::from(vec![daemon(model, look), memory(model), requests(model, look), refusals(model, look)]),
        area,
    );
}

fn daemon(model: &Model, look: Look) -> Line<'static> {
    let daemon = model.daemon();
    let version: String = daemon.version.chars().map(printable).collect();
    let mut line = Line::from(vec![
        Span::styled(format!("vhost-zcache {version}"), look.strong()),
        Span::raw(format!("  up {}", age(daemon.uptime_seconds))),
        Span::raw(format!("  guests {} of {}", daemon.store.guests, model.guests())),
    ]);
    let restarts = format!("  worker restarts {}", daemon.worker_restarts);
    let style = if daemon.worker_restarts > 0 { look.strong() } else { Style::new() };
    line.push_span(Span::styled(restarts, style));
    if daemon.store.background_failures > 0 {
        line.push_span(Span::styled(
            format!("  background failures {}", daemon.store.background_failures),
            look.alarm(),
        ));
    }
    line
}

fn memory(model: &Model) -> Line<'static> {
    let store = &model.daemon().store;
    let pages = store.contents.pages as f64;
    Line::raw(format!(
        "memory {} of {} ({})  ratio {:.2}  pages {}  same {}  raw {}  cold {}",
        bytes(store.physical_bytes),
        bytes(store.memory_limit),
        percent(store.physical_bytes as f64, store.memory_limit as f64),
        store.ratio,
        number(pages),
        percent(store.contents.same_filled as f64, pages),
        percent(store.contents.raw as f64, pages),
        percent(store.contents.cold as f64, pages),
    ))
}

fn requests(model: &Model, look: Look) -> Line<'static> {
    let daemon = model.daemon();
    let total = &daemon.total;
    let rate = |rate: Option<f64>| rate.map_or_else(|| NOTHING.into(), number);
    let hits = total.hits.zip(total.gets).map_or_else(|| NOTHING.into(), |(hits, gets)| percent(hits, gets));
    Line::from(vec![
        Span::raw(format!("puts/s {:>5} ", rate(total.puts))),
        Span::styled(look.bars.history(daemon.history.puts(), HISTORY), look.bars()),
        Span::raw(format!("  gets/s {:>5} ", rate(total.gets))),
        Span::styled(look.bars.history(daemon.history.gets(), HISTORY), look.bars()),
        Span::raw(format!("  hits {hits}")),
    ])
}

fn refusals(model: &Model, look: Look) -> Line<'static> {
    let total = &model.daemon().total;
    let rate = |rate: Option<f64>| rate.map_or_else(|| NOTHING.into(), number);
    let mut line = Line::raw("refused/s");
    for (reason, refused) in total.refused.by_reason {
        let style = if refused.is_some_and(|refused| refused > 0.0) { look.strong() } else { Style::new() };
        line.push_span(Span::styled(format!("  {reason} {}", rate(refused)), style));
    }
    line
}
