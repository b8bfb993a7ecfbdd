// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's root disk: a squashfs with Debian 12 programs and the agent.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{self, AptRoot, Deb, Repository, Suite};
use crate::cache::{Cache, Key, Leftovers};
use crate::error::{Error, IoContext as _, Result};
use crate::tools::Tools;
use crate::{command, guest, host, linked, squashfs, tools};

const SUITES: &[Suite] = &[Suite { repository: Repository::Main, name: "bookworm" }];

/// Packages whose programs the guest gets. Of what they depend on it gets only the
/// libraries that these programs are linked with.
const PACKAGES: &[&str] = &[
    "bash",
    "bsdextrautils",
    "btrfs-progs",
    "busybox-static",
    "coreutils",
    "dash",
    "diffutils",
    "dmsetup",
    "e2fsprogs",
    "erofs-utils",
    "findutils",
    "fio",
    "gawk",
    "grep",
    "kmod",
    "mount",
    "ocfs2-tools",
    "procps",
    "sed",
    "stress-ng",
    "util-linux",
    "xfsprogs",
    "xxd",
];

/// Loaded by the C library at run time, when a thread is cancelled.
const LIBRARIES: &[&str] = &["lib/x86_64-linux-gnu/libgcc_s.so.1"];

/// Parts of the packages that the guest does not use.
const UNUSED: &[&str] = &[
    "etc/init.d",
    "lib/systemd",
    "lib/udev",
    "usr/include",
    "usr/share/awk",
    "usr/share/fio",
    "usr/share/initramfs-tools",
    "usr/share/perl5",
    "usr/share/stress-ng",
    "var",
];

/// Mount points and folders which `init` and programs expect.
const FOLDERS: &[&str] =
    &["dev", "etc", "lib/modules", "mnt", "payload", "proc", "root", "run", "sys", "tmp", "usr/local/bin", "var/log"];

/// Folders that are links into `/usr`, as on every current Debian.
const MERGED: &[&str] = &["bin", "lib", "lib64", "sbin"];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// The distribution's file systems have 1 KiB blocks when they are smaller than 512 MiB, as test
/// disks are; the kernel asks cleancache only for file systems whose block is a page.
const MKE2FS_CONF: &str = "\
[defaults]
\tbase_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
\tdefault_mntopts = acl,user_xattr
\tblocksize = 4096
\tinode_size = 256
\tinode_ratio = 16384
[fs_types]
\text3 = {
\t\tfeatures = has_journal
\t}
\text4 = {
\t\tfeatures = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
\t}
\tsmall = {
\t\tinode_ratio = 4096
\t}
\tfloppy = {
\t\tinode_ratio = 8192
\t}
";

/// Returns the image.
pub(crate) fn get(cache: &Cache) -> Result<PathBuf> {
    let mut inputs = PACKAGES.to_vec();
    inputs.push(MKE2FS_CONF);
    inputs.extend(guest::SOURCES.iter().map(|source| source.text));
    let artefact = cache.artefact("rootfs", &Key::of(&inputs), Leftovers::Remove, |dir, progress| {
        host::require()?;
        let build_tools = Tools::get(cache)?;
        let log = dir.join("build.log");
        progress.step("fetching the guest's programs (about 90 MB)");
        let apt = AptRoot::open(&cache.downloads("rootfs"), SUITES, &log)?;
        let debs = apt.download(PACKAGES)?;
        let (wanted, others): (Vec<&Deb>, Vec<&Deb>) =
            debs.iter().partition(|deb| PACKAGES.contains(&deb.package.name.as_str()));

        progress.step("unpacking");
        let root = dir.join("root");
        let rest = dir.join("rest");
        apt::extract(wanted, &root, &log)?;
        apt::extract(others, &rest, &log)?;
        tools::remove_documentation(&root)?;
        for part in UNUSED {
            remove_if_present(&root.join(part))?;
        }
        add_libraries(&root, &rest)?;
        merge_usr(&root, &log)?;
        add_own_files(&root, dir, &log)?;
        add_applets(&root)?;

        progress.step("packing the image");
        squashfs::pack(&build_tools, &root, &dir.join("rootfs.squashfs"), &log)?;
        for part in [root, rest] {
            remove_if_present(&part)?;
        }
        Ok(apt::packages(&debs))
    })?;
    Ok(artefact.dir.join("rootfs.squashfs"))
}

