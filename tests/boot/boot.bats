#!/usr/bin/env bats
# A Debian that boots from its encrypted root file system through our initramfs: with its
# TPM and nobody there, and everything that must not open it. Runs on the host; each test
# is one boot of what build-system makes. Those that must not boot end in the initramfs.
# QS_BOOT_SYSTEM in the environment names what build-system has made already.

bats_require_minimum_version 1.5.0

setup_file()
{
	export TOP=${BATS_TEST_DIRNAME}/../..
	export QS_BUILD=${QS_BUILD:-$TOP/build}
	export SYSTEM=${QS_BOOT_SYSTEM:-$BATS_FILE_TMPDIR/system}
	[ ! -e "$SYSTEM/initrd" ] || return 0
	mkdir -p "$SYSTEM"
	"$BATS_TEST_DIRNAME/build-system" "$SYSTEM" >&2
}

# The option that ends a boot when the system's own systemd greets.
readonly UNTIL_UP=(--when $'Linux 12 (bookworm)\e[0m!:kill -9 $GUEST_QEMU')

# boot [OPTION...]: with the right disk and the attacker's; $console is what was seen.
boot()
{
	rm -rf "$SYSTEM/kept"
	run "$TOP/tests/guest/run" "$BATS_TEST_DIRNAME/system.bats" --initrd "$SYSTEM/initrd" --timeout 600 \
		--append "root=/dev/mapper/enc-virtio-crypt systemd.wants=guest-tests.service" \
		--keep "$SYSTEM/kept" "$@"
	console=$(tr -cd '[:print:]\n' <"$SYSTEM/kept/console-1.log")
	printf '%s\n' "$output" "$console"
}

# with_disk IMAGE [OTHER...] [--OPTION VALUE]...: on copies, so that each boot finds what the
# last one found. What else is in crypttab is not there.
with_disk()
{
	local copies=$SYSTEM/copies disks=()
	rm -rf "$copies"
	mkdir "$copies"
	cp --sparse=always "$SYSTEM/state/$1.img" "$copies/crypt.img"
	cp -r "$SYSTEM/state/tpm" "$copies/tpm"
	disks+=(--disk "virtio:crypt:file=$copies/crypt.img")
	shift
	while [[ ${1---} != --* ]]; do
		cp --sparse=always "$SYSTEM/state/$1.img" "$copies/"
		disks+=(--disk "virtio:$1:file=$copies/$1.img")
		shift
	done
	boot "$@" "${disks[@]}"
}

# It ended by itself, in the initramfs, having said so, and nobody was offered a shell.
assert_restarted()
{
	[ "$status" -eq 125 ]
	[[ $console == *'starting again in 5 seconds'* ]]
	[[ $console == *'reboot: Restarting system'* ]]
	assert_no_shell
	[[ $console != *'Welcome to'* ]]
}

# It came up from its disk, and nobody was there.
assert_up()
{
	[[ $console == *'Linux 12 (bookworm)[0m!'* ]]
	[[ $console != *'Passphrase of'* ]]
	assert_no_shell
}

assert_no_shell()
{
	[[ $console != *'(initramfs)'* && $console != *'BusyBox v'* && $console != *'Dropping to a shell'* ]]
	[[ $console != *'emergency mode'* && $console != *'sulogin'* ]]
}

# special FILE...: $SYSTEM/special, the initramfs with these files of $BATS_TEST_TMPDIR/tree.
special()
{
	local size
	cp "$SYSTEM/initrd" "$SYSTEM/special"
	# The kernel wants the next archive to begin at a multiple of 4.
	size=$(stat -c %s "$SYSTEM/special")
	truncate -s $(((size + 511) / 512 * 512)) "$SYSTEM/special"
	(cd "$BATS_TEST_TMPDIR/tree" && printf '%s\n' "$@" | cpio --quiet -o -H newc -R 0:0) >>"$SYSTEM/special"
}

# special_with: the same, in which the script on standard input runs before ours.
special_with()
{
	local scripts=$BATS_TEST_TMPDIR/tree/scripts/init-premount
	mkdir -p "$scripts"
	cat >"$scripts/before"
	chmod 755 "$scripts/before"
	# shellcheck disable=SC2016 # for the guest
	echo '/scripts/init-premount/before "$@"' >"$scripts/ORDER"
	special scripts/init-premount{,/before,/ORDER}
}

@test "with its TPM it boots and nobody is there; planted and null-cipher volumes beside it stay closed, its data disk opens" {
	with_disk crypt data pin planted null segment --tpm "$SYSTEM/copies/tpm"
	[ "$status" -eq 0 ]
	[[ $console != *'Passphrase of'* ]]
	assert_no_shell
}

