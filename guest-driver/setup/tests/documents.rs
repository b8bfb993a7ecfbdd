// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether documents are true: what `--help` and the pages know is the same, both ways.

mod tool;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tool::Tool;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of a page from one section to another.
fn section<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!(".Sh {from}")).expect("the section");
    rest.split_once(&format!(".Sh {to}")).expect("the next section").0
}

fn sorted(words: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    words.into_iter().collect()
}

fn is_word(c: char) -> bool {
    c.is_ascii_lowercase() || c == '-'
}

/// What begins with `--` in the help.
fn options_of_help(help: &str) -> BTreeSet<String> {
    sorted(help.split(|c| !is_word(c)).filter(|word| word.starts_with("--")).map(str::to_owned))
}

/// What begins with `Fl -` in the page, and stands beside such.
fn options_of_synopsis(synopsis: &str) -> BTreeSet<String> {
    let words: Vec<_> = synopsis.split_whitespace().collect();
    let option = |pair: &[&str]| {
        let is_flag = ["Fl", ".Fl", "|"].contains(&pair[0]) && pair[1].starts_with('-');
        is_flag.then(|| format!("-{}", pair[1]))
    };
    sorted(words.windows(2).filter_map(option))
}

/// `close`, `swap on`: commands of the help, without what they take.
fn commands_of_help(help: &str) -> BTreeSet<String> {
    let command = |line: &str| {
        let mut words = line.strip_prefix("zcachesetup ")?.split(' ');
        let first = words.next().filter(|word| word.chars().all(is_word) && !word.starts_with('-'))?;
        if first == "swap" { Some(format!("swap {}", words.next()?)) } else { Some(first.to_owned()) }
    };
    sorted(help.lines().filter_map(command))
}

#[test]
fn help_and_page_have_the_same_options() {
    let help = Tool::new().run(&["--help"]).1;
    let page = read("zcachesetup.8");
    let options = options_of_help(&help);
    assert!(options.len() > 10, "{options:?}");
    assert_eq!(options, options_of_synopsis(section(&page, "SYNOPSIS", "DESCRIPTION")), "help and synopsis");
    let described = section(&page, "DESCRIPTION", "ENVIRONMENT").lines().filter_map(|line| {
        let word: String = line.strip_prefix(".Fl ")?.chars().take_while(|c| is_word(*c)).collect();
        // Options of other programs are short.
        word.starts_with('-').then(|| format!("-{word}"))
    });
    assert_eq!(options, sorted(described), "help and text");
}

#[test]
fn help_and_page_have_the_same_commands() {
    let help = Tool::new().run(&["--help"]).1;
    let page = read("zcachesetup.8");
    let mut commands = commands_of_help(&help);
    assert!(commands.len() > 10, "{commands:?}");
    let synopsis = section(&page, "SYNOPSIS", "DESCRIPTION");
    let named = synopsis.lines().filter_map(|line| line.strip_prefix(".Cm ")).map(str::to_owned);
    assert_eq!(commands, sorted(named), "help and synopsis");
    let described = section(&page, "DESCRIPTION", "ENVIRONMENT").lines().filter_map(|line| {
        let words = line.strip_prefix(".It Cm ")?.split(' ');
        Some(words.take_while(|word| word.chars().all(is_word)).collect::<Vec<_>>().join(" "))
    });
    // Described with the other status.
    commands.remove("swap status");
    assert_eq!(commands, sorted(described), "help and text");
}

#[test]
fn every_command_explains_itself() {
    let tool = Tool::new();
    for command in commands_of_help(&tool.run(&["--help"]).1) {
        let words: Vec<_> = command.split(' ').chain(["--help"]).collect();
        let (status, help, errors) = tool.run(&words);
        assert_eq!((status, errors.as_str()), (0, ""), "{command}");
        assert!(help.contains(&format!("Usage: zcachesetup {command}")), "{help}");
    }
}

/// The version is written in two places.
#[test]
fn dkms_has_the_same_version() {
    let line = format!("PACKAGE_VERSION=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(read("dkms.conf").lines().any(|its| its == line), "dkms.conf lacks {line}");
}

/// The shell scripts that are left are what a shell takes.
#[test]
fn scripts_are_shell() {
    for (shell, script) in [
        ("dash", "initramfs/hook"),
        ("dash", "initramfs/script"),
        ("dash", "dracut/zcache.sh"),
        ("bash", "dracut/module-setup.sh"),
        ("dash", "deb/postinst"),
        ("dash", "deb/postrm"),
        ("dash", "deb/prerm"),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        let status = std::process::Command::new(shell).arg("-n").arg(path).status().expect(shell);
        assert!(status.success(), "{script}");
    }
}
