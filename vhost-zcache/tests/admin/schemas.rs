// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Answers are as the OpenAPI document says.

use serde_json::{Value, json};

use crate::client::wire::PERSISTENT;
use crate::client::{Client, page};
use crate::file::with;
use crate::http::{Answer, Asked};

/// The document, as the file has it.
fn document() -> Value {
    serde_json::from_str(include_str!("../../../admin/openapi.json")).expect("a document")
}

/// An answer to a request at a path of the document is one that it has.
fn conforms(document: &Value, method: &str, path: &str, answer: &Answer) {
    let operation = &document["paths"][path][method.to_lowercase()];
    let response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{method} {path}: {} is not in the document", answer.status);
    let kind = answer.head.lines().find_map(|line| line.strip_prefix("content-type: ")).expect("a media type");
    let content = response["content"].as_object().expect("a body");
    let (_, content) = content.iter().find(|(known, _)| kind.starts_with(known.as_str())).unwrap_or_else(|| {
        panic!("{method} {path}: {kind} is not in the document");
    });
    if !kind.contains("json") {
        return;
    }
    let mut schema = content["schema"].clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let answer = answer.json();
    let faults: Vec<String> =
        validator.iter_errors(&answer).map(|error| format!("{}: {error}", error.instance_path)).collect();
    assert!(faults.is_empty(), "{method} {path}: {faults:?}\n{answer}");
}

#[test]
fn answers_of_a_daemon_are_as_the_document_says() {
    let document = document();
    let asked = Asked::start(&with("memory-limit = '64M'", &["busy1", "b"]));
    let mut guest = Client::attach(&asked.daemon.socket("busy1"));
    guest.create(1, PERSISTENT);
    guest.create(2, 0);
    for number in 0..100 {
        guest.put(1 + u32::from(number % 2 == 0), 1, number, &page(number));
        guest.get(2, 1, number).ok();
    }
    let name = "busy1";
    let looks = ["/v1/health", "/v1/stats", "/v1/store", "/v1/guests", "/metrics", "/v1/openapi.json"];
    for path in looks {
        let answer = asked.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        conforms(&document, "GET", path, &answer);
    }
    for of_it in ["", "/pools"] {
        for name in [name, "b", "nobody"] {
            let answer = asked.get(&format!("/v1/guests/{name}{of_it}"));
            conforms(&document, "GET", &format!("/v1/guests/{{name}}{of_it}"), &answer);
        }
    }
    let socket = asked.daemon.socket("c").display().to_string();
    let at = "/v1/guests/{name}";
    for (method, path, at, body) in [
        ("PUT", "/v1/guests/c", at, json!({ "socket": socket, "weight": 50 })),
        ("PUT", "/v1/guests/c", at, json!({ "memory_limit": "1M" })),
        ("PUT", "/v1/guests/c", at, json!({ "memory_limit": "x" })),
        ("PATCH", "/v1/guests/c", at, json!({ "memory_limit": null, "frozen": true })),
        ("PATCH", "/v1/guests/nobody", at, json!({})),
        ("DELETE", "/v1/guests/c", at, json!({})),
        ("DELETE", "/v1/guests/busy1", at, json!({})),
        ("PATCH", "/v1/settings", "/v1/settings", json!({ "memory_limit": "32M", "log_level": "info" })),
        ("POST", "/v1/give-back", "/v1/give-back", json!({ "bytes": 4096 })),
        ("POST", "/v1/guests/b/freeze", "/v1/guests/{name}/freeze", json!({})),
        ("POST", "/v1/guests/b/thaw", "/v1/guests/{name}/thaw", json!({})),
        ("POST", "/v1/guests/busy1/flush", "/v1/guests/{name}/flush", json!({})),
        ("POST", "/v1/guests/busy1/flush?pool=77", "/v1/guests/{name}/flush", json!({})),
        ("POST", "/v1/reload", "/v1/reload", json!({})),
        ("POST", "/v1/upgrade", "/v1/upgrade", json!({})),
    ] {
        let answer = asked.send(method, path, &body.to_string());
        assert!(answer.status < 500, "{method} {path}: {answer:?}");
        conforms(&document, method, at, &answer);
    }
}

#[test]
fn what_is_documented_is_there() {
    let document = document();
    let asked = Asked::start(&with("", &["a"]));
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let answer = asked.ask(&method.to_uppercase(), &path.replace("{name}", "nobody"), &[], "");
            assert_ne!(answer.status, 405, "{method} {path}");
            conforms(&document, method, path, &answer);
        }
    }
}
