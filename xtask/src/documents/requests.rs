// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests to the admin socket, beside its OpenAPI file.

use serde_json::Value;

fn document() -> Value {
    serde_json::from_str(include_str!("../../../admin/openapi.json")).expect("the OpenAPI file")
}

/// What is there at a path, which may have anything in place of names.
fn at<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    let path = path.split('?').next().unwrap_or(path);
    let is_same = |template: &str| {
        template.split('/').count() == path.split('/').count()
            && template.split('/').zip(path.split('/')).all(|(part, said)| part == said || part.starts_with('{'))
    };
    document["paths"].as_object()?.iter().find(|(template, _)| is_same(template)).map(|(_, found)| found)
}

/// A path that is mentioned, and is none.
pub(super) fn fault_of_path(span: &str) -> Option<String> {
    let is_path = span.starts_with("/v1/") && !span.contains(' ');
    (is_path && at(&document(), span).is_none()).then(|| format!("nothing is at {span}"))
}

/// What is wrong with a request by curl, if it is one to the admin socket.
pub(super) fn fault_of_curl(arguments: &[&str]) -> Option<String> {
    let after = |names: &[&str]| {
        let at = arguments.iter().position(|word| names.contains(word))?;
        arguments.get(at + 1).copied()
    };
    after(&["--unix-socket"]).filter(|socket| socket.ends_with("vhost-zcache/admin.sock"))?;
    let address = arguments.iter().find_map(|word| word.strip_prefix("http://"))?;
    let path = &address[address.find('/')?..];
    let document = document();
    let Some(found) = at(&document, path) else { return Some(format!("nothing is at {path}")) };
    let method = after(&["-X", "--request"]).unwrap_or("GET");
    let Some(operation) = found.get(method.to_lowercase()) else {
        return Some(format!("{method} is not for {path}"));
    };
    let said = after(&["-d", "--data"])?;
    let Ok(Value::Object(said)) = serde_json::from_str(said) else { return Some(format!("{said} is no JSON object")) };
    let schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str();
    let name = schema.and_then(|schema| schema.rsplit('/').next()).unwrap_or_default();
    let known = &document["components"]["schemas"][name]["properties"];
    said.keys().find(|key| known.get(key).is_none()).map(|key| format!("{name} has no {key}"))
}
