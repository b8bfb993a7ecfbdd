// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The configuration file: what is wrong with one is said, with line and column; what is right
//! means the same as the command line.

mod client;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use clap::{CommandFactory, Parser};
use client::daemon::run;
use proptest::prelude::*;
use tempfile::TempDir;
use vhost_zcache::args::Args;
use vhost_zcache::config::fault::Origin;
use vhost_zcache::config::{self, Config, file};

/// A file, and the folder that it is in.
struct File {
    directory: TempDir,
}

impl File {
    fn of(text: &str) -> Self {
        let file = Self { directory: tempfile::tempdir().expect("a directory") };
        fs::write(file.path(), text).expect("the file");
        file
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("zcache.toml")
    }

    /// Lines on the faults it has, without its path.
    fn faults(&self) -> Vec<String> {
        let faults = config::check(&self.path()).expect_err("a file with a fault");
        let path = format!("{}:", self.path().display());
        faults.lines().into_iter().map(|line| line.replacen(&path, "", 1)).collect()
    }

    fn check(&self) -> Output {
        run(&["check", self.path().to_str().expect("a path that is text")])
    }
}

fn load(arguments: &[&str]) -> Config {
    let args = Args::try_parse_from([&["vhost-zcache"], arguments].concat()).expect("arguments");
    config::load(&args).unwrap_or_else(|faults| panic!("{:?}", faults.lines())).0
}

