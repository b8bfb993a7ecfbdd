// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is written is what the format says, and true.

mod parsed;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use parsed::Exposition;
use zcache_metrics::catalogue::METRICS;
use zcache_metrics::metric::Kind;
use zcache_metrics::render;
use zcache_report::sample;

#[test]
fn every_metric_is_there_and_nothing_else() {
    let written: BTreeSet<String> = Exposition::of(&render(&sample::report(2, 10))).families.keys().cloned().collect();
    let known: BTreeSet<String> = METRICS.iter().map(zcache_metrics::metric::Metric::name).collect();
    assert_eq!(written, known);
}

#[test]
fn labels_are_those_of_the_catalogue() {
    let exposition = Exposition::of(&render(&sample::report(2, 10)));
    for metric in METRICS {
        for (_, labels) in exposition.samples_of(&metric.name()) {
            let names: Vec<&str> = labels.keys().map(String::as_str).filter(|name| *name != "le").collect();
            let expected: BTreeSet<&str> = metric.labels.iter().copied().collect();
            assert_eq!(names, expected.into_iter().collect::<Vec<_>>(), "labels of {}", metric.name());
        }
    }
}

#[test]
fn counters_grow_with_what_they_count() {
    let (earlier, later) = (sample::report(3, 10), sample::report(3, 11));
    let (earlier, later) = (Exposition::of(&render(&earlier)), Exposition::of(&render(&later)));
    for (name, labels, before) in &earlier.samples {
        let is_counted = [Kind::Counter, Kind::Histogram].iter().any(|kind| earlier.is_of(name, *kind));
        let now = later.value(name, labels);
        assert!(now.is_some(), "{name} {labels:?} has gone");
        assert!(!is_counted || now >= Some(*before), "{name} {labels:?} went back from {before} to {now:?}");
    }
}

#[test]
fn a_guest_is_counted_for_itself() {
    let exposition = Exposition::of(&render(&sample::report(3, 10)));
    for number in 1..=3_u32 {
        let guest = format!("vm-{number:03}");
        let value = |name: &str, more: &[(&str, &str)]| {
            let labels =
                [("guest", guest.as_str())].into_iter().chain(more.iter().copied()).map(|(k, v)| (k.into(), v.into()));
            exposition.value(name, &labels.collect())
        };
        let answers = value("zcache_guest_requests_total", &[("operation", "get"), ("status", "miss")]);
        assert_eq!(answers, Some(f64::from(number) * 100.0));
        let refused = value("zcache_guest_refused_puts_total", &[("reason", "store_full")]);
        assert_eq!(refused, Some(f64::from(number) * 20.0));
        // Two pools that are there, and those that are not.
        let puts = value("zcache_guest_pool_puts_total", &[("kind", "ephemeral")]);
        assert_eq!(puts, Some(f64::from(number) * 350.0 * 3.0));
    }
}

#[test]
fn buckets_add_up() {
    let exposition = Exposition::of(&render(&sample::report(1, 10)));
    let name = "zcache_guest_request_duration_seconds";
    let gets: Vec<_> = exposition
        .samples_of(name)
        .filter(|(_, labels)| labels.get("operation").is_some_and(|of| of == "get"))
        .collect();
    let of = |suffix: &'static str| gets.iter().filter(move |(sample, _)| sample.ends_with(suffix));
    let values: Vec<f64> = of("_bucket").filter_map(|(name, labels)| exposition.value(name, labels)).collect();
    assert_eq!(values.len(), 23, "one for each power of two, and one for all");
    assert!(values.is_sorted(), "they are cumulative: {values:?}");
    assert_eq!((values.first(), values.last()), (Some(&0.0), Some(&400.0)));
    let (count_name, count_labels) = of("_count").next().expect("a count");
    assert_eq!(exposition.value(count_name, count_labels), Some(400.0));
    let (sum_name, sum_labels) = of("_sum").next().expect("a sum");
    assert_eq!(exposition.value(sum_name, sum_labels), Some(400.0 * 5e-6));
}

#[test]
fn any_name_of_a_guest_is_one_value() {
    for name in ["\"", "\\", "\n", "a\\\"b\n}{", "/run/zcache/é.sock", "", " # EOF"] {
        let mut report = sample::report(1, 10);
        name.clone_into(&mut report.guests[0].name);
        let exposition = Exposition::of(&render(&report));
        let names: BTreeSet<&String> =
            exposition.samples.iter().filter_map(|(_, labels, _)| labels.get("guest")).collect();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), [name]);
    }
}

/// A program of others', which knows nothing of this one.
const PARSE: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
families = list(parse(sys.stdin.read()))
print(len(families), sum(len(family.samples) for family in families))
";

#[test]
fn the_parser_of_prometheus_reads_it() {
    let python = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    };
    let is_there = python(&["-c", "import prometheus_client.openmetrics.parser"]).stderr(Stdio::null()).status();
    if !is_there.is_ok_and(|status| status.success()) {
        println!("skipped: python3 has no module prometheus_client");
        return;
    }
    let mut report = sample::report(3, 10);
    report.guests[0].name = "a\\\"b\nc".into();
    let text = render(&report);
    let mut child = python(&["-c", PARSE]).spawn().expect("python3 was there just now");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "the parser does not take it:\n{text}");
    let samples = Exposition::of(&text).samples.len();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{} {samples}", METRICS.len()));
}
