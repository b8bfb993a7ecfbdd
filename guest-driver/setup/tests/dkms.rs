// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What DKMS is told to build, for which kernels. It reads dkms.conf as this does, by bash.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// What DKMS makes of dkms.conf for a kernel: modules and configuration, or that it is passed over.
fn read(kernel: &str) -> String {
    const READ: &str = r#"
        kernelver=$1; . "$2"
        if [[ $BUILD_EXCLUSIVE_KERNEL && ! $1 =~ $BUILD_EXCLUSIVE_KERNEL ]]; then echo passed over; exit; fi
        for i in "${!BUILT_MODULE_NAME[@]}"; do
            [ -d "${2%/setup/*}/${BUILT_MODULE_LOCATION[i]#guest-driver/}" ] || echo "no ${BUILT_MODULE_LOCATION[i]}"
        done
        echo "${BUILT_MODULE_NAME[*]}: $BUILD_EXCLUSIVE_CONFIG""#;
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("dkms.conf");
    let output = Command::new("bash").args(["-ec", READ, "bash", kernel]).arg(conf).output().expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

#[test]
fn a_kernel_gets_what_it_can_use() {
    const DISKS: &str = "zcache zcache_virtio dm-zcache zcache_swap: CONFIG_VIRTIO CONFIG_BLK_DEV_DM CONFIG_SWAP";
    const HOOKS: &str = "zcache zcache_virtio: CONFIG_VIRTIO CONFIG_CLEANCACHE CONFIG_FRONTSWAP";
    const NOTHING: &str = "passed over";
    for (kernel, built) in [
        ("4.19.0-27-amd64", NOTHING),
        ("5.4.0-200-generic", NOTHING),
        ("5.10.0-35-amd64", HOOKS),
        ("5.15.0-144-generic", HOOKS),
        ("5.16.20", HOOKS),
        ("5.17.0-1-amd64", NOTHING),
        ("5.19.0-50-generic", NOTHING),
        ("6.1.0-50-amd64", DISKS),
        ("6.12.117+deb13-amd64", DISKS),
        ("7.0.0-rc1", DISKS),
        ("10.0.1", DISKS),
    ] {
        assert_eq!(read(kernel), built, "{kernel}");
    }
}

/// A script that is not there, or cannot be run, is a warning to DKMS and nothing else.
#[test]
fn the_script_that_renews_the_initramfs_is_installed() {
    const READ: &str = r#"kernelver=6.1.0-50-amd64; . "$1"; echo "vhost-zcache-$PACKAGE_VERSION/$POST_INSTALL""#;
    let setup = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = TempDir::new().expect("a folder");
    let mut make = Command::new("make");
    make.arg("-C").arg(setup).arg("dkms-install").arg(format!("DESTDIR={}", root.path().display()));
    let output = make.env_remove("MAKEFLAGS").output().expect("make");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let read = Command::new("bash").args(["-ec", READ, "bash"]).arg(setup.join("dkms.conf")).output().expect("bash");
    let script = String::from_utf8_lossy(&read.stdout);
    let (script, kernel) = script.trim_end().split_once(' ').expect("a script with the kernel's version");
    assert_eq!(kernel, "6.1.0-50-amd64");
    let script = root.path().join("usr/src").join(script);
    let mode = script.metadata().unwrap_or_else(|error| panic!("{}: {error}", script.display())).permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "{} cannot be run", script.display());
}