@test "it boots again after update-initramfs; a disk with a PIN: asked for it until it is right" {
	"$BATS_TEST_DIRNAME/build-system" --initramfs "$SYSTEM"
	mkdir -p "$BATS_TEST_TMPDIR/tree/etc"
	zcat "$SYSTEM/initrd" | cpio --quiet -i --to-stdout etc/crypttab |
		sed '/^enc-virtio-pin/s/,nofail//' >"$BATS_TEST_TMPDIR/tree/etc/crypttab"
	special etc etc/crypttab
	printf '%s\n' 4321 1234 >"$BATS_TEST_TMPDIR/pins"
	with_disk crypt pin --tpm "$SYSTEM/copies/tpm" --initrd "$SYSTEM/special" "${UNTIL_UP[@]}" \
		--when "PIN of enc-virtio-pin:sleep 1; $BATS_TEST_DIRNAME/type-in $BATS_TEST_TMPDIR/pins 'PIN of enc-virtio-pin'"
	[[ $console == *'enc-virtio-pin: the PIN is wrong'* ]]
	[[ $console == *'enc-virtio-pin: opened'* || $console == *'opened as enc-virtio-pin'* ]]
	assert_up
}

@test "dracut: with its TPM it boots; no shell, no second program that asks, and no key in the image" {
	local tree=$BATS_TEST_TMPDIR/tree
	"$BATS_TEST_DIRNAME/build-system" --dracut "$SYSTEM"
	[ "$(stat -c %a "$SYSTEM/initrd-dracut")" = 600 ]
	mkdir "$tree"
	zcat "$SYSTEM/initrd-dracut" | (cd "$tree" && cpio --quiet -idm)
	grep -qx 'rd.shell=0 rd.emergency=reboot' "$tree/etc/cmdline.d/90qs-util.conf"
	[ -x "$tree/usr/lib/systemd/systemd-cryptsetup" ] # of 90crypt, and what starts it is not there:
	[ ! -e "$tree/usr/lib/systemd/system-generators/systemd-cryptsetup-generator" ]
	[ -z "$(find "$tree" -name '*parse-crypt*' -o -name '*.key')" ]
	[ "$(stat -c %s "$tree/etc/cryptconf/headers/enc-virtio-crypt.header")" -eq 131072 ]
	search_for_keys "$tree"
	with_disk crypt data planted --tpm "$SYSTEM/copies/tpm" --initrd "$SYSTEM/initrd-dracut" "${UNTIL_UP[@]}"
	[[ $console == *'opened as enc-virtio-data'* ]]
	[[ $console == *'virtio-planted: '*"volume key's digest is"* ]]
	assert_up
}

@test "another machine: said, asked for, and the recovery key opens it" {
	with_disk crypt --tpm "$SYSTEM/other-tpm" \
		--when "Passphrase of:$BATS_TEST_DIRNAME/type-in $SYSTEM/results/recovery" \
		--when "was opened by a key that was typed:sleep 1; kill -9 \$GUEST_QEMU"
	[[ $console == *'sealed by another TPM'* ]]
	[[ $console == *'enc-virtio-crypt was opened by a key that was typed'* ]]
	assert_no_shell
}

@test "a planted disk in its place, with its UUID, label and token: refused, never asked for" {
	with_disk evil --tpm "$SYSTEM/copies/tpm"
	[[ $console == *"volume key's digest is"* ]]
	[[ $console == *'enc-virtio-crypt is refused, so no key of it may be typed here'* ]]
	[[ $console != *'Passphrase of'* ]]
	assert_restarted
}