/// Texts, and where and what the one fault of each is.
const FAULTS: &[(&str, &str)] = &[
    // What is no TOML.
    ("queues = \n", "1:10: "),
    ("queues 8\n", "1:"),
    ("log-level = \"info\n", "1:"),
    ("queues = 4\nqueues = 8\n", "2:1: "),
    ("[guest.a]\nsocket = '/run/a'\n[guest.a]\n", "3:8: duplicate key"),
    ("[guest.a\nsocket = '/run/a'\n", "1:"),
    // Keys that nobody knows.
    ("\nmemory_limit = '1G'\n", "2:1: \"memory_limit\" is no key here; there are memory-limit, "),
    ("[stats]\npath = '/run/s'\n", "1:2: \"stats\" is no key here"),
    ("[guest.a]\nsocket = '/run/a'\nlimit = 1\n", "3:1: \"limit\" is no key here; there are fd, socket, "),
    ("[socket]\npath = '/run/a'\n", "2:1: \"path\" is no key here; there are mode, owner, group"),
    ("[control-socket]\npath = '/run/c'\nlevel = 1\n", "3:1: \"level\" is no key here"),
    // What is missing.
    ("[guest.a]\nmode = '0660'\n", "1:8: guest.a has no socket"),
    ("[guest.a]\nfd = 'a'\nmode = '0660'\n", "3:1: \"mode\" is no key here"),
    ("[guest.a]\nsocket = '/run/a'\nfd = 'a'\n", "2:1: \"socket\" is no key here"),
    ("[guest.a]\nfd = 2\n", "2:6: fd: a file descriptor is a number from 3 on, or a name"),
    ("[guest.a]\nfd = 3\n[guest.b]\nfd = 3\n", "4:6: the socket 3 is given twice"),
    ("[stats-socket]\nmode = '0660'\n", "1:2: stats-socket has no path"),
    // Values of another kind.
    ("guest = 3\n", "1:1: guest is a table, [guest], and not a whole number"),
    ("[guest]\na = '/run/a'\n", "2:1: guest.a is a table, [guest.a], and not text"),
    ("control-socket = '/run/c'\n", "1:1: control-socket is a table, [control-socket], and not text"),
    (
        "memory-limit = 1.5\n",
        "1:16: memory-limit is text in quotes or a whole number, and not a number with a fraction",
    ),
    ("queues = 'many'\n", "1:10: queues is a number from 1 to 64, and not text"),
    ("log-level = true\n", "1:13: log-level is text in quotes, and not true or false"),
    ("crash-directory = ['/a']\n", "1:19: crash-directory is text in quotes, and not a list"),
    ("[guest.a]\nsocket = 1979-05-27\n", "2:10: socket is text in quotes, and not a date"),
    ("[guest.a]\nsocket = '/run/a'\npeers = 'root'\n", "3:9: peers is a list, [\"...\"], and not text"),
    ("[guest.a]\nsocket = '/run/a'\nmode = 660\n", "3:8: mode is text in quotes, and not a whole number"),
    // Sizes.
    ("memory-limit = '8 gigabytes'\n", "1:16: memory-limit: a size is a number of bytes"),
    ("guest-memory-limit = 0\n", "1:22: guest-memory-limit: a limit of zero"),
    ("memory-limit = -1\n", "1:16: memory-limit: a size is a number of bytes"),
    ("memory-limit = '16777216T'\n", "1:16: memory-limit: a size is a number of bytes"),
    ("memory-limit = 9223372036854775808\n", "1:16: memory-limit: "),
    // Numbers.
    ("queues = 0\n", "1:10: queues is a number from 1 to 64, and not 0"),
    ("queues = 65\n", "1:10: queues is a number from 1 to 64, and not 65"),
    ("workers = 256\n", "1:11: workers is a number from 1 to 255, and not 256"),
    ("max-guests = 5000\n", "1:14: max-guests is a number from 1 to 4096, and not 5000"),
    // Words.
    ("log-level = 'loud'\n", "1:13: log-level is one of off, error, warn, info, debug, trace, and not \"loud\""),
    ("seccomp = 'on'\n", "1:11: seccomp is one of kill, log, none, and not \"on\""),
    // What does not go together.
    ("save-directory = '/a'\n", "1:18: save-directory takes save-key"),
    ("save-timeout = 5\n", "1:16: save-key and save-timeout mean nothing without save-directory"),
    // Paths.
    ("crash-directory = 'crash'\n", "1:19: crash-directory: a path in a file begins with /"),
    ("[guest.a]\nsocket = ''\n", "2:10: socket: a path in a file begins with /"),
    ("upgrade-binary = \"/run/\\u0000\"\n", "1:18: upgrade-binary: a path has no zeros"),
    // Users.
    ("[socket]\nmode = 'rw'\n", "2:8: mode: \"rw\" is not a mode"),
    ("[socket]\ngroup = 'no such group'\n", "2:9: group: there is no group \"no such group\""),
    ("[socket]\nowner = 'no such user'\n", "2:9: owner: there is no user \"no such user\""),
    ("[stats-socket]\npath = '/run/s'\npeers = ['root', 'no such user']\n", "3:18: peers: there is no user"),
    // Pools.
    ("[guest.a]\nsocket = '/run/a'\nallow-shared = ['x']\n", "3:17: allow-shared: \"x\" is not a UUID"),
    (
        "[guest.a]\nsocket = '/run/a'\nallow-shared = ['00000000-0000-0000-0000-000000000000']\n",
        "3:17: allow-shared: the zero UUID names no pool",
    ),
    ("[guest.a]\nsocket = '/run/a'\ntrust-domain = 'a b'\n", "3:16: trust-domain: \"a b\" is not of 1 to 64 letters"),
    // Weights, and what is true.
    ("[guest.a]\nsocket = '/run/a'\nweight = 0\n", "3:10: weight is a number from 1 to 10000, and not 0"),
    ("[guest.a]\nsocket = '/run/a'\nfrozen = 'no'\n", "3:10: frozen is true or false, and not text"),
    // Names.
    ("[guest.'a b']\nsocket = '/run/a'\n", "1:8: \"a b\" is no name of a guest"),
    ("[guest.'']\nsocket = '/run/a'\n", "1:8: \"\" is no name of a guest"),
    // What does not go together.
    ("[guest.a]\nsocket = '/run/a'\n[guest.b]\nsocket = '/run/a'\n", "4:10: /run/a is given twice"),
    ("[guest.a]\nsocket = '/run/a'\n[control-socket]\npath = '/run/a'\n", "4:8: /run/a is given twice"),
    (
        "[guest.a]\nsocket = '/run/a'\nmemory-limit = '1M'\nreservation = '2M'\n",
        "4:15: a reservation of 2097152 bytes is more than the guest's limit of 1048576",
    ),
    (
        "memory-limit = '3M'\n[guest.a]\nsocket = '/run/a'\nreservation = '2M'\n[guest.b]\nsocket = '/run/b'\n\
         reservation = '2M'\n",
        "7:15: reservations up to this one are 4194304 bytes, and the store's limit is 3145728",
    ),
    (
        "max-guests = 1\n[guest.a]\nsocket = '/run/a'\n[guest.b]\nsocket = '/run/b'\n",
        "1:14: max-guests is 1, and there are 2 guests",
    ),
];

