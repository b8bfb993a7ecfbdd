#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Opens the lines of /etc/zcachetab that are marked initramfs, as the root device is
# looked for and once more when it is there. Is read by dracut, so $root is its.

zcache_root=${root#block:}
case $zcache_root in
/dev/disk/by-* | /dev/mapper/*)
	# Leads to the zcache device as soon as that is open.
	zcachesetup start --initramfs 2>/dev/null ;;
/dev/*)
	# systemd mounts what the command line says, which must be free then.
	if [ -z "${DRACUT_SYSTEMD-}" ] &&
		zcache_mapped=$(zcachesetup start --initramfs --root "$zcache_root") &&
		[ -n "$zcache_mapped" ]; then
		root=block:$zcache_mapped
	fi ;;
esac
unset zcache_root zcache_mapped
:
