#!/usr/bin/env bats
# Units, generator and udev rule, judged by systemd's own tools as far as that goes
# without booting. tests/guest/units.bats boots with them.

bats_require_minimum_version 1.5.0

setup()
{
	top=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
	dest=$BATS_TEST_TMPDIR/dest
	# The host's own configuration must not matter.
	bin=$BATS_TEST_TMPDIR/bin
	mkdir -p "$bin" "$BATS_TEST_TMPDIR/root/etc"
	printf '#!/bin/sh\nexec %q --root=%q "$@"\n' "$QS_UTIL" "$BATS_TEST_TMPDIR/root" >"$bin/qs-util"
	chmod 755 "$bin/qs-util"
	"$top/systemd/install" "$dest" "" "$bin"
	units=$dest/lib/systemd/system
}

@test "systemd finds nothing wrong with the units" {
	run -0 systemd-analyze verify --man=no "$units"/qs-util-*.service "$units"/*.timer
	[ -z "$output" ]
	echo 'Typo=yes' >>"$units/qs-util-check.service"
	run systemd-analyze verify --man=no "$units/qs-util-check.service"
	[[ $output == *Typo* ]]
}

@test "every service is in the sandbox, and none is left with a mark to be replaced" {
	run ! grep -r '@[A-Z]*@' "$dest"
	local unit
	for unit in "$units"/*.service; do
		grep -q '^ProtectSystem=strict$' "$unit"
		run -0 systemd-analyze security --offline=yes --threshold=65 "$unit"
	done
}

@test "no unit takes a failure for success" {
	# With nothing due, a device away, or another command at it, rotate --if-due ends with 0 (schedule.bats).
	grep -qx "ExecStart=$bin/qs-util keystore rotate --if-due" "$units/qs-util-rekey.service"
	run ! grep -rE 'SuccessExitStatus|^Exec[A-Za-z]*=[@:+!]*-.*qs-util' "$units"
}

@test "what looks after the keystore runs where it lost its keystore.json, and without a keystore not" {
	local keystore=$BATS_TEST_TMPDIR/root/etc/cryptconf/keystore unit condition
	for unit in rekey keycheck; do
		condition=$(sed -n "s|^\(Condition[A-Za-z]*=\)/etc/cryptconf/keystore|\1$keystore|p" "$units/qs-util-$unit.service")
		rm -rf "$keystore"
		run ! systemd-analyze condition "$condition"
		mkdir -p "$keystore"
		run ! systemd-analyze condition "$condition"
		touch "$keystore/1.kek"
		run -0 systemd-analyze condition "$condition"
	done
}

@test "the generator asks for the file systems of keys and headers, and never fails" {
	local generator=$dest/lib/systemd/system-generators/qs-util-generator
	cd "$BATS_TEST_TMPDIR"
	mkdir out
	run -0 "$generator" out out out
	grep -qx 'RequiresMountsFor="/etc/cryptconf/keys"' out/qs-util-openall.service.d/50-keys_dir.conf
	grep -qx 'RequiresMountsFor="/etc/cryptconf/headers"' "out/qs-util-open@.service.d/50-headers_dir.conf"
	# Whoever brings headers up to date may write there; the check may not.
	grep -qx 'ReadWritePaths=-"/etc/cryptconf/headers"' out/qs-util-rekey.service.d/50-headers_dir.conf
	run ! grep -r ReadWritePaths out/qs-util-check.service.d
	grep -qx 'RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_ALG' out/qs-util-openall.service.d/50-no-network.conf
	mkdir -p "$BATS_TEST_TMPDIR/root/etc/cryptconf" out3
	echo 'key_command = "/bin/false";' >"$BATS_TEST_TMPDIR/root/etc/cryptconf/qs-util.conf"
	run -0 "$generator" out3 out3 out3
	[ ! -e out3/qs-util-openall.service.d/50-no-network.conf ]
	"$top/systemd/install" other "" /nowhere
	mkdir out2
	run -0 other/lib/systemd/system-generators/qs-util-generator out2 out2 out2
	[ -z "$(ls out2)" ]
}

# In a mount namespace of its own, as the generator looks into this system's /etc.
generate_with_keystore()
{
	mkdir -p "$BATS_TEST_TMPDIR/etc/cryptconf/keystore" "$BATS_TEST_TMPDIR/$2"
	echo "{ \"state\": \"enabled\", \"provider\": \"$1\" }" >"$BATS_TEST_TMPDIR/etc/cryptconf/keystore/keystore.json"
	# shellcheck disable=SC2016 # they expand in there
	unshare -m sh -euc 'mount --bind "$1" /etc; exec "$2" "$3" "$3" "$3"' \
		sh "$BATS_TEST_TMPDIR/etc" "$dest/lib/systemd/system-generators/qs-util-generator" "$BATS_TEST_TMPDIR/$2"
}

@test "with a key server the first turn asks none, and the second one is pulled in, in no circle" {
	local drop=qs-util-openall.service.d
	generate_with_keystore local plain
	# Nobody has a network waited for who has no key server.
	[ -z "$(find "$BATS_TEST_TMPDIR/plain" -name 50-key-server.conf)" ]
	run ! grep '^Wants=network-online' "$units/qs-util-keycheck.service"
	generate_with_keystore kmip-wrap there
	generate_with_keystore kmip server
	cmp "$BATS_TEST_TMPDIR"/{there,server}/$drop/50-key-server.conf
	grep -qx "ExecStart=$bin/qs-util cryptopenall --boot --local" "$BATS_TEST_TMPDIR/server/$drop/50-key-server.conf"
	grep -qx Wants=network-online.target "$BATS_TEST_TMPDIR/server/qs-util-keycheck.service.d/50-key-server.conf"
	cp -r "$BATS_TEST_TMPDIR/server/." "$units"
	mkdir "$units/multi-user.target.wants"
	ln -s ../qs-util-openall.service "$units/multi-user.target.wants"
	# All that a boot would start, ordered.
	SYSTEMD_UNIT_PATH=$units:/lib/systemd/system run -0 systemd-analyze verify --man=no multi-user.target \
		qs-util-openall.service qs-util-openall-network.service
	[[ $output != *qs-util* && $output != *cycle* ]]
	printf '[Unit]\nAfter=qs-util-openall-network.service\n' >"$units/$drop/60-circle.conf"
	SYSTEMD_UNIT_PATH=$units:/lib/systemd/system run systemd-analyze verify --man=no multi-user.target
	[[ $output == *cycle* ]]
}

@test "the timers that look after the keystore are on once installed, and all goes away again" {
	[ -e "$units/timers.target.wants/qs-util-rekey.timer" ]
	# Without it nobody hears of a certificate that ends, and no lease is made.
	[ -e "$units/timers.target.wants/qs-util-keycheck.timer" ]
	"$top/systemd/install" --remove "$dest" "" /usr/sbin
	[ -z "$(find "$dest" ! -type d)" ]
}

@test "the journal's catalog is compiled when it is installed for this system, and not below DESTDIR" {
	local fake=$BATS_TEST_TMPDIR/fake log=$BATS_TEST_TMPDIR/log
	mkdir "$fake"
	printf '#!/bin/sh\necho "$*" >>%q\n[ ! -e %q ]\n' "$log" "$log.fail" >"$fake/journalctl"
	chmod 755 "$fake/journalctl"
	PATH=$fake:$PATH "$top/systemd/install" "$dest" "$BATS_TEST_TMPDIR/usr" /usr/sbin
	[ ! -e "$log" ]
	PATH=$fake:$PATH run -0 "$top/systemd/install" "" "$BATS_TEST_TMPDIR/usr" /usr/sbin
	[ "$(<"$log")" = --update-catalog ]
	[ -e "$BATS_TEST_TMPDIR/usr/lib/systemd/catalog/qs-util.catalog" ]
	: >"$log.fail"
	PATH=$fake:$PATH run -0 "$top/systemd/install" --remove "" "$BATS_TEST_TMPDIR/usr" /usr/sbin
	[[ $output == *'will not know'* ]]
	[ "$(grep -c update "$log")" -eq 2 ]
}