#[test]
fn each_fault_is_told_with_its_line_and_column() {
    for (text, expected) in FAULTS {
        let faults = File::of(text).faults();
        assert_eq!(faults.len(), 1, "{text}\n{faults:?}");
        assert!(faults[0].starts_with(expected), "{text}\n{}, and not {expected}", faults[0]);
        assert!(!faults[0].contains('\n'), "{text}: more than a line");
    }
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_a_fault() {
    let path = format!("/run/{}", "a".repeat(103));
    let faults = File::of(&format!("[guest.a]\nsocket = '{path}'\n")).faults();
    assert_eq!(faults, [format!("2:10: {path}: 108 bytes are too long for a socket's path")]);
}

#[test]
fn all_faults_are_told_at_once() {
    let text = "queues = 0\nsecomp = 'kill'\n\n[guest.a]\nsocket = 'a'\nmemory-limit = '1X'\n\n[guest.b]\nsocket = \
                '/run/b'\nmode = '9'\npeers = ['nobody that I know', 'root']\n";
    let file = File::of(text);
    let places: Vec<String> =
        file.faults().iter().map(|line| line.splitn(3, ':').take(2).collect::<Vec<_>>().join(":")).collect();
    assert_eq!(places, ["1:10", "2:1", "5:10", "6:16", "10:8", "11:10"]);

    let output = file.check();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 6), "{said}");
    let begin = format!("{}:1:10: queues is a number", file.path().display());
    assert!(said.starts_with(&begin), "{said}");
    assert!(output.stdout.is_empty(), "faults are for the standard error output");
}

#[test]
fn several_faults_of_syntax_are_told_at_once() {
    let faults = File::of("queues = \nworkers = 3\nlog-level = \"info\nseccomp = 'kill'\n").faults();
    assert!(faults.len() >= 2 && faults[0].starts_with("1:") && faults[1].starts_with("3:"), "{faults:?}");
}

