// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What follows of a table for systemd.

mod tool;

use std::fs;
use std::path::Path;

use tool::Tool;

const TABLE: &str = "\
data	UUID=0f-b2		nofail,x-systemd.device-timeout=5s
root	PARTUUID=3a-02		initramfs
luks-x	/dev/mapper/crypt_x	put=read
swap	/dev/vdc		swap,priority=100
fast	none			swap,size=1G,noauto
net	/dev/sdz		_netdev
bad	sda
";

const UNITS: &[&str] = &[
    "dev-disk-zcache-uuid-0f\\x2db2.device.d/50-zcache.conf",
    "dev-mapper-data.device.d/40-zcache.conf",
    "dev-mapper-data.device.requires/zcache@data.service",
    "dev-mapper-luks\\x2dx.device.d/40-zcache.conf",
    "dev-mapper-luks\\x2dx.device.requires/zcache@luks\\x2dx.service",
    "dev-mapper-net.device.d/40-zcache.conf",
    "dev-mapper-net.device.requires/zcache@net.service",
    "dev-mapper-root.device.d/40-zcache.conf",
    "dev-mapper-root.device.requires/zcache@root.service",
    "remote-fs.target.wants/zcache@net.service",
    "srv-my\\x2ddata.mount.d/50-zcache.conf",
    "swap.target.wants/zcache@swap.service",
    "sysinit.target.wants/zcache@data.service",
    "sysinit.target.wants/zcache@luks\\x2dx.service",
    "sysinit.target.wants/zcache@root.service",
    "systemd-fsck@dev-disk-by\\x2duuid-0f\\x2db2.service.d/50-zcache.conf",
    "zcache.origins/dm=crypt_x",
    "zcache.origins/name=sdz",
    "zcache.origins/partuuid=3a-02",
    "zcache.origins/uuid=0f-b2",
    "zcache@data.service",
    "zcache@fast.service",
    "zcache@luks\\x2dx.service",
    "zcache@net.service",
    "zcache@root.service",
    "zcache@swap.service",
];

#[test]
fn a_table_becomes_units() {
    let tool = Tool::new();
    tool.write_table(TABLE);
    fs::write(tool.folder().join("fstab"), "UUID=0f-b2 /srv/my-data ext4 defaults 0 2\n").expect("a table");
    let folder = tool.folder().join("units");
    let (status, output, errors) = tool.generate(&[&folder.display().to_string(), "/early", "/late"]);
    let said = format!(
        "zcachesetup: {}:7: bad: 'sda' is neither a path nor UUID=, LABEL=, PARTUUID=, PARTLABEL=\n",
        tool.table()
    );
    assert_eq!((status, output, errors), (1, String::new(), said));

    let mut files = Vec::new();
    list(&folder, &folder, &mut files);
    files.sort();
    assert_eq!(files, UNITS);
    for file in &files {
        assert!(folder.join(file).exists(), "{file} leads nowhere");
    }

    let has = |unit: &str, line: &str| read(&folder, unit).lines().any(|its| its == line);
    for (unit, line) in [
        ("zcache@data.service", "BindsTo=dev-disk-zcache-uuid-0f\\x2db2.device"),
        ("zcache@data.service", "Before=blockdev@dev-mapper-data.target"),
        ("zcache@luks\\x2dx.service", "After=dev-mapper-crypt_x.device"),
        ("zcache@swap.service", "Before=swap.target"),
        ("zcache@net.service", "Before=remote-fs.target"),
        ("srv-my\\x2ddata.mount.d/50-zcache.conf", "After=zcache@data.service"),
    ] {
        assert!(has(unit, line), "{unit} lacks '{line}'");
    }
    assert!(!has("zcache@data.service", "Before=sysinit.target"));
    assert!(!read(&folder, "zcache@root.service").contains("ExecStop="));
    let start = format!("ExecStart={} start data", env!("CARGO_BIN_EXE_zcachesetup"));
    assert!(has("zcache@data.service", &start), "The unit should call the program that made it");
}

#[test]
fn two_hundred_lines_are_two_hundred_units() {
    let tool = Tool::new();
    let lines: String = (0..200).map(|n| format!("d{n} PARTLABEL=d{n}\n")).collect();
    tool.write_table(&lines);
    let folder = tool.folder().join("units");
    assert_eq!(tool.generate(&[&folder.display().to_string()]), (0, String::new(), String::new()));
    let services = fs::read_dir(&folder).expect("units").flatten();
    assert_eq!(services.filter(|entry| entry.file_name().to_string_lossy().starts_with("zcache@")).count(), 200);
}

#[test]
fn without_a_table_there_is_nothing_to_do() {
    let tool = Tool::new();
    let folder = tool.folder().join("units");
    assert_eq!(tool.generate(&[&folder.display().to_string()]), (0, String::new(), String::new()));
    assert!(!folder.exists());
    assert_eq!(tool.generate(&[]).0, 2);
}

fn read(folder: &Path, unit: &str) -> String {
    fs::read_to_string(folder.join(unit)).unwrap_or_else(|error| panic!("{unit}: {error}"))
}

fn list(root: &Path, folder: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if entry.file_type().expect("a kind").is_dir() {
            list(root, &path, files);
        } else {
            files.push(path.strip_prefix(root).expect("below").display().to_string());
        }
    }
}
