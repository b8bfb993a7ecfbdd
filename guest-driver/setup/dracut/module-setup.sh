#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# dracut: what an initramfs needs to open the lines of /etc/zcachetab that are
# marked initramfs.

check() {
	grep -Eqs '^[^#]*[[:space:],]initramfs' /etc/zcachetab
}

depends() {
	echo dm
}

installkernel() {
	hostonly='' instmods dm_mod dm_zcache zcache_virtio virtio_pci
}

install() {
	inst_simple /etc/zcachetab
	inst /usr/sbin/zcachesetup
	inst_multiple blkid modprobe
	inst_rules 61-zcache.rules
	inst_hook initqueue/settled 30 "${moddir:?}/zcache.sh"
	inst_hook pre-mount 01 "${moddir:?}/zcache.sh"
}