fn remove_if_present(path: &Path) -> Result<()> {
    if path.exists() { fs::remove_dir_all(path).while_doing("remove", path) } else { Ok(()) }
}

/// Copies the libraries that the programs of `root` need from `rest`, each to where it
/// was, and the dynamic linker.
fn add_libraries(root: &Path, rest: &Path) -> Result<()> {
    // Libraries of the wanted packages themselves must be found as well.
    let mut search = linked::library_path(rest);
    search.push(":");
    search.push(linked::library_path(root));
    let loader = linked::loader(rest);
    let mut needed = vec![loader.clone()];
    needed.extend(LIBRARIES.iter().map(|library| rest.join(library)));
    for dir in ["bin", "sbin", "usr/bin", "usr/sbin"] {
        for program in linked::dynamic_programs(&root.join(dir))? {
            needed.extend(linked::linked_libraries(&loader, &search, &program)?);
        }
    }
    needed.sort();
    needed.dedup();
    for library in needed {
        // Those in `root` are where they have to be.
        if let Ok(place) = library.strip_prefix(rest) {
            copy(&library, &root.join(place))?;
        }
    }
    let loader_link = root.join("lib64/ld-linux-x86-64.so.2");
    create_dir(&root.join("lib64"))?;
    symlink("/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", &loader_link).while_doing("create", &loader_link)
}

fn merge_usr(root: &Path, log: &Path) -> Result<()> {
    for name in MERGED {
        let old = root.join(name);
        let new = root.join("usr").join(name);
        create_dir(&new)?;
        if old.exists() {
            command::run(Command::new("cp").arg("-a").arg(old.join(".")).arg(&new), log)?;
            remove_if_present(&old)?;
        }
        symlink(Path::new("usr").join(name), &old).while_doing("create", &old)?;
    }
    Ok(())
}

fn add_own_files(root: &Path, dir: &Path, log: &Path) -> Result<()> {
    for folder in FOLDERS {
        create_dir(&root.join(folder))?;
    }
    let write = |path: &str, text: &str, mode: u32| {
        let path = root.join(path);
        fs::write(&path, text).while_doing("write", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).while_doing("write", &path)
    };
    write("etc/passwd", PASSWD, 0o644)?;
    write("etc/group", GROUP, 0o644)?;
    write("etc/mke2fs.conf", MKE2FS_CONF, 0o644)?;
    // Where mkfs and mount look for what is mounted.
    let mtab = root.join("etc/mtab");
    symlink("/proc/self/mounts", &mtab).while_doing("create", &mtab)?;
    write("init", guest::INIT, 0o755)?;

    let programs = dir.join("programs");
    create_dir(&programs)?;
    guest::build(&programs, log)?;
    copy(&programs.join("agent"), &root.join("usr/sbin/zcache-agent"))?;
    copy(&programs.join("zhost"), &root.join("usr/bin/zhost"))
}

/// Makes a link for each of busybox's programs that is not there from a package.
fn add_applets(root: &Path) -> Result<()> {
    let list = command::output(Command::new(root.join("usr/bin/busybox")).arg("--list-full"))?;
    for applet in list.lines() {
        let Some(name) = Path::new(applet).file_name() else { continue };
        let taken = ["usr/bin", "usr/sbin"].iter().any(|dir| root.join(dir).join(name).symlink_metadata().is_ok());
        let dir = if applet.contains("sbin/") { "usr/sbin" } else { "usr/bin" };
        if !taken {
            let path = root.join(dir).join(name);
            symlink("/bin/busybox", &path).while_doing("create", &path)?;
        }
    }
    Ok(())
}

fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).while_doing("create", path)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        create_dir(parent)?;
    }
    fs::copy(from, to).map_err(|source| Error::Io { action: "copy", path: from.to_owned(), source })?;
    Ok(())
}
