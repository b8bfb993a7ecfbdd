#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What zcachesetup says about arguments and tables that are wrong, whether documents
# are true, and what the generator makes. None of it
# gets as far as the kernel, so this needs no root, no modules and no guest.
set -u

failures=0
dir=$(mktemp -d)
trap 'rm -r "$dir"' EXIT
export ZCACHETAB="$dir/zcachetab"

# expect STATUS MESSAGE ARGUMENT...: the only line is MESSAGE.
expect() {
	status=$1
	message="zcachesetup: $2"
	shift 2
	output=$($shell ./zcachesetup "$@" 2>&1)
	got=$?
	[ "$got $output" = "$status $message" ] && return
	echo "$shell zcachesetup $*: $got $output, not $status $message" >&2
	failures=$((failures + 1))
}

# expect_line LINE MESSAGE: of a table that is not more than a line.
expect_line() {
	echo "$1" >"$ZCACHETAB"
	expect 1 "$ZCACHETAB:1: $2" start
}

arguments() {
	help='see zcachesetup --help'
	expect 2 "a command is needed; $help"
	expect 2 "unknown command mount; $help" mount
	expect 2 "open takes DEVICE and NAME; $help" open /dev/null
	expect 2 "open takes DEVICE and NAME; $help" open /dev/null a b
	expect 2 "unknown option --get; $help" open --get /dev/null a
	expect 2 "--put needs a value; $help" open --put
	expect 2 "put is evict or read, not 'never'; $help" open --put never /dev/null a
	for name in '' a/b .a -a 'a b'; do
		expect 2 "$name: a name has letters, digits and ._+- only; $help" \
			open /dev/null "$name"
	done
	expect 2 "close takes one NAME; $help" close
	expect 2 "flush takes one NAME; $help" flush a b
	expect 2 "status takes one NAME; $help" status a b
	expect 2 "unknown option --yaml; $help" status --yaml
	expect 2 "swap takes on, off or status; $help" swap
	expect 2 "swap off takes one DEVICE; $help" swap off
	expect 2 "--size needs a value; $help" swap on --size
	expect 2 "unknown option 1G; $help" swap on 1G
	expect 2 "size is a number, with K, M or G, not '1X'; $help" swap on --size 1X
	expect 2 "size is a number, with K, M or G, not 'M'; $help" swap on --size M
	expect 2 "priority is a number, not '-1'; $help" swap on --priority -1
	expect 2 "a swap disk without a backing device needs a size; $help" swap on
	expect 2 "writethrough needs a backing device; $help" \
		swap on --size 1G --writethrough
	expect 2 "--wait needs seconds; $help" start --wait
	expect 2 "unknown option --initramfs; $help" stop --initramfs
	expect 2 "--root needs a device; $help" start --root
	expect 2 "resize takes one NAME; $help" resize
	expect 2 "reload takes one NAME; $help" reload --put read
	expect 2 "put is evict or read, not 'x'; $help" reload --put x a
	expect 2 "table takes nothing; $help" table a
	expect 2 "removable takes nothing; $help" removable a
	expect 2 "either lines or their names; $help" start --all a
}

