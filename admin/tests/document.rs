// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The OpenAPI document.

use std::fs;
use std::path::Path;

/// When set, the file is written anew.
const WRITE: &str = "ZCACHE_WRITE_OPENAPI";

#[test]
fn the_file_is_the_document() {
    let mut document = zcache_admin::openapi::document().to_pretty_json().expect("a document");
    document.push('\n');
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &document).expect("the file");
    }
    let file = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        file == document,
        "admin/openapi.json is another: run this test with {WRITE}=1, and look at what it writes"
    );
}

#[test]
fn each_way_to_ask_says_what_it_does_and_what_may_come_of_it() {
    let document = serde_json::to_value(zcache_admin::openapi::document()).expect("a document");
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() >= 13, "{paths:?}");
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().expect("methods") {
            assert!(
                operation["summary"].as_str().is_some_and(|text| !text.is_empty()),
                "{method} {path} has no summary"
            );
            let responses = operation["responses"].as_object().expect("responses");
            let has = |first| responses.keys().any(|status| status.starts_with(first));
            assert!(has('2') && (has('4') || path == "/v1/openapi.json"), "{method} {path}: {:?}", responses.keys());
            for (status, response) in responses.iter().filter(|(status, _)| !status.starts_with('2')) {
                assert!(response["content"]["application/problem+json"].is_object(), "{method} {path}: {status}");
            }
        }
    }
}
