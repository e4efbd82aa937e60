#!/usr/bin/env bats
# cryptswap on image files: which devices, what is refused, what the tables hold
# afterwards, and that nothing readable is left. (Active swap: tests/guest.)

load tree

readonly UUID1=11111111-2222-3333-4444-000000000001 UUID2=11111111-2222-3333-4444-000000000002
readonly OPTIONS=swap,cipher=aes-xts-plain64,size=512,plain,sector-size=4096

setup()
{
	make_tree 2
	mkdir -p "$ROOT"/dev/disk/by-{partuuid,label}
	truncate -s 16M "$(image_of 1)" "$(image_of 2)"
	make_swap 1 "$UUID1"
	make_swap 2 "$UUID2"
	printf '# mine\nUUID=%s none swap sw,pri=3 0 0 # first\r\n\tLABEL=two\tnone\tswap\tdefaults\t0 0' \
		"$UUID1" >"$ROOT/etc/fstab"
	swaplabel -L two "$(image_of 2)"
	ln -s "$(image_of 2)" "$ROOT/dev/disk/by-label/two"
}

# make_swap N UUID: disk N is a swap with a life behind it.
make_swap()
{
	yes 'plaintext of the swap' | head -c 16M >"$(image_of "$1")"
	mkswap -q -U "$2" "$(image_of "$1")"
	ln -sfn "$(image_of "$1")" "$ROOT/dev/disk/by-uuid/$2"
}

is_zero()
{
	cmp -n "$(stat -c %s "$1")" "$1" /dev/zero
}

# refused STATUS PATTERN ARGUMENT...: as said, and nothing changed.
refused()
{
	local status=$1 pattern=$2 before
	shift 2
	before=$(everything)
	run "-$status" qs cryptswap "$@"
	grep -qE -- "$pattern" <<<"$output" || { echo "no '$pattern' in: $output"; return 1; }
	[ "$(everything)" = "$before" ]
}

everything()
{
	(cd "$ROOT" && find etc img -type f -exec sha256sum {} + | sort)
}

@test "without DEVICE: all of fstab, each by its link, with its options" {
	run -0 --separate-stderr qs --json cryptswap
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	jq -e '[.devices[] | select(.ok and .state == "next-start" and .wiped == 16777216)] | length == 2' <<<"$output"
	is_zero "$(image_of 1)"
	is_zero "$(image_of 2)"
	printf '# mine\n/dev/mapper/enc-scsi-30001 none swap sw,pri=3 0 0 # first\r\n\t/dev/mapper/enc-scsi-30002\tnone\tswap\tdefaults\t0 0' |
		cmp - "$ROOT/etc/fstab"
	printf '%s\n' "enc-scsi-30001  ${ID}1  /dev/urandom  $OPTIONS" "enc-scsi-30002  ${ID}2  /dev/urandom  $OPTIONS" |
		cmp - "$ROOT/etc/crypttab"
	[ -z "$(ls "$ROOT/etc/cryptconf/pending")" ]
}

@test "with DEVICE: only that; a second run has nothing to do" {
	run -0 qs cryptswap "${ID}2"
	is_zero "$(image_of 2)"
	run ! is_zero "$(image_of 1)"
	grep -q "^UUID=$UUID1 " "$ROOT/etc/fstab"
	before=$(everything)
	run -0 qs cryptswap "${ID}2"
	[[ $output == *'already encrypted'* ]]
	run -0 qs cryptswap enc-scsi-30002
	[ "$(everything)" = "$before" ]
}

@test "what fstab says of the swap goes over to crypttab where it matters there" {
	echo "UUID=$UUID1 none swap discard,nofail,noauto 0 0" >"$ROOT/etc/fstab"
	run -0 qs cryptswap
	grep -qx "enc-scsi-30001  ${ID}1  /dev/urandom  $OPTIONS,discard,noauto,nofail" "$ROOT/etc/crypttab"
	[ "$(<"$ROOT/etc/fstab")" = "/dev/mapper/enc-scsi-30001 none swap discard,nofail,noauto 0 0" ]
}

