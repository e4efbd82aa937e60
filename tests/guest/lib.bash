# Helpers for tests inside the guest: "load lib" at the top of a .bats file.
# shellcheck shell=bash
#
# Nothing here sleeps for a fixed time: hosts differ in speed by a factor of
# ten, so everything waits for a state, with a generous limit.

bats_require_minimum_version 1.5.0 2>/dev/null || true # absent outside bats

# Seconds after which a state that should come is taken to be lost.
readonly GUEST_WAIT=${GUEST_WAIT:-180}

# Secrets and hashes of tests are weak on purpose: emulation makes a real
# password hash cost seconds. Use: cryptsetup luksFormat "${FAST_PBKDF[@]}" …
# shellcheck disable=SC2034 # used by tests
readonly FAST_PBKDF=(--pbkdf pbkdf2 --pbkdf-force-iterations 1000)

# wait_for COMMAND [ARG...]: until it succeeds. "wait_for test -e LINK".
wait_for()
{
	local end=$((SECONDS + GUEST_WAIT))
	until "$@"; do
		if ((SECONDS >= end)); then
			echo "gave up after $GUEST_WAIT s waiting for: $*" >&2
			return 1
		fi
		sleep 0.1
	done
}

# wait_while COMMAND [ARG...]: until it fails.
wait_while()
{
	wait_for not "$@"
}

not()
{
	! "$@"
}

# Under systemd: every unit of the boot has been started or has failed.
boot_is_over()
{
	[[ $(systemctl is-system-running) != @(initializing|starting) ]]
}

# Until udev has worked through all events that it knows of. It may not know yet
# that a program closed a device, so after a format wait for what should come of
# it instead: a link, or udev_has.
settle()
{
	udevadm settle --timeout="$GUEST_WAIT"
}

# udev_has DEVICE REGEX: a whole line of what udev found out, "ID_FS_TYPE=ext4".
udev_has()
{
	udevadm info --query=property "$1" | grep -Eqx "$2"
}

# wait_for_udev DEVICE COMMAND [ARG...]: until it succeeds. While udev works on an
# event it does not watch the device, so it misses a program that closes the device
# in that moment (seen once in CI, after mkfs); therefore it is told again now and then.
wait_for_udev()
{
	local device=$1 end=$((SECONDS + GUEST_WAIT)) told=$SECONDS
	shift
	until "$@"; do
		if ((SECONDS >= end)); then
			echo "gave up after $GUEST_WAIT s waiting for: $*" >&2
			return 1
		fi
		if ((SECONDS >= told + 3)); then
			udevadm trigger --action=change "$device"
			told=$SECONDS
		fi
		sleep 0.1
	done
}

# dev_of SERIAL: its kernel name, like /dev/vdb, once udev knows the disk.
dev_of()
{
	wait_for find_disk "$1" >/dev/null || return
	find_disk "$1"
}

# lsblk asks udev, which has the serial of every bus.
find_disk()
{
	lsblk -dnpro NAME,SERIAL | awk -v serial="$1" '$2 == serial { print $1; found = 1 } END { exit !found }'
}

# link_of SERIAL: its first link in /dev/disk/by-id, in C order.
link_of()
{
	local device link
	device=$(dev_of "$1") || return
	settle
	for link in /dev/disk/by-id/*; do
		[[ $(readlink -f "$link") == "$device" ]] || continue
		echo "$link"
		return
	done
	echo "link_of: $device has no link" >&2
	return 1
}

# sha256_of DEVICE: of all of it, past the page cache.
sha256_of()
{
	dd if="$1" bs=1M iflag=direct status=none | sha256sum | cut -d' ' -f1
}

# Wipes what tests left on a device, whatever it was.
blank()
{
	local device
	for device; do
		wipefs -aqf "$device"
		# A LUKS2 header and its keyslots lie in the first 16 MiB, a
		# second GPT or old md metadata at the end.
		dd if=/dev/zero of="$device" bs=1M count=17 conv=fsync status=none 2>/dev/null || true
		wipefs -aqf "$device"
		wait_for_udev "$device" not udev_has "$device" 'ID_(FS|PART_TABLE)_TYPE=.*'
	done
	settle
}

# make_fs TYPE DEVICE: with the label "data", as small as the tool allows.
make_fs()
{
	case $1 in
	ext4) mkfs.ext4 -q -F -L data "$2" ;;
	# mkfs.xfs refuses less than 300 MB unless its own test suite asks.
	xfs) TEST_DIR=1 TEST_DEV=1 QA_CHECK_FS=1 mkfs.xfs -q -f -L data "$2" ;;
	btrfs) mkfs.btrfs -q -f --mixed -L data "$2" ;;
	swap) mkswap -q -f -L data "$2" ;;
	*) echo "make_fs: unknown type $1" >&2; return 1 ;;
	esac
	wait_for_udev "$2" udev_has "$2" "ID_FS_TYPE=$1"
}

# make_raid1 NAME DEVICE DEVICE: /dev/md/NAME, with metadata at the start.
make_raid1()
{
	local name=$1
	shift
	mdadm --create "/dev/md/$name" --run --quiet --level=1 --metadata=1.2 \
		--raid-devices=$# "$@"
	wait_for test -b "/dev/md/$name"
}

# make_lv GROUP VOLUME DEVICE...: one volume over all of a new group.
make_lv()
{
	local group=$1 volume=$2
	shift 2
	pvcreate -qqf "$@"
	vgcreate -qq "$group" "$@"
	lvcreate -qq -Wn -l 100%FREE -n "$volume" "$group"
	settle
}

# make_mpath NAME DEVICE: a map with one path that looks like multipath's by
# uuid, which is what tells a member from a free disk.
make_mpath()
{
	dmsetup create "$1" --uuid "mpath-$1" \
		--table "0 $(blockdev --getsz "$2") linear $2 0"
	settle
}

# Loads scsi_debug and prints the by-id links of its disks, which have names
# like scsi-3… and wwn-0x…. Arguments go to the module: dev_size_mb=32 num_tgts=2.
load_scsi_debug()
{
	modprobe scsi_debug "$@"
	wait_for scsi_debug_ready
	settle
	scsi_debug_links
}

scsi_debug_links()
{
	local link
	for link in /dev/disk/by-id/scsi-3*; do
		[[ ! -b $link ]] || echo "$link"
	done
}

# All hosts scanned: as many links as disks by the driver's own name.
scsi_debug_ready()
{
	local model links disks=0
	for model in /sys/block/sd*/device/model; do
		[[ ! -e $model || $(<"$model") != scsi_debug* ]] || disks=$((disks + 1))
	done
	links=$(scsi_debug_links | wc -l)
	((disks > 0 && links >= disks))
}

unload_scsi_debug()
{
	settle
	wait_for modprobe -r scsi_debug
}

# mark WORD: makes WORD a line of the output at once, past what bats holds
# back; "run --kill-on WORD" cuts the power when it sees it.
mark()
{
	echo "$1" >"$GUEST_OUTPUT"
}

# mark_and_wait WORD: for the cut to come.
mark_and_wait()
{
	mark "$1"
	sleep infinity
}

# join_network: the card of "run --host", where systemd-networkd does not do it.
join_network()
{
	local card
	modprobe virtio_net
	wait_for compgen -G '/sys/class/net/e*' >/dev/null
	settle
	card=$(basename /sys/class/net/e*)
	busybox ip link set "$card" up
	busybox ip address add 10.0.2.15/24 dev "$card"
}

# keep FILE...: sends them to the host, into the directory of "run --keep".
keep()
{
	cp -a "$@" "$GUEST_RESULTS/"
}
