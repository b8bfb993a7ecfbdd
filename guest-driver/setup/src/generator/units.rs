// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The units of a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::error::{Voice, reason};
use crate::spec::{Spec, link_name};
use crate::table::line::{Boot, Line, What};
use crate::unit_name::{escape, escape_path};

/// Files and links below the generator's folder.
pub(super) struct Units {
    tool: String,
    files: BTreeMap<String, String>,
    /// Where they lead.
    links: BTreeMap<String, String>,
    opened: Vec<Opened>,
}

/// What a line makes a zcache device of.
struct Opened {
    /// The path of the device below, which fstab may name too.
    origin: String,
    name: String,
    service: String,
    /// The link that has it opened at boot.
    link: Option<String>,
}

impl Units {
    pub(super) fn new(tool: &str) -> Self {
        Self { tool: tool.to_owned(), files: BTreeMap::new(), links: BTreeMap::new(), opened: Vec::new() }
    }

    /// What a line of the table needs.
    pub(super) fn add(&mut self, line: &Line) {
        let name = escape(line.name.as_str());
        let service = format!("zcache@{name}.service");
        let is_swap = matches!(line.what, What::Swap(_));
        let device = line.device().and_then(device_unit);
        let target = target(&line.boot, is_swap);
        self.files.insert(service.clone(), self.service(line, &name, device.as_deref(), target));

        let link = (!line.boot.noauto).then(|| self.pull_in(&format!("{target}.wants"), &service));
        if !is_swap {
            let mapped = format!("dev-mapper-{name}.device");
            self.pull_in(&format!("{mapped}.requires"), &service);
            // How long to wait is a matter of what is below: of a passphrase, say.
            self.drop_in(&mapped, "40-zcache", "JobTimeoutSec=infinity\n");
            self.opened.extend(line.device().map(|device| Opened {
                origin: link_of(device),
                name: line.name.to_string(),
                service,
                link,
            }));
        }
        if let (Some(device), Some(timeout)) = (device, &line.boot.timeout) {
            self.drop_in(&device, "50-zcache", &format!("JobRunningTimeoutSec={timeout}\n"));
        }
    }

    fn service(&self, line: &Line, name: &str, device: Option<&str>, target: &str) -> String {
        let (tool, title, boot) = (&self.tool, &line.name, &line.boot);
        let mut unit = format!(
            "# Made by zcache-generator.\n\
             [Unit]\n\
             Description=Zcache device {title}\n\
             Documentation=man:zcachetab(5) man:zcachesetup(8)\n\
             SourcePath=/etc/zcachetab\n\
             DefaultDependencies=no\n\
             IgnoreOnIsolate=true\n\
             After=systemd-udevd.service\n"
        );
        let mut add = |lines: &str| unit.push_str(lines);
        if let Some(device) = device {
            add(&format!("BindsTo={device}\nAfter={device}\n"));
        }
        if boot.netdev {
            add("Wants=network-online.target\nAfter=network-online.target remote-fs-pre.target\n");
        }
        if !boot.nofail && !boot.noauto {
            add(&format!("Before={target}\n"));
        }
        // The root filesystem is on what the initramfs opened, and stays.
        let stays = line.is_for_initramfs();
        if !stays {
            add("Conflicts=umount.target\nBefore=umount.target\n");
        }
        if matches!(line.what, What::Mapped { .. }) {
            let blockdev = format!("blockdev@dev-mapper-{name}.target");
            add(&format!("Wants={blockdev}\nBefore={blockdev}\n"));
        }
        add("\n[Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutSec=infinity\n");
        add(&format!("ExecStart={tool} start {title}\n"));
        if !stays {
            add(&format!("ExecStop={tool} stop {title}\n"));
        }
        unit
    }

