// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is shown. Documents come in by [`Model::update`], keys by [`Model::press`]; [`crate::view`]
//! reads what has become of them.

mod figures;
mod history;
mod input;
mod order;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use zcache_report::{Report, StoreReport};

pub use figures::{Figures, Trouble};
pub use history::History;
pub use input::{Input, Wants};
pub use order::Column;

/// A guest's line.
#[derive(Clone, Debug)]
pub struct Row {
    /// The guest, as the daemon calls it.
    pub name: String,
    /// What it has and does.
    pub figures: Figures,
    /// Its rates of late.
    pub history: History,
}

/// The daemon as a whole.
#[derive(Clone, Debug, Default)]
pub struct Daemon {
    /// Its release.
    pub version: String,
    /// Since its start.
    pub uptime_seconds: u64,
    /// Workers that were started in place of one before.
    pub worker_restarts: u64,
    /// The store.
    pub store: StoreReport,
    /// Of all guests.
    pub total: Figures,
    /// Rates of all guests of late.
    pub history: History,
}

/// What is on the screen besides the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    #[default]
    Table,
    /// The line in which the filter is written.
    Filter,
    /// What keys do.
    Help,
}

/// See the module.
#[derive(Default)]
pub struct Model {
    /// The document before, to which rates refer.
    last: Option<(Report, Instant)>,
    daemon: Daemon,
    rows: Vec<Row>,
    /// Why there is nothing newer.
    error: Option<String>,
    mode: Mode,
    paused: bool,
    sort: Column,
    reversed: bool,
    filter: String,
    /// The guest that is looked at.
    selected: Option<String>,
}

impl Model {
    /// Takes a document that the daemon gave at that time. None is taken while it is paused: the
    /// next one's rates are of the whole time then.
    pub fn update(&mut self, report: &Report, at: Instant) {
        self.error = None;
        if self.paused {
            return;
        }
        let before = self.last.as_ref().map(|(report, then)| (report, at.saturating_duration_since(*then)));
        if before.is_some_and(|(_, passed)| passed.is_zero()) {
            return;
        }
        let earlier: HashMap<&str, _> =
            before.iter().flat_map(|(report, _)| &report.guests).map(|guest| (guest.name.as_str(), guest)).collect();
        let passed = before.map_or(Duration::ZERO, |(_, passed)| passed);
        let mut histories: HashMap<String, History> = self.rows.drain(..).map(|row| (row.name, row.history)).collect();
        let mut total = Figures::default();
        self.rows = report
            .guests
            .iter()
            .map(|guest| {
                let figures = Figures::of(guest, earlier.get(guest.name.as_str()).copied(), passed);
                total.add(&figures);
                let mut history = histories.remove(&guest.name).unwrap_or_default();
                history.push(&figures);
                Row { name: guest.name.clone(), figures, history }
            })
            .collect();
        let mut history = std::mem::take(&mut self.daemon.history);
        history.push(&total);
        self.daemon = Daemon {
            version: report.version.clone(),
            uptime_seconds: report.uptime_seconds,
            worker_restarts: report.worker_restarts,
            store: report.store.clone(),
            total,
            history,
        };
        self.last = Some((report.clone(), at));
    }

    /// There was no document. What was seen last stays.
    pub fn fail(&mut self, error: String) {
        self.error = Some(error);
    }

    /// The daemon as a whole.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Number of guests, those included that the filter leaves out.
    #[must_use]
    pub fn guests(&self) -> usize {
        self.rows.len()
    }

