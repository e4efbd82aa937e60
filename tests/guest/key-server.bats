#!/usr/bin/env bats
# Boots with a KMIP key server that is away in every way, and with one that is there
# (tests/guest/key-server says what is on the disks).
#
# guest: --systemd --host @dir/key-server:kmip
# guest: --disk virtio:d1 --disk virtio:d2 --disk virtio:d3
# guest-boots: 2

load lib
load key-server

@test "boot 1: with every server away the boot is over, and what opens without them is open" {
	systemctl stop qs-util-keycheck.timer # at midnight its service would fail
	# This runs behind multi-user.target.
	systemctl is-active multi-user.target
	wait_for is_open d1
	wait_for is_open d3
	wait_for systemctl is-active "$FIRST"
	said "$FIRST" | grep -q 'virtio-d2.*left'
	# network-online.target waits for these two disks, so they did not wait for it.
	wait_for systemctl is-active network-online.target
	systemctl is-active systemd-networkd-wait-online.service
	[ "$(systemctl --failed --no-legend)" = '' ]
}

@test "boot 1: the second turn ends by the deadline of the servers, names each, and will try again" {
	wait_for failed_once
	[ "$(systemctl show -P TimeoutStartUSec "$NETWORK")" = 5min ]
	run said "$NETWORK"
	echo "$output"
	[[ $output == *'key server 127.0.0.1:1: cannot connect: Connection refused; '* ]]
	[[ $output == *'; key server 198.51.100.2: it does not answer; '* ]]
	[[ $output == *'; key server keys.example: no name server answered for keys.example; '* ]]
	[[ $output == *'; key server 127.0.0.1:5697: it does not answer'* ]]
	[[ $output == *'Main process exited, code=exited, status=7/'* && $output != *timed\ out* ]]
	not is_open d2
	is_open d1
	[ "$(since "$NETWORK" ExecMainStartTimestamp)" -ge "$(since network-online.target ActiveEnterTimestamp)" ]
}

@test "boot 1: once a server is back the disk opens, without a person" {
	systemctl stop silent.socket silent.service
	systemctl disable silent.socket
	systemctl enable --now key-server.socket
	wait_for is_open d2
	[ "$(head -n 1 /dev/mapper/enc-virtio-d2)" = 'content of d2' ]
	wait_for systemctl is-active "$NETWORK"
	sed -i 's/^kmip_servers.*/kmip_servers = "127.0.0.1:5697";/' /etc/cryptconf/qs-util.conf
}

@test "boot 2: with the server there all are open, the local ones first" {
	wait_for is_open d2
	wait_for systemctl is-active "$NETWORK"
	is_open d1
	is_open d3
	[ "$(systemctl show -P NRestarts "$NETWORK")" = 0 ]
	said "$FIRST" | grep -q 'virtio-d2.*left'
	[ "$(since "$NETWORK" ExecMainStartTimestamp)" -ge "$(since network-online.target ActiveEnterTimestamp)" ]
	[ "$(since "$NETWORK" ExecMainStartTimestamp)" -ge "$(since "$FIRST" ActiveEnterTimestamp)" ]
	[ "$(systemctl --failed --no-legend)" = '' ]
}

@test "boot 2: the units follow the keystore to another provider and back" {
	turns
	qs-util --yes keystore migrate --provider local
	qs-util keystore rotate --force
	not turns
	qs-util --yes keystore migrate --provider kmip
	turns
	# A key that stays at the server is opened in the second turn, too.
	qs-util --yes keystore migrate --provider kmip-wrap
	turns
	qs-util cryptclose /dev/disk/by-id/virtio-d2
	qs-util cryptopenall --boot --local | grep -q 'virtio-d2.*left'
	not is_open d2
	systemctl restart "$NETWORK"
	is_open d2
}
