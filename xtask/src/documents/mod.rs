// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What documents tell users to type is understood by the programs that there are: each command
//! line by the program's own parser, each configuration by the daemon's, each request of the
//! admin socket by its OpenAPI file; units that are named are there.

mod blocks;
mod lines;
mod requests;

use std::fs;
use std::path::{Path, PathBuf};

use vhost_zcache::config;

use self::blocks::Block;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What is wrong with a document, a line each.
fn faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for Block { line, language, text } in blocks::of(text) {
        let found = match language {
            "" | "sh" | "console" => lines::faults(&text),
            "toml" => faults_of_configuration(&text),
            _ => Vec::new(),
        };
        faults.extend(found.into_iter().map(|fault| format!("block at line {line}: {fault}")));
    }
    for (line, span) in blocks::spans(text) {
        let found = lines::fault_of_mention(span).into_iter().chain(requests::fault_of_path(span));
        faults.extend(found.map(|fault| format!("line {line}: {fault}")));
    }
    faults.extend(units_without_file(text));
    faults
}

/// Users and groups are not the same on all hosts; that of the superuser is everywhere.
fn with_known_users(text: &str) -> String {
    let mut text = text.to_owned();
    for name in ["libvirt-qemu", "kvm", "zcache"] {
        for option in ["group=", "--group ", "--socket-group ", "group = \""] {
            text = text.replace(&format!("{option}{name}"), &format!("{option}root"));
        }
    }
    text
}

fn faults_of_configuration(text: &str) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), with_known_users(text)).expect("the file");
    config::check(file.path()).err().map(|faults| faults.lines()).unwrap_or_default()
}

/// Units of ours that a text names, and that are not there.
fn units_without_file(text: &str) -> Vec<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '@' | '.' | '-' | '_' | '*' | '%');
    let words = text.split(|c: char| !is_of_name(c)).map(|word| word.trim_end_matches('.'));
    let named = words.filter(|word| word.starts_with("vhost-zcache") || word.starts_with("zcache-admin"));
    let units = named.filter(|word| word.ends_with(".service") || word.ends_with(".socket"));
    units.filter(|unit| !unit_file(unit).exists()).map(|unit| format!("there is no unit {unit}")).collect()
}

/// The file of a unit, or of the template of an instance.
fn unit_file(unit: &str) -> PathBuf {
    let (name, end) = unit.rsplit_once('.').unwrap_or((unit, "service"));
    let name = name.split_once('@').map_or(name.to_owned(), |(template, _)| format!("{template}@"));
    Path::new(ROOT).join(format!("docs/{name}.{end}"))
}

/// Documents for those who use it.
fn documents() -> Vec<PathBuf> {
    let docs = fs::read_dir(Path::new(ROOT).join("docs")).expect("the documents");
    let mut all: Vec<PathBuf> = docs.map(|entry| entry.expect("a document").path()).collect();
    all.retain(|path| {
        path.extension().is_some_and(|end| ["md", "service", "socket"].iter().any(|known| end == *known))
    });
    all.push(Path::new(ROOT).join("README.md"));
    all
}

#[test]
fn what_documents_tell_to_type_is_understood() {
    let mut all = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).expect("the document");
        let is_unit = path.extension().is_some_and(|end| end != "md");
        let found = if is_unit { lines::faults_of_unit(&text) } else { faults(&text) };
        all.extend(found.into_iter().map(|fault| format!("{}: {fault}", path.display())));
    }
    assert!(all.is_empty(), "documents have faults:\n{}", all.join("\n"));
}

#[test]
fn each_kind_of_mistake_is_found() {
    for (text, fault) in [
        ("```\nvhost-zcache --socket-paths /run/a\n```\n", "--socket-paths"),
        ("```sh\nvhost-zcache --queues 4 \\\n    --memory-limit lots\n```\n", "--memory-limit"),
        ("```console\n$ zcachectl set web1 --weigth 7\n  nothing of ours\n```\n", "--weigth"),
        ("```\ncase x in\nstart) zcachectl ad vm /run/a ;;\nesac\n```\n", "ad"),
        ("```\ncargo xtask guest --kernel debian-13|debian-1 ...\n```\n", "debian-1"),
        ("```\nzcache-admin --metrics-address 0.0.0.0:1\n```\n", "0.0.0.0"),
        ("```\nsystemctl restart vhost-zcached\n```\n", "vhost-zcached"),
        ("```\napt install ./vhost-zcache_9.9.9_amd64.deb\n```\n", "9.9.9"),
        ("```\ncurl --unix-socket /run/vhost-zcache/admin.sock http://localhost/v1/guest\n```\n", "/v1/guest"),
        ("```\ncurl --unix-socket /run/vhost-zcache/admin.sock -X PUT http://x/v1/stats\n```\n", "PUT"),
        (
            "```\ncurl --unix-socket /run/vhost-zcache/admin.sock -X PUT http://x/v1/guests/a -d '{\"path\": \"/a\"}'\n```\n",
            "path",
        ),
        ("```\ncargo xtask chaos [--minute 15]\n```\n", "--minute"),
        ("```toml\n[guest.a]\nsocket = '/run/a'\nqueue = 4\n```\n", "queue"),
        ("Say `vhost-zcache reload --disconnected` then.\n", "--disconnected"),
        ("Say `zcachectl given-back` then.\n", "given-back"),
        ("Ask for `/v1/figures`.\n", "/v1/figures"),
        ("It is `vhost-zcached@web1.service`.\n", "vhost-zcached@web1.service"),
    ] {
        let found = faults(text);
        assert!(found.len() == 1 && found[0].contains(fault), "{text:?} has {fault:?} wrong, and not {found:?}");
    }
}