@test "a size that is no multiple of 4096 gets the small sectors" {
	truncate -s $((16 * 1024 * 1024 + 512)) "$(image_of 1)"
	run -0 qs cryptswap "${ID}1"
	is_zero "$(image_of 1)"
	grep -qx "enc-scsi-30001 .* swap,cipher=aes-xts-plain64,size=512,plain" "$ROOT/etc/crypttab"
}

@test "an empty device becomes a new swap; other content is refused, --force asks" {
	printf '# none\n' >"$ROOT/etc/fstab"
	truncate -s 0 "$(image_of 1)"
	truncate -s 16M "$(image_of 1)"
	run -0 qs cryptswap "${ID}1"
	grep -qx '/dev/mapper/enc-scsi-30001  none  swap  sw  0  0' "$ROOT/etc/fstab"
	mkfs.ext4 -q "$(image_of 2)"
	refused 6 'ext4' "${ID}2"
	refused 6 'yes' --force "${ID}2"
	run -0 qs cryptswap --force --yes "${ID}2"
	is_zero "$(image_of 2)"
	head -c 1M /dev/urandom | dd of="$(image_of 2)" conv=notrunc status=none
	sed -i '/30002/d' "$ROOT/etc/crypttab" "$ROOT/etc/fstab"
	refused 6 'unknown kind' "${ID}2"
}

@test "data on a device that a swap line names: 6, also when the line is ours" {
	qs cryptswap "${ID}1"
	mkfs.ext4 -q "$(image_of 1)"
	refused 6 'ext4' "${ID}1"
}

@test "a hibernated system is refused" {
	printf 'S1SUSPEND\0' | dd of="$(image_of 1)" bs=1 seek=4086 conv=notrunc status=none
	refused 6 'hibernated' "${ID}1"
}

@test "swap files: 4 and the way out; the partitions are done all the same" {
	fallocate -l 16M "$ROOT/img/swapfile"
	mkswap -q "$ROOT/img/swapfile"
	refused 4 'swap file.*encrypted file system.*partition' "$ROOT/img/swapfile"
	echo >>"$ROOT/etc/fstab"
	echo "$ROOT/img/swapfile none swap sw 0 0" >>"$ROOT/etc/fstab"
	run -7 qs cryptswap
	is_zero "$(image_of 1)"
	[ "$(tail -n 1 "$ROOT/etc/fstab")" = "$ROOT/img/swapfile none swap sw 0 0" ]
}

@test "PARTUUID where there is no by-id link; without either 4" {
	rm "$ROOT${ID}1"
	refused 4 'swap file|PARTUUID' "/dev/disk/by-uuid/$UUID1"
	ln -s "$(image_of 1)" "$ROOT/dev/disk/by-partuuid/abcd-01"
	run -0 qs cryptswap "/dev/disk/by-uuid/$UUID1"
	grep -qx "enc-partuuid-abcd-01  /dev/disk/by-partuuid/abcd-01  /dev/urandom  $OPTIONS" "$ROOT/etc/crypttab"
	grep -q '^/dev/mapper/enc-partuuid-abcd-01 none' "$ROOT/etc/fstab"
}

