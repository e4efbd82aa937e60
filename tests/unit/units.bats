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
	"$top/systemd/install" other "" /nowhere
	mkdir out2
	run -0 other/lib/systemd/system-generators/qs-util-generator out2 out2 out2
	[ -z "$(ls out2)" ]
}

@test "what was installed goes away again" {
	[ -e "$units/timers.target.wants/qs-util-rekey.timer" ]
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