    /// The lines that pass the filter, in order.
    #[must_use]
    pub fn rows(&self) -> Vec<&Row> {
        let filter = self.filter.to_lowercase();
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| row.name.to_lowercase().contains(&filter)).collect();
        rows.sort_by(|a, b| {
            let order = self.sort.compare(a, b);
            let order = if self.reversed { order.reverse() } else { order };
            order.then_with(|| a.name.cmp(&b.name))
        });
        rows
    }

    /// Which of the [`Model::rows`] is looked at.
    #[must_use]
    pub fn selected(&self) -> Option<usize> {
        let rows = self.rows();
        let at = rows.iter().position(|row| Some(&row.name) == self.selected.as_ref());
        at.or_else(|| (!rows.is_empty()).then_some(0))
    }

    /// Why there is nothing newer, if there is not.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// What is on the screen.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether it stands still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The column by which lines are in order, and whether it is the other way around.
    #[must_use]
    pub fn sort(&self) -> (Column, bool) {
        (self.sort, self.reversed)
    }

    /// What names of guests have to contain.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }
}

#[cfg(test)]
mod tests {
    use zcache_report::sample;

    use super::*;

    /// A model that has seen documents of those ages, a second apart.
    pub(super) fn model(guests: u64, ages: &[u64]) -> Model {
        let mut model = Model::default();
        let start = Instant::now();
        for (second, age) in (0..).zip(ages) {
            model.update(&sample::report(guests, *age), start + Duration::from_secs(second));
        }
        model
    }

    fn row(model: &Model, name: &str) -> Row {
        model.rows.iter().find(|row| row.name == name).expect("the guest is there").clone()
    }

    #[test]
    fn rates_are_differences_over_time() {
        let figures = row(&model(3, &[10, 14]), "vm-002").figures;
        // Two times four of each, see the sample.
        assert_eq!((figures.puts, figures.gets), (Some(35.0 * 8.0), Some(40.0 * 8.0)));
        assert_eq!(figures.hits, Some(30.0 * 8.0));
        assert_eq!(figures.refused.total(), Some(11.0 * 8.0));
    }

    #[test]
    fn without_a_document_before_there_are_no_rates() {
        let model = model(1, &[10]);
        assert_eq!(row(&model, "vm-001").figures.puts, None);
        assert_eq!(model.daemon.total.puts, None);
    }

    #[test]
    fn a_counter_that_went_back_has_begun_anew() {
        let figures = row(&model(1, &[10, 2]), "vm-001").figures;
        assert_eq!((figures.puts, figures.gets), (Some(70.0), Some(80.0)), "what was counted since then");
    }

    #[test]
    fn a_guest_that_comes_has_no_rates_at_first_and_one_that_goes_is_forgotten() {
        let mut model = model(1, &[10]);
        let at = |seconds| model.last.as_ref().expect("a document").1 + Duration::from_secs(seconds);
        let (then, later) = (at(1), at(2));
        model.update(&sample::report(2, 11), then);
        assert_eq!(row(&model, "vm-002").figures.puts, None);
        model.update(&sample::report(1, 12), later);
        assert_eq!(model.guests(), 1);
    }

    #[test]
    fn the_whole_is_the_sum() {
        let model = model(3, &[10, 11]);
        assert_eq!(model.daemon.total.puts, Some(35.0 * 6.0));
        assert_eq!(model.daemon.history.puts().collect::<Vec<_>>(), [35.0 * 6.0]);
    }

    #[test]
    fn while_it_is_paused_nothing_changes() {
        let mut model = model(1, &[10, 11]);
        model.press(Input::Letter('p'));
        let start = model.last.as_ref().expect("a document").1;
        model.update(&sample::report(1, 50), start + Duration::from_secs(1));
        assert_eq!(model.daemon.uptime_seconds, 11);
        model.press(Input::Letter('p'));
        model.update(&sample::report(1, 51), start + Duration::from_secs(4));
        assert_eq!(row(&model, "vm-001").figures.puts, Some(35.0 * 10.0), "over the whole time");
    }

    #[test]
    fn a_failure_leaves_what_was_seen() {
        let mut model = model(2, &[10, 11]);
        model.fail("gone".into());
        assert_eq!((model.error(), model.guests()), (Some("gone"), 2));
        let later = model.last.as_ref().expect("a document").1 + Duration::from_secs(1);
        model.update(&sample::report(2, 12), later);
        assert_eq!(model.error(), None);
    }
}