@test "hibernation: each place where a person sets it up is a refusal, --force overrides" {
	local file
	mkdir -p "$ROOT"/etc/{default/grub.d,kernel,initramfs-tools/conf.d,systemd/sleep.conf.d,systemd/logind.conf.d}
	for file in default/grub default/grub.d/50-mine.cfg; do
		printf 'GRUB_TIMEOUT=1\nGRUB_CMDLINE_LINUX="quiet resume=UUID=%s"\n' "$UUID1" >"$ROOT/etc/$file"
		refused 6 "resume=UUID=.*/etc/$file" "${ID}1"
		rm "$ROOT/etc/$file"
	done
	echo "resume=${ID}1 quiet" >"$ROOT/etc/kernel/cmdline"
	refused 6 'etc/kernel/cmdline' "${ID}1"
	rm "$ROOT/etc/kernel/cmdline"
	for file in initramfs.conf conf.d/mine; do
		echo "RESUME=\"UUID=$UUID1\"" >"$ROOT/etc/initramfs-tools/$file"
		refused 6 "RESUME=.*$file" "${ID}1"
		rm "$ROOT/etc/initramfs-tools/$file"
	done
	echo 'AllowHibernation = yes' >"$ROOT/etc/systemd/sleep.conf.d/x.conf"
	refused 6 'AllowHibernation=yes' "${ID}1"
	rm "$ROOT/etc/systemd/sleep.conf.d/x.conf"
	echo 'HandleLidSwitch=suspend-then-hibernate' >"$ROOT/etc/systemd/logind.conf"
	refused 6 'HandleLidSwitch' "${ID}1"
	run -0 qs cryptswap --force "${ID}1"
	is_zero "$(image_of 1)"
}

@test "hibernation: other devices, comments and defaults do not matter" {
	mkdir -p "$ROOT"/etc/{default,initramfs-tools/conf.d,systemd}
	printf '# resume=UUID=%s\nGRUB_CMDLINE_LINUX="noresume resume=UUID=%s"\n' "$UUID1" "$UUID2" >"$ROOT/etc/default/grub"
	echo RESUME=auto >"$ROOT/etc/initramfs-tools/initramfs.conf"
	printf '#AllowHibernation=yes\nAllowHibernation=no\n' >"$ROOT/etc/systemd/sleep.conf"
	echo 'HandleLidSwitch=suspend' >"$ROOT/etc/systemd/logind.conf"
	run -0 qs cryptswap "${ID}1"
}

@test "the installer's RESUME is set to none, with a copy that is not read, and told" {
	local conf=$ROOT/etc/initramfs-tools
	mkdir -p "$conf/conf.d"
	printf '# by the installer\nRESUME=UUID=%s\nOTHER=1\n' "$UUID1" >"$conf/conf.d/resume"
	cp "$conf/conf.d/resume" "$BATS_TEST_TMPDIR/before"
	run -0 qs cryptswap "${ID}2"
	cmp "$conf/conf.d/resume" "$BATS_TEST_TMPDIR/before"
	run -0 qs cryptswap "${ID}1"
	[[ $output == *'update-initramfs -u'* ]]
	printf '# by the installer\nRESUME=none\nOTHER=1\n' | cmp - "$conf/conf.d/resume"
	cmp "$conf/resume.qs-bak" "$BATS_TEST_TMPDIR/before"
	[ "$(ls -A "$conf/conf.d")" = resume ]
}

@test "tables that cannot be edited safely: refused before anything is overwritten" {
	printf 'UUID=%s none swap sw 0 0\nLABEL=x none swap sw 0 0\n%s none swap sw 0 0\n' "$UUID1" "${ID}1" >"$ROOT/etc/fstab"
	refused 1 'two lines.*1 and 3' "${ID}1"
	printf 'UUID=%s none swap sw 0 0\n' "$UUID1" >"$ROOT/etc/fstab"
	printf 'a /dev/a\0 none luks\n' >"$ROOT/etc/crypttab"
	refused 1 'NUL' "${ID}1"
	echo "enc-scsi-30001 /dev/disk/by-id/other none luks" >"$ROOT/etc/crypttab"
	refused 5 'enc-scsi-30001' "${ID}1"
	echo "other ${ID}1 none luks" >"$ROOT/etc/crypttab"
	refused 5 'line 1 of /etc/crypttab' "${ID}1"
	rm "$ROOT/etc/crypttab"
	echo "UUID=$UUID1 /data ext4 rw 0 0" >"$ROOT/etc/fstab"
	refused 5 'line 1 of /etc/fstab' "${ID}1"
}

