// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! C programs for the guest. Static, so that the host's C library serves as well as
//! the guest's.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{Cache, Key, Leftovers};
use crate::command;
use crate::error::{IoContext as _, Result};
use crate::host;

/// A file of `images/guest`.
pub(crate) struct Source {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

/// PID 1 of the guest.
pub(crate) const INIT: &str = include_str!("../guest/init");

pub(crate) const SOURCES: &[Source] = &[
    Source { name: "init", text: INIT },
    Source { name: "agent.c", text: include_str!("../guest/agent.c") },
    Source { name: "port.h", text: include_str!("../guest/port.h") },
    Source { name: "zhost.c", text: include_str!("../guest/zhost.c") },
];

const FLAGS: &[&str] =
    &["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-pthread", "-static"];

/// Compiles one source file to a static program.
pub(crate) fn compile(source: &Path, program: &Path, log: &Path) -> Result<()> {
    let mut gcc = Command::new("gcc");
    command::run(gcc.env("LC_ALL", "C").args(FLAGS).arg(source).arg("-o").arg(program), log)
}

/// Compiles the programs that guests are controlled with, `agent` and `zhost`, in a folder of their
/// own below `dir`, and puts them into `dir`.
pub(crate) fn build(dir: &Path, log: &Path) -> Result<()> {
    let sources = dir.join("guest");
    fs::create_dir_all(&sources).while_doing("create", &sources)?;
    for source in SOURCES {
        let path = sources.join(source.name);
        fs::write(&path, source.text).while_doing("write", &path)?;
    }
    compile(&sources.join("agent.c"), &dir.join("agent"), log)?;
    compile(&sources.join("zhost.c"), &dir.join("zhost"), log)
}

/// Compiles a program of the tests, or returns the one compiled before. Headers next
/// to the source count as part of it.
pub(crate) fn program(cache: &Cache, source: &Path) -> Result<PathBuf> {
    let name = source.file_stem().unwrap_or_default();
    let mut inputs: Vec<Vec<u8>> = FLAGS.iter().map(|flag| flag.as_bytes().to_vec()).collect();
    inputs.push(name.as_encoded_bytes().to_vec());
    inputs.push(fs::read(source).while_doing("read", source)?);
    for header in headers_beside(source)? {
        inputs.push(fs::read(&header).while_doing("read", &header)?);
    }
    let artefact = cache.artefact(
        &format!("program-{}", name.to_string_lossy()),
        &Key::of(&inputs),
        Leftovers::Remove,
        |dir, progress| {
            host::require()?;
            progress.step("compiling");
            compile(source, &dir.join(name), &dir.join("build.log"))?;
            Ok(Vec::new())
        },
    )?;
    Ok(artefact.dir.join(name))
}

fn headers_beside(source: &Path) -> Result<Vec<PathBuf>> {
    let Some(dir) = source.parent().filter(|dir| !dir.as_os_str().is_empty()) else {
        return Ok(Vec::new());
    };
    let mut headers = Vec::new();
    for entry in fs::read_dir(dir).while_doing("read", dir)? {
        let path = entry.while_doing("read", dir)?.path();
        if path.extension() == Some(OsStr::new("h")) {
            headers.push(path);
        }
    }
    headers.sort();
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn the_guests_programs_compile_without_warnings() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for source in SOURCES {
            fs::write(dir.path().join(source.name), source.text).expect("a source file");
        }
        for name in ["agent.c", "zhost.c"] {
            compile(&dir.path().join(name), &dir.path().join("out"), &dir.path().join("log"))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn a_program_is_compiled_again_when_its_header_changes() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache::at(&dir.path().join("cache")).expect("a cache");
        let source = dir.path().join("answer.c");
        let header = dir.path().join("answer.h");
        let text = "#include \"answer.h\"\nint main(void) { return ANSWER; }\n";
        fs::write(&source, text).expect("a source file");
        for answer in [3, 4] {
            fs::write(&header, format!("#define ANSWER {answer}\n")).expect("a header");
            let built = program(&cache, &source).expect("the program compiles");
            let status = Command::new(built).status().expect("the program runs");
            assert_eq!(status.code(), Some(answer));
        }
    }

    #[test]
    fn a_warning_is_an_error_that_shows_the_line() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache::at(&dir.path().join("cache")).expect("a cache");
        let source = dir.path().join("bad.c");
        fs::write(&source, "int main(void) { int unused; }\n").expect("a source file");
        let error = program(&cache, &source).expect_err("a warning was let through");
        assert!(matches!(&error, Error::Command { output, .. } if output.contains("bad.c:1")), "{error}");
    }
}