    /// A line of fstab by a tag of the filesystem on an origin is mounted, and looked into before
    /// that, when the zcache device is there, to which the tag leads then. By another name it would
    /// find the origin in use: there the origin stays free, for the boot is worth more. Returns
    /// what is to be said of such lines.
    pub(super) fn order_mounts(&mut self, fstab: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        for line in fstab.lines() {
            let mut fields = line.split_whitespace().map(unescaped);
            let (Some(spec), Some(folder), Some(kind)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            if folder == "/" || !folder.starts_with('/') || kind == "swap" {
                continue;
            }
            let Ok(spec) = spec.parse::<Spec>();
            let device = link_of(&spec);
            let Some(opened) = self.opened.iter().find(|opened| opened.origin == device) else { continue };
            if filesystem_tag(&device).is_none() {
                let name = &opened.name;
                complaints.push(format!(
                    "{name}: /etc/fstab has {spec} on {folder}, so it is not opened; \
                                         write /dev/mapper/{name} there"
                ));
                if let Some(link) = &opened.link {
                    self.links.remove(link);
                }
                continue;
            }
            let order = format!("Wants={0}\nAfter={0}\n", opened.service);
            for unit in
                [format!("{}.mount", escape_path(&folder)), format!("systemd-fsck@{}.service", escape_path(&device))]
            {
                self.drop_in(&unit, "50-zcache", &order);
            }
        }
        complaints
    }

    /// Has the udev rule keep others from what is opened at boot: LVM takes a volume as soon as it
    /// is there, and would have it first.
    pub(super) fn claim_origins(&mut self) {
        let wanted =
            self.opened.iter().filter(|opened| opened.link.as_ref().is_some_and(|link| self.links.contains_key(link)));
        let marks: Vec<_> = wanted.filter_map(|opened| mark(&opened.origin)).collect();
        for mark in marks {
            self.files.insert(format!("zcache.origins/{mark}"), String::new());
        }
    }

    fn drop_in(&mut self, unit: &str, name: &str, lines: &str) {
        let text = format!("# From /etc/zcachetab.\n[Unit]\n{lines}");
        self.files.insert(format!("{unit}.d/{name}.conf"), text);
    }

    /// Returns the link.
    fn pull_in(&mut self, folder: &str, service: &str) -> String {
        let link = format!("{folder}/{service}");
        self.links.insert(link.clone(), format!("../{service}"));
        link
    }

    /// Writes all of them, and returns whether that went well. Who cannot have one unit gets the
    /// others.
    pub(super) fn write(&self, folder: &Path) -> bool {
        let mut complaints = String::new();
        let mut note = |path: &str, result: io::Result<()>| {
            if let Err(error) = result {
                let _ = writeln!(complaints, "{}: {}", folder.join(path).display(), reason(&error));
            }
        };
        for (path, text) in &self.files {
            note(path, in_folder(&folder.join(path), |path| fs::write(path, text)));
        }
        for (path, leads_to) in &self.links {
            note(path, in_folder(&folder.join(path), |path| symlink(leads_to, path)));
        }
        for complaint in complaints.lines() {
            Voice::default().say(complaint);
        }
        complaints.is_empty()
    }
}

/// What a field of fstab means, in which blanks are `\040`.
fn unescaped(field: &str) -> String {
    let mut text = Vec::new();
    let mut rest = field.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), after)
            }
            _ => (*first, after),
        };
        text.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn in_folder(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    write(path)
}

/// What waits for a line.
fn target(boot: &Boot, is_swap: bool) -> &'static str {
    match (boot.netdev, is_swap) {
        (true, _) => "remote-fs.target",
        (false, true) => "swap.target",
        (false, false) => "sysinit.target",
    }
}

/// The path of a device, which for a tag is udev's link.
fn link_of(spec: &Spec) -> String {
    match spec {
        Spec::Tag(tag, value) => format!("/dev/disk/by-{}/{}", tag.folder(), link_name(value)),
        Spec::Path(path) => path.clone(),
    }
}

