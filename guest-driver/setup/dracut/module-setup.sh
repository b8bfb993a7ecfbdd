#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# dracut: what an initramfs needs to open the lines of /etc/zcachetab that are
# marked initramfs, and to leave the others alone.

zcache_marked='^[^#]*[[:space:],]initramfs'

check() {
	[ -e /etc/zcachetab ]
}

depends() {
	echo dm
}

installkernel() {
	if grep -Eqs "$zcache_marked" /etc/zcachetab; then
		hostonly='' instmods dm_mod dm_zcache zcache_virtio virtio_pci
	fi
}

install() {
	# The rule looks into a folder of the initramfs, which is gone when the system has marks of its own.
	/usr/lib/vhost-zcache/hide-origins "${initdir:?}"
	inst_rules 61-zcache.rules
	find "$initdir" -name 61-zcache.rules -exec \
		sed -i 's|/run/systemd/generator/zcache.origins|/etc/zcache.origins|' {} +

	grep -Eqs "$zcache_marked" /etc/zcachetab || return 0
	inst_simple /etc/zcachetab
	inst /usr/sbin/zcachesetup
	inst_multiple blkid modprobe
	inst_hook initqueue/settled 30 "${moddir:?}/zcache.sh"
	inst_hook pre-mount 01 "${moddir:?}/zcache.sh"
}
