#!/usr/bin/env bats
# Opening and closing under faults: killed at every ioctl, two at once, pulled
# disks, other mappings in the way. (Faults of files are in tests/fault.)
#
# guest: --disk virtio:d1:64M --disk virtio:d2:64M

load lib

setup_file()
{
	qs-util cryptformat --no-open /dev/disk/by-id/virtio-d1 /dev/disk/by-id/virtio-d2
}

teardown()
{
	qs-util cryptcloseall >/dev/null || true
	dmsetup remove_all -f 2>/dev/null || true
}

readonly LINK=/dev/disk/by-id/virtio-d1 NAME=enc-virtio-d1

# sweep CALL COMMAND...: kill at its 1st, 2nd … CALL until it ends by itself; after each,
# the next open must succeed and the mapping must be readable.
sweep()
{
	local call=$1 n status
	shift
	for ((n = 1; n < 100; n++)); do
		status=0
		strace -f -qq -o /dev/null -e "trace=$call" -e "inject=$call:signal=SIGKILL:when=$n" \
			"$@" >"$BATS_TEST_TMPDIR/out" 2>&1 || status=$?
		qs-util cryptopen "$LINK" || { echo "after $call $n of $*"; return 1; }
		dd if="/dev/mapper/$NAME" of=/dev/null bs=1M count=1 status=none || return 1
		[ "$(dmsetup info -c --noheadings -o suspended "$NAME")" != Suspended ] || return 1
		[ "$status" -ne 0 ] || break
		[[ $* == *cryptclose* ]] || qs-util cryptclose "$NAME" || return 1
	done
	echo "# $call: $((n - 1)) points of $*" >&3
	((n > 1 && n < 100))
}

@test "an open killed at every ioctl: the next one succeeds" {
	sweep ioctl qs-util cryptopen "$LINK"
}

@test "an open killed at every semaphore call of udev's cookies: the next one succeeds" {
	sweep semctl qs-util cryptopen "$LINK"
}

@test "a close killed at every ioctl: the next open succeeds" {
	qs-util cryptopen "$LINK"
	sweep ioctl qs-util cryptclose "$LINK"
}

@test "an open killed at every write of its lock: the next one succeeds" {
	sweep pwrite64 qs-util cryptopen "$LINK"
}

@test "updatecrypttab killed at every call that changes a file: the table is old or new, the next run finishes" {
	local call n old new now points=0
	# Open already: its worker only proves the key, and all changing calls are the parent's.
	qs-util cryptopen "$LINK"
	old=$(grep -v "^$NAME " /etc/crypttab)
	printf '%s\n' "$old" >/etc/crypttab
	qs-util cryptopen "$LINK" updatecrypttab
	new=$(</etc/crypttab)
	for call in rename renameat renameat2 link unlink unlinkat fchmod fsync ftruncate pwrite64; do
		for ((n = 1; n < 50; n++)); do
			printf '%s\n' "$old" >/etc/crypttab
			strace -f -qq -o /dev/null -e "trace=$call" -e "inject=$call:signal=SIGKILL:when=$n" \
				qs-util cryptopen "$LINK" updatecrypttab >/dev/null 2>&1 && break
			points=$((points + 1))
			now=$(</etc/crypttab)
			[ "$now" = "$old" ] || [ "$now" = "$new" ]
			run -0 qs-util cryptopen "$LINK" updatecrypttab
			[ "$(</etc/crypttab)" = "$new" ]
			[ -z "$(find /etc -name '*qs-tmp*')" ]
		done
		[ "$n" -lt 50 ]
	done
	echo "# $points points" >&3
	[ "$points" -ge 8 ]
}

@test "an open killed with its inode of the disk still in /dev: the next one removes that" {
	run -1 strace -f -qq -o /dev/null -e trace=unlink -e inject=unlink:signal=SIGKILL:when=2 \
		qs-util cryptopen "$LINK"
	run -0 compgen -G '/dev/.qs-util-*'
	run -0 qs-util cryptopen "$LINK"
	run ! compgen -G '/dev/.qs-util-*'
}

@test "what an interrupted open left, a mapping without a table, is cleared away" {
	dmsetup create "$NAME" --notable --uuid "CRYPT-LUKS2-$(cryptsetup luksUUID "$LINK" | tr -d -)-$NAME"
	run -0 qs-util cryptopen "$LINK"
	dd if="/dev/mapper/$NAME" of=/dev/null bs=1M count=1 status=none
}

@test "ten opens of one device at once: all succeed, one mapping" {
	local n pids=() failed=0
	for n in 1 2 3 4 5; do
		qs-util cryptopen "$LINK" >"$BATS_TEST_TMPDIR/$n" 2>&1 &
		pids+=($!)
		qs-util cryptopenall >"$BATS_TEST_TMPDIR/all-$n" 2>&1 &
		pids+=($!)
	done
	for n in "${pids[@]}"; do wait "$n" || failed=$((failed + 1)); done
	cat "$BATS_TEST_TMPDIR"/*
	[ "$failed" -eq 0 ]
	[ "$(dmsetup ls --target crypt | grep -c .)" -eq 2 ]
}

@test "the name is taken by another device: 5, and nothing changes" {
	dmsetup create "$NAME" --table "0 1000 zero"
	run -5 qs-util cryptopen "$LINK"
	dmsetup remove "$NAME"
	cryptsetup open --key-file /etc/cryptconf/keys/enc-virtio-d2.key /dev/disk/by-id/virtio-d2 "$NAME"
	run -5 qs-util cryptopen "$LINK"
	[[ $output == *'another device'* ]]
	cryptsetup close "$NAME"
}

@test "open already under another name: 5, and the name is said" {
	cryptsetup open --key-file "/etc/cryptconf/keys/$NAME.key" "$LINK" other
	run -5 qs-util cryptopen "$LINK"
	[[ $output == *other* ]]
	cryptsetup close other
}

@test "a read-only disk is opened only when that is asked for" {
	blockdev --setro "$LINK"
	run ! qs-util cryptopen "$LINK"
	[ ! -e "/dev/mapper/$NAME" ]
	run -0 qs-util cryptopen --read-only "$LINK"
	qs-util cryptclose "$NAME"
	blockdev --setrw "$LINK"
}

@test "an I/O error in the header: the sentence, no mapping, and the others open" {
	# The same disk through a map whose first 16 MiB cannot be read.
	local size
	size=$(blockdev --getsz "$LINK")
	dmsetup create bad --table "0 32768 error
32768 $((size - 32768)) linear $LINK 32768"
	echo "enc-bad /dev/mapper/bad /etc/cryptconf/keys/$NAME.key luks" >>/etc/crypttab
	run -7 qs-util cryptopenall
	[[ $output == *'Input/output error'* ]]
	[ -b /dev/mapper/enc-virtio-d2 ]
	[ ! -e /dev/mapper/enc-bad ]
	sed -i '/^enc-bad /d' /etc/crypttab
}
