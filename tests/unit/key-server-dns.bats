#!/usr/bin/env bats
# Key servers whose name is looked up at a name server that says nothing: the C library would wait
# for it for minutes, and libcurl for the C library; kmip_deadline and vault_deadline end that.

load tree
load kmip

setup()
{
	SERVER=$BATS_TEST_TMPDIR/server
	# shellcheck disable=SC2034 # of servers()
	DEADLINE=2
	make_tree 1
	mkdir -p "$ROOT/etc/cryptconf/kmip" "$ROOT/etc/cryptconf/vault"
	# A name server of its own address, and a resolver that is patient for longer than qs() is.
	python3 -c 'import socket, signal
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.77", 53))
signal.pause()' 3>&- &
	SILENT=$!
	# Before, the kernel would refuse for it, which is an answer.
	until grep -q ' 4D00007F:0035 ' /proc/net/udp; do sleep 0.02; done
	printf '%s\n' 'nameserver 127.0.0.77' 'options timeout:30 attempts:5' >"$BATS_TEST_TMPDIR/resolv.conf"
}

teardown()
{
	kill "$SILENT"
	kmip stop "$SERVER"
}

# unnamed ARGUMENT...: qs-util where that is the only name server.
unnamed()
{
	# shellcheck disable=SC2016 # the inner shell's
	unshare -m bash -c 'mount --bind "$0" /etc/resolv.conf && exec timeout 120 "$@"' \
		"$BATS_TEST_TMPDIR/resolv.conf" "$QS_UTIL" --root="$ROOT" "$@" </dev/null
}

@test "kmip: the next server is asked, and without one the next key is tried" {
	kmip start "$SERVER"
	identity client
	servers "$SERVER"
	enrolled 1
	sed -i 's/"localhost/"keys.example,localhost/' "$ROOT/etc/cryptconf/qs-util.conf"
	run -0 unnamed cryptopen --test "${ID}1"
	kmip stop "$SERVER"
	run -75 unnamed cryptopen --test "${ID}1"
	[[ $output == *'key server keys.example: no name server answered for keys.example; key server localhost'* ]]
	mv "$BATS_TEST_TMPDIR"/keys/* "$ROOT/etc/cryptconf/keys"
	run -0 unnamed cryptopen --test "${ID}1"
}

@test "vault: the next server is asked" {
	echo secret >"$ROOT/etc/cryptconf/vault/secret-id"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=here -days 9 \
		-keyout /dev/null -out "$ROOT/etc/cryptconf/vault/ca.pem" 2>/dev/null
	chmod 0400 "$ROOT/etc/cryptconf/vault"/*
	echo 'vault_servers = "keys.example,localhost:1"; vault_deadline = 2; vault_role_id = "role";' >"$ROOT/etc/cryptconf/qs-util.conf"
	run -75 unnamed --yes keystore enable --provider vault
	[[ $output == *'Vault server keys.example: no name server answered for keys.example; Vault server localhost:1: cannot connect'* ]]
	[ ! -e "$ROOT/etc/cryptconf/keystore" ]
}
