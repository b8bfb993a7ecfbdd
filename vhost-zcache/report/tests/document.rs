// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The document as it is written, read and described.

use std::collections::BTreeSet;

use serde_json::Value;
use zcache_report::{Report, sample};

const DESCRIPTION: &str = include_str!("../../../docs/stats.md");

#[test]
fn what_is_written_can_be_read() {
    let report = sample::report(3, 10);
    let text = serde_json::to_string_pretty(&report).expect("it can be written");
    let read: Report = serde_json::from_str(&text).expect("it can be read");
    assert_eq!(read, report);
}

#[test]
fn a_field_of_a_newer_daemon_is_left_alone() {
    let report = sample::report(1, 10);
    let mut value = serde_json::to_value(&report).expect("it can be written");
    value["newer"] = 1.into();
    value["store"]["newer"] = 1.into();
    value["guests"][0]["newer"] = 1.into();
    value["guests"][0]["pools"][0]["newer"] = 1.into();
    assert_eq!(serde_json::from_value::<Report>(value).expect("it can be read"), report);
}

/// Names of all fields of a document; not those of `requests`, which are of the protocol.
fn fields(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                names.insert(name.clone());
                if name != "requests" {
                    fields(value, names);
                }
            }
        }
        Value::Array(entries) => entries.iter().for_each(|entry| fields(entry, names)),
        _ => {}
    }
}

/// Names at the beginnings of rows of tables.
fn described() -> BTreeSet<String> {
    let rows = DESCRIPTION.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    rows.map(str::to_owned).collect()
}

#[test]
fn each_field_is_described_and_each_that_is_described_is_there() {
    let mut names = BTreeSet::new();
    fields(&serde_json::to_value(sample::report(1, 10)).expect("it can be written"), &mut names);
    let described = described();
    let in_text = |name: &&String| DESCRIPTION.contains(&format!("`{name}`"));
    let missing: Vec<_> = names.iter().filter(|name| !in_text(name)).collect();
    assert!(missing.is_empty(), "not in docs/stats.md: {missing:?}");
    let unknown: Vec<_> = described.difference(&names).collect();
    assert!(unknown.is_empty(), "in docs/stats.md, but not in the document: {unknown:?}");
}