@test "somebody's own encrypted swap is taken as it is" {
	echo "cryptswap1 ${ID}1 /dev/urandom swap,offset=8" >"$ROOT/etc/crypttab"
	cp "$ROOT/etc/crypttab" "$BATS_TEST_TMPDIR/crypttab"
	head -c 16M /dev/urandom >"$(image_of 1)"
	echo '/dev/mapper/cryptswap1 none swap sw 0 0' >"$ROOT/etc/fstab"
	before=$(everything)
	run -0 qs cryptswap "${ID}1"
	[[ $output == *'cryptswap1 (already encrypted)'* ]]
	[ "$(everything)" = "$before" ]
}

@test "swap on somebody's LUKS device is encrypted already" {
	echo "sda3_crypt ${ID}1 none luks" >"$ROOT/etc/crypttab"
	echo '/dev/mapper/sda3_crypt none swap sw 0 0' >"$ROOT/etc/fstab"
	before=$(everything)
	run -0 qs cryptswap
	[[ $output == *'already encrypted, by /dev/mapper/sda3_crypt'* ]]
	[ "$(everything)" = "$before" ]
}

@test "a swap that fstab names and nobody has: 4, the others are done" {
	rm "$ROOT/dev/disk/by-uuid/$UUID1" "$ROOT${ID}1"
	run -7 qs cryptswap
	is_zero "$(image_of 2)"
	grep -q "^UUID=$UUID1 " "$ROOT/etc/fstab"
}

@test "an interrupted run is named by cryptstatus, and finished also when the UUID is gone" {
	mkdir -p "$ROOT/etc/cryptconf/pending"
	printf '{"op":"swap","uuid":"%s","device":"%s","fstab":"UUID=%s"}' "$UUID1" "${ID}1" "$UUID1" \
		>"$ROOT/etc/cryptconf/pending/enc-scsi-30001.json"
	echo "enc-scsi-30001  ${ID}1  /dev/urandom  $OPTIONS" >"$ROOT/etc/crypttab"
	# As after a start in between: the mapping has overwritten the header.
	head -c 16M /dev/urandom >"$(image_of 1)"
	rm "$ROOT/dev/disk/by-uuid/$UUID1"
	run -0 qs cryptstatus "${ID}1"
	[[ $output == *'swap was begun and not finished'* ]]
	run -0 qs cryptswap
	head -n 2 "$ROOT/etc/fstab" | grep -q '^/dev/mapper/enc-scsi-30001 none swap sw,pri=3 0 0 # first'
	[ -z "$(ls "$ROOT/etc/cryptconf/pending")" ]
}

@test "--now below --root, and two arguments, are wrong usage" {
	refused 64 'now' --now
	refused 64 '' "${ID}1" "${ID}2"
}

@test "cryptstatus shows the swaps of ours, and what is wrong with one" {
	qs cryptswap
	run -0 --separate-stderr qs --json cryptstatus
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	jq -e '[.devices[] | select(.state == "swap-off" and .cipher == "aes-xts-plain64" and .key_size == 512 and (.warnings | not))] | length == 2' <<<"$output"
	run -0 qs cryptstatus enc-scsi-30001
	grep -qE 'crypttab +line 1 agrees' <<<"$output"
	[[ $output != *backup* ]]
	echo >"$ROOT/etc/fstab"
	rm "$ROOT${ID}2"
	run -0 --separate-stderr qs --json cryptstatus
	jq -e '.devices[] | select(.name == "enc-scsi-30001") | .warnings[0] | test("nothing switches it on")' <<<"$output"
	jq -e '.devices[] | select(.name == "enc-scsi-30002") | .state == "absent"' <<<"$output"
}

@test "cryptopen, cryptopenall and cryptdestroy are not confused by a swap line" {
	truncate -s 64M "$(image_of 1)"
	qs cryptswap
	run -0 qs cryptopenall --test
	run -4 qs cryptopen --test "${ID}1"
	run -4 qs cryptdestroy --yes "${ID}1"
	run -5 qs cryptformat --no-open "${ID}1"
	[[ $output == *'line 1 of /etc/crypttab'* ]]
}