tables() {
	expect_line 'a/b /dev/null' 'a/b: a name has letters, digits and ._+- only'
	where="neither a path nor UUID=, LABEL=, PARTUUID=, PARTLABEL="
	expect_line 'a' "a: '' is $where"
	expect_line 'a sda' "a: 'sda' is $where"
	expect_line 'a UUID=' "a: 'UUID=' is $where"
	expect_line 'a none' 'a: needs a device'
	expect_line 'a /dev/null put=read x' 'a: more than three fields'
	expect_line 'a /dev/null put=never' "put is evict or read, not 'never'"
	expect_line 'a /dev/null put=read,x' "a: option 'x' is not known, or not here"
	expect_line 'a /dev/null size=1G' "a: option 'size=1G' is not known, or not here"
	expect_line 'a /dev/null initramfs,swap' \
		"a: option 'initramfs' is not known, or not here"
	expect_line 'a none swap' 'a swap disk without a backing device needs a size'
	expect_line 'a none swap,size=1G,writethrough' \
		'writethrough needs a backing device'
	expect_line 'a /dev/null swap,size=x' \
		"size is a number, with K, M or G, not 'x'"
	expect_line 'a /dev/null swap,priority=x' "priority is a number, not 'x'"
	expect_line 'a /dev/null x-systemd.device-timeout=soon' \
		"a timeout is a time such as 30s or 5min, not 'soon'"
	expect_line 'a /dev/null x-systemd.device-timeout=5parsecs' \
		"a timeout is a time such as 30s or 5min, not '5parsecs'"
	expect_line 'a none put=x' "put is evict or read, not 'x'"

	expect_line "a none$(printf '\r')" 'a: needs a device'
	expect_line 'a none # comment' 'a: needs a device'
	expect_line 'a none put=read	#comment' 'a: needs a device'
	expect_line 'a none put=x#y' "put is evict or read, not 'x#y'"

	# Bad lines do not hide each other; the last one has no newline.
	printf '# comment\n\n  a none\nb none\nb sda' >"$ZCACHETAB"
	expect 1 "$ZCACHETAB:3: a: needs a device
zcachesetup: $ZCACHETAB:4: b: needs a device
zcachesetup: $ZCACHETAB:5: b: a line of that name comes before" start

	# Of the lines that were not asked for nothing is said.
	expect 1 "$ZCACHETAB:3: a: needs a device" stop a
	expect 1 "c: no such line in $ZCACHETAB" stop c

	rm "$ZCACHETAB"
	expect 1 "$ZCACHETAB: cannot be read" start
}

# same_words WORDS WORDS OF-WHAT
same_words() {
	[ "$1" = "$2" ] && return
	printf '%s differ:\n%s\n--\n%s\n' "$3" "$1" "$2" >&2
	failures=$((failures + 1))
}

# What --help, the page and the completion know is the same, both ways.
documents() {
	help=$($shell ./zcachesetup --help)
	synopsis=$(sed -n '/^.Sh SYNOPSIS/,/^.Sh DESC/p' zcachesetup.8)
	text=$(sed -n '/^.Sh DESC/,/^.Sh ENV/p' zcachesetup.8)
	options=$(echo "$help" | grep -o -- '--[a-z]*' | sort -u)
	same_words "$options" "$(echo "$synopsis" | grep -o 'Fl -[a-z]*\|| -[a-z]*' |
		sed 's/.* -/--/' | sort -u)" "options of --help and the synopsis"
	same_words "$options" "$(echo "$text" | grep -o '^\.Fl -[a-z]*' |
		sed 's/.* -/--/' | sort -u)" "options of --help and the text"
	same_words "$options" "$(grep -o -- '--[a-z]*' completion.bash | grep -v 'separator\|noheadings' |
		grep -v '^--$' | sort -u)" "options of --help and the completion"
	commands=$(echo "$help" | sed -n 's/^zcachesetup \([a-z].*\)/\1/p' |
		sed 's/^swap \(on\|off\|status\).*/swap \1/; t; s/ .*//' | sort -u)
	same_words "$commands" "$(echo "$synopsis" | sed -n 's/^.Cm //p' | sort -u)" \
		"commands of --help and the synopsis"
	same_words "$(echo "$commands" | grep -v 'swap status')" "$(echo "$text" |
		sed -n 's/^.It Cm \([a-z ]*\).*/\1/p' | sed 's/ *$//' | sort -u)" \
		"commands of --help and the text"
	for command in $(echo "$commands" | tr ' ' '\n' | sort -u); do
		grep -q "[ ']$command[ ']" completion.bash && continue
		echo "the completion lacks $command" >&2
		failures=$((failures + 1))
	done
	same_words "$(sed -n '/^parse_line/,/^}/p' zcachesetup |
		grep -o '[a-z*]*:[a-z_][a-z_.-]*' | grep -v '^[a-z]*:swap$' | sed 's/.*://' |
		sort -u)" "$(sed -n 's/^.It Cm \([a-z_.-]*\).*/\1/p' zcachetab.5 |
		grep -v '^swap$' | sort -u)" "options of a line and of zcachetab(5)"
}

