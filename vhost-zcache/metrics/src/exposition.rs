// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Writes a document's metrics.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{self, Registry};
use zcache_report::{BOUNDS, Histogram, Report};

use crate::catalogue::METRICS;
use crate::metric::{Kind, Metric, Unit, Value};

/// What it is, for the header of an answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a document, in the OpenMetrics text format.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition(report.clone())));
    let mut text = String::new();
    // Nothing that writes to a string fails.
    let _ = text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Exposition(Report);

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        METRICS.iter().try_for_each(|metric| write(metric, &self.0, &mut encoder))
    }
}

/// Writes a metric, if there is anything of it.
fn write(metric: &Metric, report: &Report, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let samples = metric.samples(report);
    if samples.is_empty() {
        return Ok(());
    }
    let unit = metric.unit.map(|unit| match unit {
        Unit::Bytes => registry::Unit::Bytes,
        Unit::Seconds => registry::Unit::Seconds,
    });
    let kind = match metric.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    };
    // The format's own examples end with a full stop, as the library's descriptions do.
    let help = format!("{}.", metric.help);
    let mut family = encoder.encode_descriptor(metric.stem, &help, unit.as_ref(), kind)?;
    for sample in samples {
        if metric.kind == Kind::Info {
            family.encode_info(&sample.labels)?;
            continue;
        }
        let mut encoder = family.encode_family(&sample.labels)?;
        match (metric.kind, sample.value) {
            (Kind::Counter, Value::Whole(number)) => counter(&mut encoder, number)?,
            (_, Value::Whole(number)) => encoder.encode_gauge(&number)?,
            (_, Value::Fraction(number)) => encoder.encode_gauge(&number)?,
            (_, Value::Times(times)) => histogram(&mut encoder, times)?,
        }
    }
    Ok(())
}

fn counter(encoder: &mut MetricEncoder<'_>, number: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, _, f64>(&number, None::<&Exemplar<_, _>>)
}

/// Every second bound is enough here, and they are whole powers of two.
fn histogram(encoder: &mut MetricEncoder<'_>, times: &Histogram) -> fmt::Result {
    let mut below = 0;
    let mut buckets = Vec::new();
    for bound in BOUNDS.into_iter().step_by(2) {
        let up_to = times.up_to(bound);
        buckets.push((seconds(bound), up_to - below));
        below = up_to;
    }
    buckets.push((f64::INFINITY, times.count.saturating_sub(below)));
    encoder.encode_histogram::<NoLabelSet>(seconds(times.sum_ns), times.count, &buckets, None)
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