#[test]
fn the_exit_status_says_whether_a_file_has_faults() {
    let good = File::of("[guest.a]\nsocket = '/run/a'\n[guest.b]\nsocket = '/run/b'\n");
    let output = good.check();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = format!("{}: no faults, 2 guests\n", good.path().display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    for path in ["/nonexistent/zcache.toml", "/"] {
        let output = run(&["check", path]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{path}: {said}");
        assert!(said.starts_with(&format!("Cannot read {path}: ")), "{said}");
    }
    let bytes = File::of("");
    fs::write(bytes.path(), [0xff, 0xfe]).expect("the file");
    assert_eq!(bytes.check().status.code(), Some(2), "it is no text");
}

/// All keys, as `docs/configuration.md` has them.
const ALL: &str = "
    memory-limit = '8G'
    guest-memory-limit = '2G'
    max-guests = 40
    queues = 4
    workers = 2
    log-level = 'debug'
    seccomp = 'log'
    host-pressure = 'ignore'
    crash-directory = '/var/crash'
    save-directory = '/var/saved'
    save-key = '/etc/key'
    save-timeout = 30
    upgrade-binary = '/opt/zcache'
    [socket]
    mode = '0666'
    owner = 0
    group = 'root'
    [stats-socket]
    path = '/run/stats'
    mode = '0640'
    owner = 'root'
    group = 0
    peers = ['root', 7]
    [control-socket]
    path = '/run/control'
    mode = '0600'
    owner = 'root'
    group = 'root'
    peers = [0]
    [guest.'/run/a']
    ";

const ARGUMENTS: &[&str] = &[
    "--memory-limit=8G",
    "--guest-memory-limit=2G",
    "--max-guests=40",
    "--queues=4",
    "--workers=2",
    "--log-level=debug",
    "--seccomp=log",
    "--host-pressure=ignore",
    "--crash-directory=/var/crash",
    "--save-directory=/var/saved",
    "--save-key=/etc/key",
    "--save-timeout=30",
    "--upgrade-binary=/opt/zcache",
    "--socket-mode=0666",
    "--socket-owner=0",
    "--socket-group=root",
    "--stats-socket=/run/stats,mode=0640,owner=root,group=0,peer=root,peer=7",
    "--control-socket=/run/control,mode=0600,owner=root,group=root,peer=0",
];

const GUEST: &str = "[guest.a]\nsocket = '/run/a'\nmode = '0660'\nowner = 0\ngroup = 0\npeers = ['root']\n\
                     memory-limit = 1048576\nreservation = '512K'\nweight = 300\nfrozen = true\n\
                     allow-shared = ['00112233-4455-6677-8899-aabbccddeeff']\ntrust-domain = 'tenant1'\n";

#[test]
fn a_file_means_the_same_as_the_command_line() {
    let without_guest = ALL.replace("[guest.'/run/a']", "");
    let file = File::of(&format!("{without_guest}{GUEST}"));
    let of_file = load(&["--config", file.path().to_str().expect("text")]);
    let socket = "--socket-path=/run/a,mode=0660,owner=0,group=0,peer=root,memory-limit=1M,reservation=512K,\
                  weight=300,frozen=true,allow-shared=00112233-4455-6677-8899-aabbccddeeff,trust-domain=tenant1";
    let mut of_arguments = load(&[ARGUMENTS, &[socket]].concat());
    assert_eq!(of_arguments.guests[0].name, "/run/a", "known by its path");
    of_arguments.guests[0].name = "a".into();
    assert_ne!(of_arguments.source, of_file.source, "values know where they were given");
    of_arguments.source = of_file.source.clone();
    assert_eq!(of_file, of_arguments);
}

#[test]
fn the_command_line_goes_before_the_file() {
    let file = File::of(&format!("{}{GUEST}", ALL.replace("[guest.'/run/a']", "")));
    let path = file.path();
    let arguments = [
        "vhost-zcache",
        "--config",
        path.to_str().expect("text"),
        "--memory-limit=1G",
        "--stats-socket=/run/other",
        "--socket-mode=0600",
        "--socket-path=/run/b",
    ];
    let args = Args::try_parse_from(arguments).expect("arguments");
    let (config, overridden) = config::load(&args).expect("a configuration");
    assert_eq!(overridden, ["socket.mode", "memory-limit", "stats-socket"]);
    assert_eq!((config.memory_limit, config.queues), (1 << 30, 4));
    assert_eq!(config.stats_socket.expect("a socket").path, Path::new("/run/other"));
    let names: Vec<&str> = config.guests.iter().map(|guest| &*guest.name).collect();
    assert_eq!(names, ["/run/b", "a"], "guests of both");
}

#[test]
fn the_daemon_does_not_start_with_a_faulty_file() {
    let file = File::of("queues = 0\nworkers = 0\n");
    let output = run(&["--config", file.path().to_str().expect("text"), "--socket-path", "/run/x"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 2), "{said}");
    assert!(said.starts_with(&format!("vhost-zcache: {}:1:10: queues", file.path().display())), "{said}");
    let output = run(&["--config", "/nonexistent/zcache.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("vhost-zcache: Cannot read /nonexistent/zcache.toml: "), "{said}");
}

proptest! {
    /// Whatever is cut out of a file, or put into it, it is taken or refused, and places are in it.
    #[test]
    fn any_text_is_taken_or_refused(cut in 0..900usize, length in 0..40usize, put in "[\\[\\]='\"\\n0-9a-z.é\\\\#{}]{0,6}") {
        let text = format!("{}{GUEST}", ALL.replace("[guest.'/run/a']", ""));
        let at = |byte: usize| (byte..=text.len()).find(|byte| text.is_char_boundary(*byte)).unwrap_or(text.len());
        let text = format!("{}{put}{}", &text[..at(cut)], &text[at(cut + length)..]);
        let (draft, faults) = file::parse(&text);
        let more = draft.settle().err().unwrap_or_default();
        for fault in faults.into_iter().chain(more) {
            if let Origin::File(line, column) = fault.at {
                let there = text.split('\n').nth(line - 1);
                prop_assert!(there.is_some_and(|there| column <= there.chars().count() + 1), "{:?}: {}", fault, text);
            }
        }
    }
}

/// Keys of the file: all that a file without a right one is told there are.
fn keys() -> Vec<String> {
    let text = "x = 1\n[socket]\nx = 1\n[stats-socket]\npath = '/run/s'\nx = 1\n[control-socket]\npath = '/run/c'\nx = 1\n\
                [guest.NAME]\nsocket = '/run/a'\nx = 1\n";
    let tables = ["", "socket.", "stats-socket.", "control-socket.", "guest.NAME."];
    let faults = File::of(text).faults();
    assert_eq!(faults.len(), tables.len(), "{faults:?}");
    let mut keys = Vec::new();
    for (fault, table) in faults.iter().zip(tables) {
        let (_, known) = fault.split_once("; there are ").expect("the keys that there are");
        keys.extend(known.split(", ").map(|key| format!("{table}{key}")));
    }
    keys.retain(|key| !["socket", "stats-socket", "control-socket", "guest"].contains(&key.as_str()));
    keys
}

#[test]
fn the_document_has_each_key_and_no_others() {
    let document = include_str!("../../docs/configuration.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: Vec<&str> = rows.filter_map(|row| row.split_once('`')).map(|(key, _)| key).collect();
    let keys = keys();
    assert!(keys.len() > 25, "the test needs the keys, not {keys:?}");
    for key in &keys {
        let times = documented.iter().filter(|documented| *documented == key).count();
        assert_eq!(times, 1, "{key} has {times} rows in docs/configuration.md");
    }
    for documented in documented {
        assert!(keys.iter().any(|key| key == documented), "{documented} is documented and no key");
    }
}

#[test]
fn the_example_of_the_document_has_no_fault() {
    let document = include_str!("../../docs/configuration.md");
    let (_, rest) = document.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    // Users and groups are not the same everywhere.
    let example = example.replace("libvirt-qemu", "root");
    let output = File::of(&example).check();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Options that are about one run, or about guests.
const NOT_IN_FILE: &[&str] = &["config", "socket-path", "socket-count", "fd", "print-capabilities", "help", "version"];

#[test]
fn each_option_has_a_key() {
    let keys = keys();
    for option in Args::command().get_arguments().filter(|option| !option.is_hide_set()) {
        let name = option.get_long().expect("a long name");
        let name = name
            .strip_prefix("socket-")
            .filter(|rest| keys.contains(&format!("socket.{rest}")))
            .map_or_else(|| name.to_owned(), |rest| format!("socket.{rest}"));
        let is_there = keys.iter().any(|key| *key == name || *key == format!("{name}.path"));
        assert!(is_there || NOT_IN_FILE.contains(&name.as_str()), "--{name} has no key in the file");
    }
}
