// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The C header and the Rust crate describe the same bytes.
//!
//! The names are taken from the header's own text, so that a constant or field
//! added on one side only is found; the values come from a C compiler.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

use zcache_protocol as zc;
use zcache_protocol::{
    Batch, Config, HelloBody, KeyBody, Opcode, PoolBody, Request, RequestHeader, RequestResult, Status,
};

const HEADER: &str = include_str!("../include/zcache.h");

/// What a name of the header stands for: a constant's value, or a size or offset in bytes.
type Facts = BTreeMap<String, u64>;

/// Name, offset and size of one member of a structure.
type Member = (&'static str, usize, usize);

/// `#define ZCACHE_NAME value` lines, in the header's order.
fn defined_names() -> Vec<&'static str> {
    HEADER
        .lines()
        .filter_map(|line| line.strip_prefix("#define "))
        .filter_map(|rest| rest.split_whitespace().next())
        .filter(|name| name.starts_with("ZCACHE_"))
        .collect()
}

/// `(structure, members)` of every `struct` and `union` that the header defines.
fn defined_aggregates() -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut lines = HEADER.lines();
    while let Some(line) = lines.next() {
        let is_aggregate = line.starts_with("struct ") || line.starts_with("union ");
        let Some(tag) = line.strip_suffix(" {").filter(|_| is_aggregate) else { continue };
        let members = lines
            .by_ref()
            .take_while(|line| *line != "};")
            .filter_map(|line| line.split(';').next())
            .filter_map(|declaration| declaration.split_whitespace().last())
            .map(|declarator| declarator.split('[').next().unwrap_or(declarator).to_owned())
            .collect();
        found.push((tag.to_owned(), members));
    }
    found
}

