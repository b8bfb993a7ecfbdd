// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is said of arguments and tables that are wrong. None of it gets as far as the kernel, so
//! this needs no root, no modules and no guest.

mod tool;

use std::fs;
use std::path::Path;

use tool::Tool;

const HELP: &str = "; see zcachesetup --help";

/// Arguments, with blanks in between, and what is said of them.
const MISTAKES: &[(&str, &str)] = &[
    ("", "a command is needed"),
    ("mount", "unknown command mount"),
    ("open /dev/null", "open takes DEVICE and NAME"),
    ("open", "open takes DEVICE and NAME"),
    ("open /dev/null a b", "open takes DEVICE and NAME"),
    ("open --get /dev/null a", "unknown option --get"),
    ("open --put", "--put needs a value"),
    ("open --put never /dev/null a", "put is evict or read, not 'never'"),
    ("open --put=never /dev/null a", "put is evict or read, not 'never'"),
    ("open /dev/null a/b", "a/b: a name has letters, digits and ._+- only"),
    ("open /dev/null .a", ".a: a name has letters, digits and ._+- only"),
    ("open /dev/null -a", "-a: a name has letters, digits and ._+- only"),
    ("open /dev/null control", "control: device-mapper has that name for itself; choose another one"),
    ("close", "close takes one NAME"),
    ("close a b", "close takes one NAME"),
    ("close --force a", "unknown option --force"),
    ("flush a b", "flush takes one NAME"),
    ("resize", "resize takes one NAME"),
    ("reload --put read", "reload takes one NAME"),
    ("reload --put x a", "put is evict or read, not 'x'"),
    ("status a b", "status takes one NAME"),
    ("status --yaml", "unknown option --yaml"),
    ("status --json=yes", "--json takes no value"),
    ("swap", "swap takes on, off or status"),
    ("swap in", "swap takes on, off or status"),
    ("swap off", "swap off takes one DEVICE"),
    ("swap off a b", "swap off takes one DEVICE"),
    ("swap status a", "swap status takes --json only"),
    ("swap on --size", "--size needs a value"),
    ("swap on 1G", "unknown option 1G"),
    ("swap on --size 1X", "size is a number, with K, M or G, not '1X'"),
    ("swap on --size M", "size is a number, with K, M or G, not 'M'"),
    ("swap on --size -1", "size is a number, with K, M or G, not '-1'"),
    ("swap on --size 99999999999G", "size is a number, with K, M or G, not '99999999999G'"),
    ("swap on --priority -1", "priority is a number, not '-1'"),
    ("swap on --priority 40000", "priority is 32767 at most, not '40000'"),
    ("swap on", "a swap disk without a backing device needs a size"),
    ("swap on --size 0", "a swap disk without a backing device needs a size"),
    ("swap on --size 1G --writethrough", "writethrough needs a backing device"),
    ("start --wait", "--wait needs seconds"),
    ("start --wait long", "--wait needs seconds"),
    ("start --wait -1", "--wait needs seconds"),
    ("start --root", "--root needs a device"),
    ("start --root=", "--root needs a device"),
    ("start --all a", "either lines or their names"),
    ("start a --initramfs", "either lines or their names"),
    ("start --all --initramfs", "either lines or their names"),
    ("stop --all a", "either lines or their names"),
    ("stop --initramfs", "unknown option --initramfs"),
    ("table a", "table takes nothing"),
    ("removable a", "removable takes nothing"),
];

#[test]
fn wrong_arguments_are_one_line() {
    let tool = Tool::new();
    for (arguments, message) in MISTAKES {
        let arguments: Vec<_> = arguments.split_whitespace().collect();
        tool.refuses(2, &format!("{message}{HELP}"), &arguments);
    }
    tool.refuses(2, &format!("a b: a name has letters, digits and ._+- only{HELP}"), &["open", "/dev/null", "a b"]);
    tool.refuses(2, &format!("--root needs a device{HELP}"), &["start", "--root", ""]);
}