/// How the udev rule knows a device of this path.
fn mark(path: &str) -> Option<String> {
    let name = path.strip_prefix("/dev/")?;
    let (kind, value) = match name.strip_prefix("disk/by-") {
        Some(tag) => tag.split_once('/')?,
        None => name.strip_prefix("mapper/").map_or(("name", name), |name| ("dm", name)),
    };
    let is_known = ["uuid", "label", "partuuid", "partlabel", "name", "dm"].contains(&kind);
    (is_known && !value.contains('/')).then(|| format!("{kind}={value}"))
}

/// Folder and value, if this link is by a tag that a filesystem and its zcache device have as well.
fn filesystem_tag(link: &str) -> Option<(&'static str, &str)> {
    ["uuid", "label"]
        .into_iter()
        .find_map(|kind| Some((kind, link.strip_prefix("/dev/disk/by-")?.strip_prefix(kind)?.strip_prefix('/')?)))
}

/// The unit of what a line waits for, if systemd has one for it. Tags of a filesystem are its
/// zcache device's too, hence links that are the origin's alone.
fn device_unit(spec: &Spec) -> Option<String> {
    let mut path = link_of(spec);
    if let Some((kind, value)) = filesystem_tag(&path) {
        path = format!("/dev/disk/zcache/{kind}/{value}");
    }
    path.starts_with("/dev/").then(|| format!("{}.device", escape_path(&path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(lines: &[&str]) -> Units {
        let mut units = Units::new("/usr/sbin/zcachesetup");
        for line in lines {
            let fields: Vec<_> = line.split_whitespace().collect();
            units.add(&Line::parse(fields[0], &fields[1..]).expect("a good line"));
        }
        units
    }

    #[test]
    fn a_line_is_a_unit_that_waits_for_its_device() {
        let units = units(&["data UUID=0f-b2"]);
        assert_eq!(
            units.files["zcache@data.service"],
            "# Made by zcache-generator.\n\
             [Unit]\n\
             Description=Zcache device data\n\
             Documentation=man:zcachetab(5) man:zcachesetup(8)\n\
             SourcePath=/etc/zcachetab\n\
             DefaultDependencies=no\n\
             IgnoreOnIsolate=true\n\
             After=systemd-udevd.service\n\
             BindsTo=dev-disk-zcache-uuid-0f\\x2db2.device\n\
             After=dev-disk-zcache-uuid-0f\\x2db2.device\n\
             Before=sysinit.target\n\
             Conflicts=umount.target\n\
             Before=umount.target\n\
             Wants=blockdev@dev-mapper-data.target\n\
             Before=blockdev@dev-mapper-data.target\n\
             \n\
             [Service]\n\
             Type=oneshot\n\
             RemainAfterExit=yes\n\
             TimeoutSec=infinity\n\
             ExecStart=/usr/sbin/zcachesetup start data\n\
             ExecStop=/usr/sbin/zcachesetup stop data\n"
        );
        let links: Vec<_> = units.links.keys().collect();
        assert_eq!(
            links,
            ["dev-mapper-data.device.requires/zcache@data.service", "sysinit.target.wants/zcache@data.service"]
        );
    }

    #[test]
    fn nobody_waits_for_what_may_be_absent() {
        let units = units(&["a /dev/a nofail", "b /dev/b noauto"]);
        for name in ["a", "b"] {
            assert!(!units.files[&format!("zcache@{name}.service")].contains("Before=sysinit.target"));
        }
        assert!(units.links.contains_key("sysinit.target.wants/zcache@a.service"));
        assert!(!units.links.contains_key("sysinit.target.wants/zcache@b.service"));
    }

    #[test]
    fn the_root_filesystem_stays() {
        let units = units(&["root PARTUUID=3a-02 initramfs"]);
        let unit = &units.files["zcache@root.service"];
        assert!(unit.contains("BindsTo=dev-disk-by\\x2dpartuuid-3a\\x2d02.device\n"));
        assert!(!unit.contains("ExecStop") && !unit.contains("umount.target"));
    }

    #[test]
    fn mounts_by_tag_come_after() {
        let mut units = units(&["data UUID=0f-b2", "swap /dev/vdc swap"]);
        let complaints = units.order_mounts(
            "# c\nUUID=0f-b2 / ext4\n/dev/disk/by-uuid/0f-b2 /srv ext4 defaults 0 2\n\
             UUID=0f-b2 none swap\n/dev/vdc /x ext4\n",
        );
        assert!(complaints.is_empty(), "{complaints:?}");
        // What looks into the filesystem first would have it in use when it is to be opened.
        for unit in ["srv.mount", "systemd-fsck@dev-disk-by\\x2duuid-0f\\x2db2.service"] {
            let lines = &units.files[&format!("{unit}.d/50-zcache.conf")];
            assert!(lines.contains("After=zcache@data.service\n"), "{unit}: {lines}");
        }
        assert_eq!(units.files.keys().filter(|path| path.ends_with("50-zcache.conf")).count(), 2);
    }

    #[test]
    fn blanks_of_fstab_are_understood() {
        for (field, text) in
            [("a", "a"), ("my\\040data", "my data"), ("a\\134\\04", "a\\\\04"), ("\\", "\\"), ("\\400", "\\400")]
        {
            assert_eq!(unescaped(field), text);
        }
        let mut units = units(&["data LABEL=my\\x20disk"]);
        let complaints = units.order_mounts("LABEL=\"my\\040disk\" /srv/my\\040data ext4 defaults 0 2\n");
        assert!(complaints.is_empty(), "{complaints:?}");
        let lines = &units.files["srv-my\\x20data.mount.d/50-zcache.conf"];
        assert!(lines.contains("After=zcache@data.service\n"), "{lines}");
    }

    /// Such a mount would be refused, and the boot end in emergency mode.
    #[test]
    fn what_fstab_mounts_by_another_name_stays_free() {
        for device in ["/dev/vdb", "PARTUUID=3a-02"] {
            let mut units = units(&[&format!("data {device}"), "other /dev/vdd"]);
            assert_eq!(
                units.order_mounts(&format!("{device} /srv ext4 defaults 0 2\n")),
                [format!("data: /etc/fstab has {device} on /srv, so it is not opened; write /dev/mapper/data there")]
            );
            let links: Vec<_> = units.links.keys().filter(|link| link.starts_with("sysinit")).collect();
            assert_eq!(links, ["sysinit.target.wants/zcache@other.service"]);
        }
    }

    #[test]
    fn origins_are_marked_unless_they_stay_free() {
        let mut units = units(&[
            "a UUID=0f-b2",
            "b PARTLABEL=my\\x20disk",
            "c /dev/vdb",
            "d /dev/mapper/crypt",
            "e /dev/vg/lv",
            "f /dev/disk/by-id/x",
            "g /dev/vdc noauto",
            "h /dev/vdd",
            "i /dev/vde swap",
        ]);
        units.order_mounts("/dev/vdd /srv ext4\n");
        units.claim_origins();
        let marks: Vec<_> = units.files.keys().filter_map(|path| path.strip_prefix("zcache.origins/")).collect();
        assert_eq!(marks, ["dm=crypt", "name=vdb", "partlabel=my\\x20disk", "uuid=0f-b2"]);
    }

    /// The rule looks for all marks there can be.
    #[test]
    fn the_rule_knows_the_marks() {
        let rules = include_str!("../../zcache.rules");
        let kinds: Vec<_> = rules
            .lines()
            .filter_map(|line| line.strip_prefix("TEST==\"/run/systemd/generator/zcache.origins/")?.split_once('='))
            .map(|(kind, _)| kind)
            .collect();
        assert_eq!(kinds, ["uuid", "label", "partuuid", "partlabel", "name", "dm"]);
    }

    #[test]
    fn a_file_is_not_awaited() {
        assert_eq!(device_unit(&Spec::Path("/var/disk".to_owned())), None);
        let label = Spec::Path("/dev/disk/by-label/a".to_owned());
        assert_eq!(device_unit(&label).as_deref(), Some("dev-disk-zcache-label-a.device"));
    }
}