/// What a C compiler makes of the header, compiled as user-space C11.
fn facts_of_the_header() -> Facts {
    let mut program =
        String::from("#include <stddef.h>\n#include <stdio.h>\n#include \"zcache.h\"\nint main(void)\n{\n");
    for name in defined_names() {
        writeln!(program, "printf(\"{name} %llu\\n\", (unsigned long long)({name}));").unwrap();
    }
    for (tag, members) in defined_aggregates() {
        writeln!(program, "printf(\"sizeof {tag} %zu\\n\", sizeof({tag}));").unwrap();
        for member in members {
            writeln!(program, "printf(\"{tag} {member} %zu\\n\", offsetof({tag}, {member}));").unwrap();
            writeln!(program, "printf(\"sizeof {tag} {member} %zu\\n\", sizeof((({tag} *)0)->{member}));").unwrap();
        }
    }
    program.push_str("return 0;\n}\n");

    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("abi.c");
    let binary = dir.path().join("abi");
    std::fs::write(&source, program).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let compiled = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(&include)
        .arg(&source)
        .arg("-o")
        .arg(&binary)
        .output()
        .expect("a C compiler named cc is needed to compare the header with the crate");
    assert!(compiled.status.success(), "zcache.h does not compile: {}", String::from_utf8_lossy(&compiled.stderr));

    let output = Command::new(&binary).output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// Collects what the crate says under the header's names.
#[derive(Default)]
struct CrateFacts(Facts);

impl CrateFacts {
    fn constant(&mut self, name: &str, value: u64) {
        self.0.insert(name.to_owned(), value);
    }

    fn size(&mut self, tag: &str, size: usize) {
        self.constant(&format!("sizeof {tag}"), size as u64);
    }

    /// Members by name, offset and size; `base` is where the Rust body starts in the C structure.
    fn members(&mut self, tag: &str, base: usize, members: Vec<Member>) {
        for (name, offset, size) in members {
            self.constant(&format!("{tag} {name}"), (base + offset) as u64);
            self.constant(&format!("sizeof {tag} {name}"), size as u64);
        }
    }
}

/// Name, offset and size of fields of one Rust structure.
macro_rules! fields {
    ($type:ty: $($field:ident),+) => {
        vec![$((stringify!($field), offset_of!($type, $field), {
            fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize { size_of::<F>() }
            size_of_field(|value: &$type| &value.$field)
        })),+]
    };
}

fn facts_of_the_crate() -> Facts {
    let mut facts = CrateFacts::default();
    for (name, value) in [
        ("ZCACHE_MAGIC", u64::from(zc::MAGIC)),
        ("ZCACHE_VERSION", u64::from(zc::VERSION)),
        ("ZCACHE_DEFAULT_VIRTIO_ID", u64::from(zc::DEFAULT_VIRTIO_ID)),
        ("ZCACHE_PAGE_SIZE", zc::PAGE_SIZE as u64),
        ("ZCACHE_OBJECT_SIZE", zc::OBJECT_SIZE as u64),
        ("ZCACHE_ID_SIZE", zc::ID_SIZE as u64),
        ("ZCACHE_POOL_PERSISTENT", u64::from(zc::POOL_PERSISTENT)),
        ("ZCACHE_POOL_SHARED", u64::from(zc::POOL_SHARED)),
        ("ZCACHE_GET_EXCLUSIVE", u64::from(zc::GET_EXCLUSIVE)),
        ("ZCACHE_HELLO_RESUMED", u64::from(zc::HELLO_RESUMED)),
        ("ZCACHE_F_TAKE_BACK", u64::from(zc::F_TAKE_BACK)),
        ("ZCACHE_WANTED_MS_SHIFT", u64::from(zc::WANTED_MS_SHIFT)),
    ] {
        facts.constant(name, value);
    }
    for opcode in Opcode::ALL {
        facts.constant(&format!("ZCACHE_OP_{}", screaming(&format!("{opcode:?}"))), opcode as u64);
    }
    for status in Status::ALL {
        facts.constant(&format!("ZCACHE_S_{}", screaming(&format!("{status:?}"))), status as u64);
    }

    facts.size("struct zcache_config", size_of::<Config>());
    facts.members(
        "struct zcache_config",
        0,
        fields!(Config: magic, version, features, num_queues, max_batch, max_pools, page_size, reserved),
    );
    facts.size("struct zcache_batch", size_of::<Batch>());
    facts.members("struct zcache_batch", 0, fields!(Batch: count, reserved16, reserved32));
    facts.size("struct zcache_req_hdr", size_of::<RequestHeader>());
    facts.members("struct zcache_req_hdr", 0, fields!(RequestHeader: opcode, flags, pool));
    facts.size("struct zcache_result", size_of::<RequestResult>());
    facts.members("struct zcache_result", 0, fields!(RequestResult: status, flags, reserved, value));

    let body = offset_of!(Request, body);
    let header = || vec![("hdr", offset_of!(Request, header), size_of::<RequestHeader>())];
    let mut request = |tag, members| {
        facts.size(tag, size_of::<Request>());
        facts.members(tag, 0, header());
        facts.members(tag, body, members);
    };
    request("struct zcache_req_hello", fields!(HelloBody: instance, version, features, reserved));
    request("struct zcache_req_pool", fields!(PoolBody: uuid, reserved));
    request("struct zcache_req_key", fields!(KeyBody: object, index, count));
    facts.size("union zcache_req", size_of::<Request>());
    facts.members("union zcache_req", 0, header());
    for member in ["hello", "pool", "key"] {
        facts.members("union zcache_req", 0, vec![(member, 0, size_of::<Request>())]);
    }
    facts.0
}

/// `PoolCreate` as the header spells it: `POOL_CREATE`.
fn screaming(camel: &str) -> String {
    let mut name = String::new();
    for letter in camel.chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[test]
fn header_and_crate_agree_on_every_name_size_offset_and_constant() {
    let header = facts_of_the_header();
    let rust = facts_of_the_crate();
    assert!(header.len() > 80, "the header's text was not understood: {} facts", header.len());
    for (name, value) in &header {
        assert_eq!(rust.get(name), Some(value), "`{name}`: zcache.h says {value}, the crate otherwise");
    }
    for (name, value) in &rust {
        assert_eq!(header.get(name), Some(value), "`{name}`: the crate says {value}, zcache.h otherwise");
    }
}

#[test]
fn wire_values_round_trip_and_unknown_ones_are_none() {
    for opcode in Opcode::ALL {
        assert_eq!(Opcode::from_wire(opcode as u16), Some(opcode));
    }
    for status in Status::ALL {
        assert_eq!(Status::from_wire(status as u16), Some(status));
    }
    assert_eq!(Opcode::from_wire(0), None);
    assert_eq!(Opcode::from_wire(11), None);
    assert_eq!(Status::from_wire(12), None);
}
