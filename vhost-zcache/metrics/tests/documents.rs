// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `docs/metrics.md`, the dashboard and the rules know each metric as it is.

use std::collections::BTreeSet;

use serde_json::Value;
use zcache_metrics::catalogue::METRICS;
use zcache_metrics::metric::{Metric, Unit};

const DESCRIPTION: &str = include_str!("../../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../../docs/monitoring/grafana-dashboard.json");
const ALERTS: &str = include_str!("../../../docs/monitoring/alerts.yml");

/// A metric's row.
fn row(metric: &Metric) -> String {
    let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let unit = metric.unit.map_or("", Unit::name);
    format!("| `{}` | {} | {unit} | {} | {} |", metric.name(), metric.kind.name(), labels.join(", "), metric.help)
}

#[test]
fn the_description_is_the_catalogue() {
    let described: BTreeSet<&str> = DESCRIPTION.lines().filter(|line| line.starts_with("| `")).collect();
    let rows: Vec<String> = METRICS.iter().map(row).collect();
    let expected: BTreeSet<&str> = rows.iter().map(String::as_str).collect();
    let missing: Vec<_> = expected.difference(&described).collect();
    assert!(missing.is_empty(), "docs/metrics.md lacks these rows:\n{missing:#?}");
    let unknown: Vec<_> = described.difference(&expected).collect();
    assert!(unknown.is_empty(), "docs/metrics.md has rows of no metric:\n{unknown:#?}");
}

/// Words of a text that look like our metrics.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("zcache_")).collect()
}

/// Names of all samples there are.
fn samples() -> BTreeSet<String> {
    let of =
        |metric: &Metric| metric.kind.suffixes().iter().map(|suffix| format!("{}{suffix}", metric.name())).collect();
    METRICS.iter().flat_map(|metric| -> Vec<String> { of(metric) }).collect()
}

fn check(document: &str, text: &str) {
    let samples = samples();
    let named = named(text);
    assert!(named.len() > 5, "{document} names few metrics: {named:?}");
    let unknown: Vec<_> = named.iter().filter(|name| !samples.contains(**name)).collect();
    assert!(unknown.is_empty(), "{document} names what is no sample: {unknown:?}");
}

#[test]
fn the_rules_name_metrics_that_there_are() {
    check("alerts.yml", ALERTS);
    let alerts = ALERTS.lines().filter(|line| line.trim_start().starts_with("- alert: ")).count();
    for field in ["expr: ", "severity: ", "summary: ", "description: "] {
        let fields = ALERTS.lines().filter(|line| line.trim_start().starts_with(field)).count();
        assert_eq!(fields, alerts, "each rule has its {field}");
    }
}

/// All texts that are under a name somewhere in a document.
fn texts<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(name).and_then(Value::as_str));
            object.values().for_each(|value| texts(value, name, found));
        }
        Value::Array(entries) => entries.iter().for_each(|entry| texts(entry, name, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_names_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let mut expressions = Vec::new();
    texts(&dashboard, "expr", &mut expressions);
    texts(&dashboard, "query", &mut expressions);
    assert!(expressions.len() > 20, "few panels: {expressions:?}");
    check("grafana-dashboard.json", &expressions.join(" "));
}
