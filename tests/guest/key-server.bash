# What key-server.bats and key-server-vault.bats ask the guest: "load key-server" behind "load lib".
# shellcheck shell=bash

readonly NETWORK=qs-util-openall-network.service
readonly FIRST=qs-util-openall.service

is_open()
{
	[[ -b /dev/mapper/enc-virtio-$1 ]]
}

# since UNIT PROPERTY: microseconds from the kernel's start.
since()
{
	systemctl show -P "$2Monotonic" "$1"
}

failed_once()
{
	[ "$(systemctl show -P NRestarts $NETWORK)" -gt 0 ]
}

said()
{
	journalctl --sync
	journalctl -b -o cat -u "$1"
}

# The first turn has the network where there is no second one to have it.
turns()
{
	systemctl show -P Wants $FIRST | grep -qw $NETWORK &&
		systemctl show -P ExecStart $FIRST | grep -q -- --local
}
