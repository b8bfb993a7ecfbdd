// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask manual`: man pages and completions of the daemon and the programs beside it, made
//! of their command lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory, Parser, ValueEnum};
use clap_complete::Shell;
use vhost_zcache::args::Args;

/// Man pages and completions of the daemon, zcache-admin and zcachectl
#[derive(Parser)]
pub(crate) struct Arguments {
    /// Folder to put them into
    #[arg(default_value = "target/manual")]
    directory: PathBuf,
}

/// Name of the program.
const NAME: &str = "vhost-zcache";

/// Writes them.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    for path in write(&arguments.directory)? {
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// A program's command line, and the section of the manual that its pages are in.
type Program = (Command, &'static str);

fn write(directory: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(directory).with_context(|| format!("Cannot make {}", directory.display()))?;
    let programs: [Program; 3] =
        [(visible(), "8"), (zcache_admin::args::Args::command(), "8"), (zcachectl::args::Args::command(), "8")];
    let mut written = Vec::new();
    for (command, section) in programs {
        written.extend(write_of(directory, command, section)?);
    }
    Ok(written)
}

/// Those of one program.
fn write_of(directory: &Path, mut command: Command, section: &str) -> Result<Vec<PathBuf>> {
    command.build();
    let program = command.get_name().to_owned();
    let mut written = Vec::new();
    for shell in Shell::value_variants() {
        written.push(clap_complete::generate_to(*shell, &mut command, &program, directory)?);
    }
    // A page for each command, as `man vhost-zcache-reload`.
    let commands = command.get_subcommands().filter(|part| part.get_name() != "help").cloned();
    for page in commands.chain([command.clone()]).collect::<Vec<_>>() {
        let name = page.get_display_name().unwrap_or(&program).to_owned();
        let path = directory.join(format!("{name}.{section}"));
        let mut text = Vec::new();
        clap_mangen::Man::new(page).section(section).render(&mut text)?;
        fs::write(&path, text).with_context(|| format!("Cannot write {}", path.display()))?;
        written.push(path);
    }
    Ok(written)
}

/// The command line, without what the daemon's processes tell each other.
fn visible() -> Command {
    let whole = Args::command();
    let about = whole.get_long_about().or(whole.get_about()).map(ToString::to_string).unwrap_or_default();
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Keeps evicted guest pages compressed in host memory")
        .long_about(about)
        .args(whole.get_arguments().filter(|option| !option.is_hide_set()).cloned())
        .subcommands(whole.get_subcommands().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_what_people_type_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let written = write(directory.path()).expect("the manual");
        let name = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
        let names: Vec<String> = written.iter().map(name).collect();
        for expected in [
            "vhost-zcache.8",
            "vhost-zcache-reload.8",
            "vhost-zcache-check.8",
            "_vhost-zcache",
            "zcache-admin.8",
            "zcachectl.8",
            "zcachectl-add.8",
            "zcachectl.bash",
        ] {
            assert!(names.iter().any(|name| name == expected), "{expected} is not among {names:?}");
        }
        for path in &written {
            let text = fs::read_to_string(path).expect("a file");
            assert!(!text.contains("worker-link"), "{} has what is not for people", path.display());
        }
        let page = fs::read_to_string(directory.path().join("vhost-zcache.8")).expect("the page");
        for option in ["config", "memory\\-limit", "stats\\-socket"] {
            assert!(page.contains(&format!("\\-\\-{option}")), "the page has no --{option}");
        }
    }
}