# generates FILE TEXT: of the units that the generator made.
generates() {
	grep -qx -- "$2" "$dir/units/$1" && return
	echo "$1 lacks '$2'" >&2
	failures=$((failures + 1))
}

# What follows of a table for systemd.
units() {
	mkdir "$dir/units"
	cat >"$ZCACHETAB" <<-'EOF'
	data	UUID=0f-b2		nofail,x-systemd.device-timeout=5s
	root	PARTUUID=3a-02		initramfs
	luks-x	/dev/mapper/crypt_x	put=read
	swap	/dev/vdc		swap,priority=100
	fast	none			swap,size=1G,noauto
	net	/dev/sdz		_netdev
	bad	sda
	EOF
	echo 'UUID=0f-b2 /srv/my-data ext4 defaults 0 2' >"$dir/fstab"
	said=$(ZCACHESETUP=./zcachesetup ZCACHE_FSTAB="$dir/fstab" \
		$shell ./zcache-generator "$dir/units" 2>&1)
	same_words "$said" "zcachesetup: $ZCACHETAB:7: bad: 'sda' is neither a path nor UUID=, LABEL=, PARTUUID=, PARTLABEL=" \
		"what is said of a bad line"
	same_words "$(cd "$dir/units" && find . -type f -o -type l | sort)" "$(sort <<-'EOF'
	./zcache@data.service
	./zcache@root.service
	./zcache@luks\x2dx.service
	./zcache@swap.service
	./zcache@fast.service
	./zcache@net.service
	./sysinit.target.wants/zcache@data.service
	./sysinit.target.wants/zcache@root.service
	./sysinit.target.wants/zcache@luks\x2dx.service
	./swap.target.wants/zcache@swap.service
	./remote-fs.target.wants/zcache@net.service
	./dev-mapper-data.device.requires/zcache@data.service
	./dev-mapper-root.device.requires/zcache@root.service
	./dev-mapper-luks\x2dx.device.requires/zcache@luks\x2dx.service
	./dev-mapper-net.device.requires/zcache@net.service
	./dev-mapper-data.device.d/40-zcache.conf
	./dev-mapper-root.device.d/40-zcache.conf
	./dev-mapper-luks\x2dx.device.d/40-zcache.conf
	./dev-mapper-net.device.d/40-zcache.conf
	./dev-disk-zcache-uuid-0f\x2db2.device.d/50-zcache.conf
	./srv-my\x2ddata.mount.d/50-zcache.conf
	EOF
	)" "units of a table"
	generates zcache@data.service 'BindsTo=dev-disk-zcache-uuid-0f\\x2db2.device'
	generates zcache@data.service 'Before=blockdev@dev-mapper-data.target'
	generates 'zcache@luks\x2dx.service' 'After=dev-mapper-crypt_x.device'
	generates zcache@swap.service 'Before=swap.target'
	generates zcache@net.service 'Before=remote-fs.target'
	generates 'srv-my\x2ddata.mount.d/50-zcache.conf' 'After=zcache@data.service'
	for line in 'zcache@data.service:Before=sysinit.target' \
		'zcache@root.service:ExecStop=./zcachesetup stop root'; do
		! grep -qx "${line#*:}" "$dir/units/${line%%:*}" || {
			echo "${line%%:*} has ${line#*:}" >&2
			failures=$((failures + 1))
		}
	done
}

# The version is written in three places.
version=$(sed -n 's/^version = "\(.*\)"/\1/p' ../../Cargo.toml)
for line in "zcachesetup:version=$version" "dkms.conf:PACKAGE_VERSION=\"$version\""; do
	grep -qx "${line#*:}" "${line%%:*}" || {
		echo "${line%%:*} is not of version $version" >&2
		failures=$((failures + 1))
	}
done

shell=dash
arguments
tables
documents
units
[ $failures = 0 ]