/// A variable of a script was empty.
#[test]
fn nothing_is_no_name_and_no_device() {
    let tool = Tool::new();
    tool.write_table("a LABEL=a\n");
    for words in [
        &["open", "/dev/null", ""],
        ["close", ""].as_slice(),
        &["reload", ""],
        &["status", ""],
        &["start", ""],
        &["stop", ""],
        &["swap", "off", ""],
    ] {
        tool.refuses(2, &format!("a name is needed, not ''{HELP}"), words);
    }
    for device in ["", "UUID=", "LABEL=\"\""] {
        let message = format!("'{device}' is neither a path nor UUID=, LABEL=, PARTUUID=, PARTLABEL={HELP}");
        tool.refuses(2, &message, &["open", device, "a"]);
        tool.refuses(2, &message, &["swap", "on", "--size", "1G", "--backing", device]);
    }
}

/// Whatever is in it: names and tables come from anywhere, and a terminal obeys what it is sent.
#[test]
fn a_message_is_one_line() {
    let tool = Tool::new();
    for (name, seen) in
        [("a\nb", "a\\nb"), ("a\r", "a\\r"), ("\u{1b}[31ma", "\\u{1b}[31ma"), ("a\u{200b}", "a\\u{200b}")]
    {
        let message = format!("{seen}: a name has letters, digits and ._+- only");
        tool.refuses(2, &format!("{message}{HELP}"), &["close", name]);
        if !name.contains(char::is_whitespace) {
            tool.write_table(&format!("{name} /dev/null\n"));
            tool.refuses(1, &format!("{}:1: {message}", tool.table()), &["table"]);
        }
    }
}

/// Lines of a table that has one, and what is said of them.
const LINES: &[(&str, &str)] = &[
    ("a/b /dev/null", "a/b: a name has letters, digits and ._+- only"),
    ("a", "a: '' is neither a path nor UUID=, LABEL=, PARTUUID=, PARTLABEL="),
    ("a sda", "a: 'sda' is neither a path nor UUID=, LABEL=, PARTUUID=, PARTLABEL="),
    ("a UUID=", "a: 'UUID=' is neither a path nor UUID=, LABEL=, PARTUUID=, PARTLABEL="),
    ("a /", "a: '/' is neither a path nor UUID=, LABEL=, PARTUUID=, PARTLABEL="),
    ("a none", "a: needs a device"),
    ("a /dev/null put=read x", "a: more than three fields"),
    ("a /dev/null put=never", "put is evict or read, not 'never'"),
    ("a /dev/null put=read,x", "a: option 'x' is not known, or not here"),
    ("a /dev/null size=1G", "a: option 'size=1G' is not known, or not here"),
    ("a /dev/null initramfs,swap", "a: option 'initramfs' is not known, or not here"),
    ("a none swap", "a swap disk without a backing device needs a size"),
    ("a none swap,size=1G,writethrough", "writethrough needs a backing device"),
    ("a /dev/null swap,size=x", "size is a number, with K, M or G, not 'x'"),
    ("a /dev/null swap,priority=x", "priority is a number, not 'x'"),
    ("a /dev/null x-systemd.device-timeout=soon", "a timeout is a time such as 30s or 5min, not 'soon'"),
    ("a /dev/null x-systemd.device-timeout=5parsecs", "a timeout is a time such as 30s or 5min, not '5parsecs'"),
    ("a none put=x", "put is evict or read, not 'x'"),
    ("a none\r", "a: needs a device"),
    ("a none # comment", "a: needs a device"),
    ("a none put=read\t#comment", "a: needs a device"),
    ("a none put=x#y", "put is evict or read, not 'x#y'"),
];

#[test]
fn a_wrong_line_is_named() {
    let tool = Tool::new();
    for (line, message) in LINES {
        tool.write_table(&format!("{line}\n"));
        tool.refuses(1, &format!("{}:1: {message}", tool.table()), &["start"]);
    }
}

