# What the tests of swap share: memory that is really swapped out, and looking for
# it on the disks. "load swap" behind "load lib".
# shellcheck shell=bash

# Nothing that the guest writes by itself.
readonly PATTERN='swapped-out-plaintext-0123456789'

# A file that is said twice is read twice: past the page cache.
pattern_on()
{
	dd if="$1" bs=1M iflag=direct status=none | grep -aqF "$PATTERN"
}

# fill DEVICE: all of it with the pattern, as a long life as swap would.
fill()
{
	yes "$PATTERN" | dd of="$1" bs=1M oflag=direct iflag=fullblock status=none 2>/dev/null || true
}

# A control group whose memory can be pushed out.
make_group()
{
	GROUP=/sys/fs/cgroup/hog
	[ -e /sys/fs/cgroup/cgroup.controllers ] || mount -t cgroup2 none /sys/fs/cgroup
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	mkdir -p "$GROUP"
}

# swap_out MIB: so much of the pattern in memory, then in swap.
swap_out()
{
	make_group
	# shellcheck disable=SC2016 # for the inner shell
	bash -c 'echo $$ >"$1/cgroup.procs"; yes "$2" | head -c "$3M" >/dev/shm/hog' - "$GROUP" "$PATTERN" "$1"
	wait_for reclaimed "$1"
}

reclaimed()
{
	echo "${1}M" >"$GROUP/memory.reclaim" 2>/dev/null || true
	(($(<"$GROUP/memory.swap.current") > $1 * 1024 * 1024 / 2))
}

swap_in()
{
	rm -f /dev/shm/hog
}

# The active swaps, by node: mappings as /dev/dm-N.
active()
{
	swapon --show=NAME --noheadings --raw | while read -r name; do readlink -f "$name"; done | sort
}

# is_active NODE_OR_LINK
is_active()
{
	active | grep -qxF "$(readlink -f "$1")"
}
