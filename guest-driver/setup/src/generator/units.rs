// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The units of a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::error::{Voice, reason};
use crate::spec::{Spec, Tag, link_name};
use crate::table::line::{Boot, Line, What};
use crate::unit_name::{escape, escape_path};

/// Files and links below the generator's folder.
pub(super) struct Units {
    tool: String,
    files: BTreeMap<String, String>,
    /// Where they lead.
    links: BTreeMap<String, String>,
    /// Devices of lines as they are written there, and their services.
    services: Vec<(String, String)>,
}

impl Units {
    pub(super) fn new(tool: &str) -> Self {
        Self { tool: tool.to_owned(), files: BTreeMap::new(), links: BTreeMap::new(), services: Vec::new() }
    }

    /// What a line of the table needs.
    pub(super) fn add(&mut self, line: &Line) {
        let name = escape(line.name.as_str());
        let service = format!("zcache@{name}.service");
        let is_swap = matches!(line.what, What::Swap(_));
        let device = line.device().and_then(device_unit);
        let target = target(&line.boot, is_swap);
        self.files.insert(service.clone(), self.service(line, &name, device.as_deref(), target));

        if !line.boot.noauto {
            self.pull_in(&format!("{target}.wants"), &service);
        }
        if !is_swap {
            let mapped = format!("dev-mapper-{name}.device");
            self.pull_in(&format!("{mapped}.requires"), &service);
            // How long to wait is a matter of what is below: of a passphrase, say.
            self.drop_in(&mapped, "40-zcache", "JobTimeoutSec=infinity\n");
            self.services.extend(line.device().map(|device| (device.to_string(), service)));
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

    /// A line of fstab by the tags of an origin is mounted when the zcache device is there, to
    /// which the tags lead then.
    pub(super) fn order_mounts(&mut self, fstab: &str) {
        for line in fstab.lines() {
            let mut fields = line.split_whitespace();
            let (Some(spec), Some(folder), Some(kind)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            if folder == "/" || !folder.starts_with('/') || kind == "swap" {
                continue;
            }
            let Some((_, service)) = self.services.iter().find(|(device, _)| device == spec) else { continue };
            let order = format!("Wants={service}\nAfter={service}\n");
            self.drop_in(&format!("{}.mount", escape_path(folder)), "50-zcache", &order);
        }
    }

    fn drop_in(&mut self, unit: &str, name: &str, lines: &str) {
        let text = format!("# From /etc/zcachetab.\n[Unit]\n{lines}");
        self.files.insert(format!("{unit}.d/{name}.conf"), text);
    }

    fn pull_in(&mut self, folder: &str, service: &str) {
        self.links.insert(format!("{folder}/{service}"), format!("../{service}"));
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

/// The unit of what a line waits for, if systemd has one for it. Tags of a filesystem are its
/// zcache device's too, hence links that are the origin's alone.
fn device_unit(spec: &Spec) -> Option<String> {
    let own = |kind: &str, value: &str| format!("/dev/disk/zcache/{kind}/{value}");
    let path = match spec {
        Spec::Tag(tag @ (Tag::Uuid | Tag::Label), value) => own(&tag.folder(), &link_name(value)),
        Spec::Tag(tag, value) => format!("/dev/disk/by-{}/{}", tag.folder(), link_name(value)),
        Spec::Path(path) => match (path.strip_prefix("/dev/disk/by-uuid/"), path.strip_prefix("/dev/disk/by-label/")) {
            (Some(value), _) => own("uuid", value),
            (_, Some(value)) => own("label", value),
            _ => path.clone(),
        },
    };
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
        let mut units = units(&["data UUID=0f", "swap /dev/vdc swap"]);
        units
            .order_mounts("# c\nUUID=0f / ext4\nUUID=0f /srv ext4 defaults 0 2\nUUID=0f none swap\n/dev/vdc /x ext4\n");
        let drop_ins: Vec<_> = units.files.keys().filter(|path| path.contains(".mount.d")).collect();
        assert_eq!(drop_ins, ["srv.mount.d/50-zcache.conf"]);
        assert!(units.files["srv.mount.d/50-zcache.conf"].contains("After=zcache@data.service\n"));
    }

    #[test]
    fn a_file_is_not_awaited() {
        assert_eq!(device_unit(&Spec::Path("/var/disk".to_owned())), None);
        let label = Spec::Path("/dev/disk/by-label/a".to_owned());
        assert_eq!(device_unit(&label).as_deref(), Some("dev-disk-zcache-label-a.device"));
    }
}