@test "TPMs that are gone, silent, answer garbage, are locked or cleared, PCR 7 moved: said, asked for; without an answer the machine starts again" {
	# A port takes what is written to it and never has anything to read. (The TPM stack gives
	# such a device up by itself; tests/unit/early.bats has one that falls silent later, which
	# costs tpm2_deadline.) Locked: a TPM2_DictionaryAttackParameters whose limit is 0; the PIN
	# is right. Cleared: a TPM2_Clear. Moved: a TPM2_PCR_Extend of the SHA-256 bank. All with an
	# empty password.
	special_with <<-'END'
		#!/bin/sh
		. /scripts/functions
		wait_for_udev 10
		modprobe -q dm_crypt
		early()
		{
			echo "TPM $1:"
			rm -f /run/qs-util/early
			echo 1234 | qs-util cryptopenall --early --pin-file - $2 2>&1 | cat
			[ -e /run/qs-util/early ] || return
			while read -r line; do echo "$1 leaves $line"; done </run/qs-util/early
		}
		mv /dev/tpmrm0 /dev/real
		early absent
		for port in /sys/class/virtio-ports/*/name; do
			read -r name <"$port"
			[ "$name" = qs.results ] || continue
			port=${port%/name}
			ln -s "${port##*/}" /dev/tpmrm0
		done
		early silent
		ln -sf zero /dev/tpmrm0
		early zeros
		ln -sf urandom /dev/tpmrm0
		early noise
		mv /dev/real /dev/tpmrm0
		printf '\200\002\000\000\000\047\000\000\001\072\100\000\000\012\000\000\000\011\100\000\000\011\000\000\000\000\000\000\000\000\000\000\001\000\000\000\000\001\000' >/dev/tpmrm0
		early locked --test
		printf '\200\002\000\000\000\033\000\000\001\046\100\000\000\012\000\000\000\011\100\000\000\011\000\000\000\000\000' >/dev/tpmrm0
		early cleared --test
		printf '\200\002\000\000\000\101\000\000\001\202\000\000\000\007\000\000\000\011\100\000\000\011\000\000\000\000\000\000\000\000\001\000\013aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' >/dev/tpmrm0
	END
	with_disk crypt data pin --tpm "$SYSTEM/copies/tpm" --initrd "$SYSTEM/special"
	local kind
	for kind in absent silent zeros noise; do
		[[ $console == *"$kind leaves ask needed enc-virtio-crypt"* ]]
		[[ $console == *"$kind leaves ask optional enc-virtio-data"* ]]
	done
	[[ $console == *'TPM silent:'*'virtio-data: cannot reach the TPM'*'TPM zeros:'*'virtio-data: the TPM does not answer'* ]]
	[[ $console == *'TPM locked:'*'virtio-pin: the TPM is locked after too many wrong PINs'* ]]
	[[ $console == *'TPM cleared:'*'virtio-data: this keyslot was sealed by another TPM, or before this TPM was cleared'* ]]
	[[ $console == *'PCR 7 (Secure Boot keys and state) changed'*'Passphrase of'* ]]
	[[ $console == *'nobody answered within 12 seconds'* ]]
	assert_restarted
}

@test "no disk: the machine starts again, and the TPM's way is closed before" {
	boot --tpm "$SYSTEM/copies/tpm"
	[[ $console == *'the device of enc-virtio-crypt is not there'* ]]
	assert_restarted
}

@test "no key is in the initramfs, and it is root's alone" {
	local tree=$BATS_TEST_TMPDIR/tree
	[ "$(stat -c %a "$SYSTEM"/tree/boot/initrd.img-*)" = 600 ]
	mkdir "$tree"
	zcat "$SYSTEM/initrd" | (cd "$tree" && cpio --quiet -idm)
	[ -x "$tree/usr/sbin/qs-util" ]
	grep -q '^panic=10$' "$tree/conf/conf.d/qs-util-panic"
	[ -z "$(find "$tree" -name '*.key')" ]
	# The header without keyslots, and no more.
	[ "$(stat -c %s "$tree/etc/cryptconf/headers/enc-virtio-crypt.header")" -eq 131072 ]
	search_for_keys "$tree"
	# The search can find: with early_keys the key file is there.
	echo 'early_keys = true; tpm2_self_heal : True;' >>"$SYSTEM/tree/etc/cryptconf/qs-util.conf"
	install -D -m 0400 "$SYSTEM/results/key" "$SYSTEM/tree/etc/cryptconf/keys/enc-virtio-crypt.key"
	unshare -m chroot "$SYSTEM/tree" sh -ec '. /usr/lib/qs-util/initramfs/collect.sh; mkdir /tmp/with; qs_collect /tmp/with'
	run ! search_for_keys "$SYSTEM/tree/tmp/with"
	# A keyslot that healed in the initramfs would leave an old backup behind.
	grep -q 'tpm2_self_heal : false' "$SYSTEM/tree/tmp/with/etc/cryptconf/qs-util.conf"
}

# search_for_keys DIR: succeeds when none of the secrets, raw, in hex or base64, is in a file.
search_for_keys()
{
	python3 -B - "$1" "$SYSTEM/results" <<-'END'
		import base64, os, sys
		found = []
		secrets = []
		for name in ("key", "volume-key", "recovery"):
		    data = open(os.path.join(sys.argv[2], name), "rb").read().strip()[:48]
		    secrets += [data, data.hex().encode(), base64.b64encode(data[:30])]
		for folder, _, names in os.walk(sys.argv[1]):
		    for name in names:
		        path = os.path.join(folder, name)
		        if os.path.isfile(path) and not os.path.islink(path):
		            text = open(path, "rb").read()
		            found += [path for secret in secrets if secret in text]
		sys.exit(f"found in {found}" if found else 0)
	END
}
