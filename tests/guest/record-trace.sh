#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Prints what a guest asks of the device while programs read more files than its memory holds, a
# request a line, for `cargo xtask bench evict --trace FILE` (five minutes under TCG, more than ten on a slow machine):
#
#   cargo xtask guest --kernel debian-13 --disk 2G --run tests/guest/record-trace.sh > FILE
#
# In a guest of one's own, record() alone does it. The overruns that are printed at the end have to be 0.
set -euo pipefail

# A probe where requests are made: zcv_key_req(opcode, flags, pool, key, count) returns a struct, so
# its arguments begin in the second register. Of the key's object, the driver uses the first word.
record() {
    cd /sys/kernel/tracing
    echo 'p:request zcache_virtio:zcv_key_req opcode=%si:u16 object=+0(%r8):u64 page=+24(%r8):u64 count=%r9:u64' > kprobe_events
    echo 16384 > buffer_size_kb
    echo 1 > events/kprobes/request/enable
    awk -F '[ =]+' '
        { for (i = 1; i < NF; i++) value[$i] = $(i + 1) }
        value["opcode"] == 4 { print "put", value["object"], value["page"] }
        value["opcode"] == 5 { print "get", value["object"], value["page"] }
        value["opcode"] == 6 { print "flush", value["object"], value["page"] }
        value["opcode"] == 7 { for (i = 0; i < value["count"]; i++) print "flush", value["object"], value["page"] + i }
    ' trace_pipe
}

zcachesetup open /dev/vdb data >&2
mkfs.ext4 -q /dev/mapper/data >&2
mount -o noatime /dev/mapper/data /mnt
for copy in 1 2 3; do
    mkdir /mnt/$copy
    cp -r /usr/bin /usr/sbin /usr/lib /mnt/$copy
done
sync
mapfile -t files < <(find /mnt -type f -size +0 | sort -R --random-source=/bin/bash)

mount -t tracefs none /sys/kernel/tracing 2> /dev/null || true
record &
sleep 2

# Reads files, no faster than they are recorded.
use() {
    cat "$@" > /dev/null
    while (($(awk '/^entries:/ { sum += $2 } END { print sum }' /sys/kernel/tracing/per_cpu/cpu*/stats) > 50000)); do
        sleep 0.2
    done
}

# Few files are used often, most seldom; and now and then a backup reads everything.
RANDOM=1
for round in {1..2000}; do
    use "${files[RANDOM * RANDOM / 32768 * ${#files[@]} / 32768]}"
    if ((round % 800 == 0)); then
        for ((file = 0; file < ${#files[@]}; file += 10)); do
            use "${files[@]:file:10}"
        done
    fi
done
# The recorder ends when it has read what there is.
echo 0 > /sys/kernel/tracing/tracing_on
wait
grep -h '^overrun' /sys/kernel/tracing/per_cpu/cpu*/stats >&2
