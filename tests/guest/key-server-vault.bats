#!/usr/bin/env bats
# A boot with Vault servers that are away in every way, the last of them sealed; it is unsealed
# later (tests/guest/key-server says what is on the disks).
#
# guest: --systemd --host @dir/key-server:vault
# guest: --disk virtio:d1 --disk virtio:d2 --disk virtio:d3 --disk virtio:d4

load lib
load key-server

# unseal SHARE: with another one the server is sealed again.
unseal()
{
	local port body="{\"key\":\"$1\"}"
	port=$(</root/port)
	printf 'POST /v1/sys/unseal HTTP/1.1\r\nHost: 10.0.2.2\r\nConnection: close\r\nContent-Length: %s\r\n\r\n%s' \
		"${#body}" "$body" |
		openssl s_client -quiet -verify_return_error -CAfile /etc/cryptconf/vault/ca.pem \
			-connect "10.0.2.2:$port" 2>/dev/null
}

@test "with every server away the boot is over, and what opens without them is open" {
	systemctl stop qs-util-keycheck.timer # at midnight its service would fail
	systemctl is-active multi-user.target
	wait_for is_open d1
	wait_for is_open d3
	wait_for systemctl is-active "$FIRST"
	run said "$FIRST"
	[[ $output =~ virtio-d2[^$'\n']*left && $output =~ virtio-d4[^$'\n']*left ]]
	turns
	wait_for systemctl is-active network-online.target
	systemctl is-active systemd-networkd-wait-online.service
	[ "$(systemctl --failed --no-legend)" = '' ]
}

@test "the second turn ends by the deadline of the servers, names each, and will try again" {
	wait_for failed_once
	run said "$NETWORK"
	echo "$output"
	[[ $output == *'Vault server 127.0.0.1:1: cannot connect'* ]]
	[[ $output == *'; Vault server 198.51.100.2: it does not answer; '* ]]
	[[ $output == *'; Vault server keys.example: no name server answered for keys.example; '* ]]
	[[ $output == *'; Vault server 127.0.0.1:5697: it does not answer; '* ]]
	[[ $output == *"; Vault server 10.0.2.2:$(</root/port): it is sealed"* ]]
	[[ $output == *'Main process exited, code=exited, status=7/'* && $output != *timed\ out* ]]
	not is_open d2
	not is_open d4
	is_open d1
	[ "$(since "$NETWORK" ExecMainStartTimestamp)" -ge "$(since network-online.target ActiveEnterTimestamp)" ]
}

@test "without a server the next way is tried" {
	qs-util cryptclose /dev/disk/by-id/virtio-d3
	qs-util --json cryptopen /dev/disk/by-id/virtio-d3 | jq -e '.devices[0] | has("keystore_generation") | not'
	is_open d3
}

@test "once the server is unsealed all is open, without a person, and holds what it held" {
	unseal "$(</root/share)" | grep -q '"sealed":false'
	wait_for is_open d2
	wait_for is_open d4
	wait_for systemctl is-active "$NETWORK"
	said "$NETWORK" | grep 'enc-virtio-d4 was opened by the keystore'
	[ "$(head -n 1 /dev/mapper/enc-virtio-d2)" = 'content of d2' ]
	[ "$(systemctl --failed --no-legend)" = '' ]
	sed -i "s/^vault_servers.*/vault_servers = \"10.0.2.2:$(</root/port)\";/" /etc/cryptconf/qs-util.conf
}

@test "a key of its own stays at the server when the keystore moves away, and with it the second turn" {
	echo 'content of d4' | dd of=/dev/mapper/enc-virtio-d4 conv=fsync status=none
	qs-util --yes keystore migrate --provider local
	qs-util keystore rotate --force
	turns
	qs-util cryptcloseall
	qs-util cryptopenall --boot --local | grep -q 'virtio-d4.*left'
	is_open d2
	not is_open d4
	systemctl restart "$NETWORK"
	[ "$(head -n 1 /dev/mapper/enc-virtio-d4)" = 'content of d4' ]
	qs-util keystore rewrap --cluster-key /dev/disk/by-id/virtio-d4
	not turns
}