#[test]
fn bad_lines_do_not_hide_each_other() {
    let tool = Tool::new();
    let table = tool.table();
    // The last one has no newline.
    tool.write_table("# comment\n\n  a none\nb none\nb sda");
    let all = format!(
        "{table}:3: a: needs a device\n\
         zcachesetup: {table}:4: b: needs a device\n\
         zcachesetup: {table}:5: b: a line of that name comes before"
    );
    tool.refuses(1, &all, &["start"]);
    tool.refuses(1, &all, &["table"]);
    // Of the lines that were not asked for nothing is said.
    tool.refuses(1, &format!("{table}:3: a: needs a device"), &["stop", "a"]);
    tool.refuses(1, &format!("c: no such line in {table}"), &["stop", "c"]);
    // What is wrong with other lines is not for the initramfs to say.
    assert_eq!(tool.run(&["start", "--initramfs"]), (0, String::new(), String::new()));

    fs::remove_file(&table).expect("a table");
    tool.refuses(1, &format!("{table}: cannot be read"), &["start"]);
}

#[test]
fn a_table_is_printed_as_it_is_understood() {
    let tool = Tool::new();
    tool.write_table("data LABEL=a  put=read,nofail # c\nswap none swap,size=1G\n");
    let lines = "data LABEL=a dm nofail\nswap none swap\n".to_owned();
    assert_eq!(tool.run(&["table"]), (0, lines, String::new()));
}

#[test]
fn help_and_version_are_for_everybody() {
    let tool = Tool::new();
    let version = format!("zcachesetup {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(tool.run(&["--version"]), (0, version, String::new()));
    let (status, help, errors) = tool.run(&["--help"]);
    assert_eq!((status, errors.as_str()), (0, ""));
    assert!(help.starts_with("zcachesetup open [--put evict|read] DEVICE NAME\n"), "{help}");
    let (status, help, errors) = tool.run(&["swap", "on", "--help"]);
    assert_eq!((status, errors.as_str()), (0, ""));
    assert!(help.contains("--backing <DEVICE>"), "{help}");
}

/// Shells ask the program what may follow.
#[test]
fn shells_can_complete() {
    let tool = Tool::new();
    tool.write_table("data LABEL=a\nsrv LABEL=b\n");
    assert_eq!(tool.complete(&["zcachesetup", "st"]), ["status", "start", "stop"]);
    assert_eq!(tool.complete(&["zcachesetup", "start", "d"]), ["data"]);
    assert_eq!(tool.complete(&["zcachesetup", "open", "--put", ""]), ["evict", "read"]);
    assert_eq!(tool.complete(&["zcachesetup", "swap", "on", "--b"]), ["--backing"]);
    for shell in ["bash", "zsh", "fish"] {
        let script = tool.completion_script(shell);
        assert!(script.contains("zcachesetup"), "{shell}: {script}");
        assert!(!script.contains(env!("CARGO_BIN_EXE_zcachesetup")), "{shell}: {script}");
    }
}

/// Of paths, those of block devices: a file is none, nor is a terminal.
#[test]
fn shells_can_complete_devices() {
    let tool = Tool::new();
    fs::write(tool.folder().join("file"), "").expect("a file");
    fs::create_dir(tool.folder().join("folder")).expect("a folder");
    let start = format!("{}/f", tool.folder().display());
    assert_eq!(tool.complete(&["zcachesetup", "open", &start]), [format!("{start}older/")]);
    for words in [["open"].as_slice(), &["swap", "on", "--backing"], &["start", "--root"]] {
        let words: Vec<_> = ["zcachesetup"].iter().chain(words).chain(&["/dev/"]).copied().collect();
        let found = tool.complete(&words);
        assert!(!found.contains(&"/dev/null".to_owned()), "{words:?}: {found:?}");
        let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let paths = devices.map(|entry| format!("/dev/{}", entry.file_name().display()));
        for path in paths.filter(|path| Path::new(path).exists()) {
            assert!(found.contains(&path), "{words:?} lacks {path}: {found:?}");
        }
    }
}
