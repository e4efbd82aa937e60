#!/usr/bin/env bats
# The build itself: what is installed can be taken back, and nothing of it gets
# into the sources.

bats_require_minimum_version 1.5.0

setup()
{
	top=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
	dest=$BATS_TEST_TMPDIR/dest
	QS_BUILD=${QS_BUILD:-$top/build}
	QS_UTIL=${QS_UTIL:-$QS_BUILD/qs-util}
}

@test "install puts all files, and again over itself; uninstall leaves only what belongs to the disks" {
	make -s -C "$top" install DESTDIR="$dest" PREFIX=/usr
	[ -x "$dest/usr/sbin/qs-util" ]
	[ -s "$(echo "$dest"/usr/lib/*/qs-util/tpm2.so)" ]
	diff <(cd "$top/man" && ls ./*.8) <(cd "$dest/usr/share/man/man8" && ls ./*.8)
	[ -s "$dest/usr/share/man/man5/qs-util.conf.5" ]
	[ -s "$dest/usr/share/bash-completion/completions/qs-util" ]
	[ "$(stat -c %a "$dest/etc/cryptconf")" = 700 ]
	echo '# mine' >>"$dest/etc/cryptconf/qs-util.conf"
	make -s -C "$top" install DESTDIR="$dest" PREFIX=/usr
	grep -q '# mine' "$dest/etc/cryptconf/qs-util.conf"
	make -s -C "$top" uninstall DESTDIR="$dest" PREFIX=/usr
	[ "$(find "$dest" -type f)" = "$dest/etc/cryptconf/qs-util.conf" ]
}

@test "the plugin is installed where libcryptsetup looks, finds our modules there, and goes again" {
	local lib
	lib=$dest/usr/lib/$(gcc -print-multiarch)
	make -s -C "$top" install-token-plugin DESTDIR="$dest" PREFIX=/usr
	[ "$(find "$dest" ! -type d)" = "$lib/cryptsetup/libcryptsetup-token-qs-keystore.so" ]
	make -s -C "$top" install-token-plugin DESTDIR="$dest"
	[ "$(readlink "$lib/qs-util")" = "/usr/local/${lib#"$dest"/usr/}/qs-util" ]
	make -s -C "$top" uninstall-token-plugin DESTDIR="$dest"
	[ -z "$(find "$dest" ! -type d)" ]
}

@test "the build leaves no file that git would take for a source" {
	[ -d "$top/.git" ] || return 0 # a release has no git
	local stray
	stray=$(git -C "$top" status --porcelain --untracked-files=all -- lib cmd | sed -n 's/^?? //p' | sed '/\.[ch]$/d; /\.map$/d')
	[ -z "$stray" ]
}

@test "a module exports one name" {
	local module
	for module in tpm2 journal qr kmip hcvault; do
		# The sanitizers add names of their own.
		[ "$(nm -D --defined-only "$QS_BUILD/modules/$module.so" | awk '$3 !~ /^__/ { print $3 }')" = "qs_${module}_module" ]
	done
}

@test "the binary links only what every command needs" {
	run -0 ldd "$QS_UTIL"
	run ! grep -E 'libcurl|libssl|libtss2|libjose|libsystemd' <<<"$output"
}
