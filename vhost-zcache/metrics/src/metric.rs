// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a metric is.

use std::borrow::Cow;

use zcache_report::{Histogram, Report};

/// A metric, and where it is found.
pub struct Metric {
    /// Its name, without the unit.
    pub stem: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its unit, with which the name ends.
    pub unit: Option<Unit>,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means, in a line.
    pub help: &'static str,
    /// Finds its samples in the document.
    pub(crate) find: for<'a> fn(&'a Report, &mut Samples<'a>),
}

/// Types of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows, or begins anew.
    Counter,
    /// Is what it is now.
    Gauge,
    /// Counts by size.
    Histogram,
    /// Is in the labels.
    Info,
}

impl Kind {
    /// As the format calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    /// What the names of its samples end with.
    #[must_use]
    pub fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["_total"],
            Self::Gauge => &[""],
            Self::Histogram => &["_bucket", "_count", "_sum"],
            Self::Info => &["_info"],
        }
    }
}

/// Units of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// As names end with it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        }
    }
}

impl Metric {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.unit.map_or_else(|| self.stem.to_owned(), |unit| format!("{}_{}", self.stem, unit.name()))
    }

    /// What it has to say of a document.
    pub(crate) fn samples<'a>(&self, report: &'a Report) -> Vec<Sample<'a>> {
        let mut samples = Samples { labels: self.labels, found: Vec::new() };
        (self.find)(report, &mut samples);
        samples.found
    }
}

/// A value with its labels.
pub(crate) struct Sample<'a> {
    pub(crate) labels: Vec<(&'static str, Cow<'a, str>)>,
    pub(crate) value: Value<'a>,
}

/// What a sample says.
pub(crate) enum Value<'a> {
    Whole(u64),
    Fraction(f64),
    Times(&'a Histogram),
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(is: bool) -> Self {
        Self::Whole(is.into())
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Fraction(number)
    }
}

impl<'a> From<&'a Histogram> for Value<'a> {
    fn from(times: &'a Histogram) -> Self {
        Self::Times(times)
    }
}

/// The samples of a metric that were found.
pub(crate) struct Samples<'a> {
    labels: &'static [&'static str],
    found: Vec<Sample<'a>>,
}

impl<'a> Samples<'a> {
    /// Adds one, with the values of the metric's labels in their order.
    pub(crate) fn add<const LABELS: usize>(&mut self, values: [&'a str; LABELS], value: impl Into<Value<'a>>) {
        debug_assert_eq!(self.labels.len(), LABELS, "a value for each label of {:?}", self.labels);
        let labels = self.labels.iter().copied().zip(values.map(Cow::Borrowed)).collect();
        self.found.push(Sample { labels, value: value.into() });
    }
}
