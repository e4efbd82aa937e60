#!/usr/bin/env bats
# cryptformat and cryptdestroy on image files: what is made, what is refused,
# what an unfinished run leaves and how the next one goes on.

load tree

setup()
{
	make_tree 3
	KEY=$BATS_TEST_TMPDIR/key
	new_key "$KEY"
}

line_of()
{
	echo "enc-scsi-3000$1  ${ID}$1  /etc/cryptconf/keys/enc-scsi-3000$1.key  luks"
}

nothing_pending()
{
	[ -z "$(ls "$ROOT/etc/cryptconf/pending" 2>/dev/null)" ]
}

@test "what a format makes, as stock tools see it" {
	printf '# mine\nother UUID=x none luks\n' >"$ROOT/etc/crypttab"
	run -0 qs cryptformat --no-open "${ID}1" "${ID}2"
	dump=$(cryptsetup luksDump "$(image_of 1)")
	grep -qE '^Version:\s+2$' <<<"$dump"
	grep -qE '^Metadata area:\s+131072 ' <<<"$dump"
	grep -qE '^Keyslots area:\s+4194304 ' <<<"$dump"
	grep -qE '^Label:\s+enc-scsi-30001$' <<<"$dump"
	grep -qE '^Subsystem:\s+qs-util$' <<<"$dump"
	grep -qE 'offset: 16777216 ' <<<"$dump"
	grep -qE 'PBKDF:\s+pbkdf2' <<<"$dump"
	stock_opens "$(image_of 1)" "$(key_of 1)"
	stock_opens "$(image_of 2)" "$(key_of 2)"
	stock_opens "$(backup_of 1)" "$(key_of 1)"
	cmp -n 4456448 "$(backup_of 1)" "$(image_of 1)"
	[ "$(stat -c '%s %a' "$(key_of 1)")" = '1048576 400' ]
	[ "$(stat -c %a "$ROOT/etc/cryptconf/keys")" = 700 ]
	[ "$(<"$ROOT/etc/crypttab")" = "$(printf '# mine\nother UUID=x none luks\n%s\n%s' "$(line_of 1)" "$(line_of 2)")" ]
	[ "$(<"$ROOT/etc/crypttab.qs-bak")" = "$(printf '# mine\nother UUID=x none luks')" ]
	run ! cmp -s "$(key_of 1)" "$(key_of 2)"
	nothing_pending
}

@test "the header backup is what luksHeaderBackup writes" {
	qs cryptformat --no-open "${ID}1"
	cryptsetup luksHeaderBackup "$(image_of 1)" --header-backup-file "$BATS_TEST_TMPDIR/stock"
	cmp "$BATS_TEST_TMPDIR/stock" "$(backup_of 1)"
}

@test "the options reach the header" {
	run -0 qs cryptformat --no-open --cipher aes-cbc-essiv:sha256 --key-size 256 \
		--sector-size 512 --pbkdf argon2id "${ID}1"
	dump=$(cryptsetup luksDump "$(image_of 1)")
	grep -qE 'cipher: aes-cbc-essiv:sha256' <<<"$dump"
	grep -qE 'Key:\s+256 bits' <<<"$dump"
	grep -qE 'sector: 512 ' <<<"$dump"
	grep -qE 'PBKDF:\s+argon2id' <<<"$dump"
	stock_opens "$(image_of 1)" "$(key_of 1)"
}

@test "a size that is no multiple of 4096 gets 512-byte sectors" {
	truncate -s $((64 * 1024 * 1024 + 512)) "$(image_of 1)"
	run -0 qs cryptformat --no-open "${ID}1"
	cryptsetup luksDump "$(image_of 1)" | grep -qE 'sector: 512 '
}

@test "impossible options change nothing: 64" {
	before=$(sum "$(image_of 1)")
	run -64 qs cryptformat --no-open --cipher null "${ID}1"
	run -64 qs cryptformat --no-open --cipher cipher_null-ecb "${ID}1"
	run -64 qs cryptformat --no-open --key-size 100 "${ID}1"
	run -64 qs cryptformat --no-open --sector-size 1000 "${ID}1"
	run -64 qs cryptformat --no-open --pbkdf md5 "${ID}1"
	[ "$(sum "$(image_of 1)")" = "$before" ]
	[ ! -e "$(key_of 1)" ]
}

@test "a cipher that the kernel and libcryptsetup do not know leaves no header" {
	before=$(sum "$(image_of 1)")
	run -1 qs cryptformat --no-open --cipher nonsense-xts-plain64 "${ID}1"
	[ "$(sum "$(image_of 1)")" = "$before" ]
}

@test "formatted already: 5, and nothing changes" {
	qs cryptformat --no-open "${ID}1"
	before=$(sum "$(image_of 1)") key=$(sum "$(key_of 1)")
	run -5 qs cryptformat --no-open "${ID}1"
	[[ $output == *'cryptopen'* ]]
	[ "$(sum "$(image_of 1)")" = "$before" ]
	[ "$(sum "$(key_of 1)")" = "$key" ]
}

@test "a formatted disk whose backup or line is missing gets it back, with the same header" {
	qs cryptformat --no-open "${ID}1"
	before=$(sum "$(image_of 1)")
	rm "$(backup_of 1)" "$ROOT/etc/crypttab"
	run -0 qs cryptformat --no-open "${ID}1"
	[[ $output == *unfinished* ]]
	[ "$(sum "$(image_of 1)")" = "$before" ]
	stock_opens "$(backup_of 1)" "$(key_of 1)"
	[ "$(<"$ROOT/etc/crypttab")" = "$(line_of 1)" ]
}

@test "a header that was lost is not made anew over the data: 6" {
	qs cryptformat --no-open "${ID}1"
	dd if=/dev/zero of="$(image_of 1)" bs=1M count=16 conv=notrunc status=none
	before=$(sum "$(image_of 1)")
	run -5 qs cryptformat --no-open "${ID}1"
	[[ $output == *'line 1 of /etc/crypttab'* ]]
	rm "$ROOT/etc/crypttab"
	run -6 qs cryptformat --no-open "${ID}1"
	[[ $output == *'cryptdestroy'* ]]
	[ "$(sum "$(image_of 1)")" = "$before" ]
}

@test "a lost header is not made anew either when a journal was left" {
	qs cryptformat --no-open "${ID}1"
	mkdir -p "$ROOT/etc/cryptconf/pending"
	jq -n --arg uuid "$(cryptsetup luksUUID "$(image_of 1)")" --arg device "${ID}1" \
		'{op: "format", uuid: $uuid, device: $device, key_file: "/etc/cryptconf/keys/enc-scsi-30001.key"}' \
		>"$ROOT/etc/cryptconf/pending/enc-scsi-30001.json"
	rm "$ROOT/etc/crypttab"
	dd if=/dev/zero of="$(image_of 1)" bs=1M count=16 conv=notrunc status=none
	before=$(sum "$(image_of 1)")
	run -6 qs cryptformat --no-open "${ID}1"
	[ "$(sum "$(image_of 1)")" = "$before" ]
}

@test "several devices, one bad: the others are done, 7" {
	echo data | dd of="$(image_of 2)" bs=1 seek=5000 conv=notrunc status=none
	before=$(sum "$(image_of 2)")
	run -7 --separate-stderr qs --json cryptformat --no-open "${ID}1" "${ID}2" "${ID}3"
	[ "$(jq -r '[.devices[] | .ok] | map(tostring) | join(" ")' <<<"$output")" = 'true false true' ]
	[ "$(sum "$(image_of 2)")" = "$before" ]
	[ "$(grep -c ^enc- "$ROOT/etc/crypttab")" = 2 ]
}

@test "the same device twice in one command: the second is refused" {
	run -7 qs cryptformat --no-open "${ID}1" "$(image_of 1)"
	stock_opens "$(image_of 1)" "$(key_of 1)"
}

@test "two devices that would have one name: the second is refused, unchanged" {
	mkdir "$ROOT/a" "$ROOT/b"
	truncate -s 64M "$ROOT/a/same.img" "$ROOT/b/same.img"
	before=$(sum "$ROOT/b/same.img")
	run -7 qs cryptformat --no-open "$ROOT/a/same.img" "$ROOT/b/same.img"
	[ "$(sum "$ROOT/b/same.img")" = "$before" ]
	run -5 qs cryptformat --no-open "$ROOT/b/same.img"
	[ "$(sum "$ROOT/b/same.img")" = "$before" ]
}

@test "a forced format uses the key that is there and keeps the old backup" {
	qs cryptformat --no-open "${ID}1"
	key=$(sum "$(key_of 1)") old=$(sum "$(backup_of 1)")
	sed -i /^enc-/d "$ROOT/etc/crypttab"
	run -0 qs cryptformat --force --yes --no-open "${ID}1"
	[ "$(sum "$(key_of 1)")" = "$key" ]
	[ "$(sum "$(backup_of 1)")" != "$old" ]
	[ "$(sum "${ROOT}"/etc/cryptconf/headers/enc-scsi-30001.d/*.header)" = "$old" ]
	stock_opens "$(image_of 1)" "$(key_of 1)"
}

@test "destroy: nothing opens it, nothing is left, and another run says so" {
	printf '# mine\n' >"$ROOT/etc/crypttab"
	qs cryptformat --no-open "${ID}1" "${ID}2"
	cp "$(key_of 1)" "$BATS_TEST_TMPDIR/saved.key"
	chmod 0400 "$BATS_TEST_TMPDIR/saved.key"
	run -0 qs cryptdestroy --yes "${ID}1"
	run ! cryptsetup isLuks "$(image_of 1)"
	run ! stock_opens "$(image_of 1)" "$BATS_TEST_TMPDIR/saved.key"
	[ ! -e "$(key_of 1)" ]
	[ ! -e "$(backup_of 1)" ]
	[ "$(<"$ROOT/etc/crypttab")" = "$(printf '# mine\n%s' "$(line_of 2)")" ]
	nothing_pending
	run -4 qs cryptdestroy --yes "${ID}1"
	stock_opens "$(image_of 2)" "$(key_of 2)"
}

@test "destroy: only the 16 MiB of the header are touched" {
	qs cryptformat --no-open "${ID}1"
	head -c 1M /dev/urandom | dd of="$(image_of 1)" bs=1M seek=16 conv=notrunc status=none
	before=$(tail -c +$((16 * 1024 * 1024 + 1)) "$(image_of 1)" | sha256sum)
	run -0 qs cryptdestroy --yes "${ID}1"
	[ "$(tail -c +$((16 * 1024 * 1024 + 1)) "$(image_of 1)" | sha256sum)" = "$before" ]
}

@test "destroy: a LUKS device of others is refused: 6; --force does it" {
	stock_format "$(image_of 1)" "$KEY"
	before=$(sum "$(image_of 1)")
	run -6 qs cryptdestroy --yes "${ID}1"
	[ "$(sum "$(image_of 1)")" = "$before" ]
	run -0 qs cryptdestroy --yes --force "${ID}1"
	run ! cryptsetup isLuks "$(image_of 1)"
	[ -e "$KEY" ]
}

@test "destroy: a known disk on which somebody made a file system is refused: 6" {
	qs cryptformat --no-open "${ID}1"
	mke2fs -qF "$(image_of 1)"
	before=$(sum "$(image_of 1)")
	run -6 qs cryptdestroy --yes "${ID}1"
	[[ $output == *ext* ]]
	[ "$(sum "$(image_of 1)")" = "$before" ]
	[ -e "$(key_of 1)" ]
}

@test "destroy: an absent disk loses its key and backups, and it is said what is not done" {
	qs cryptformat --no-open "${ID}1"
	rm "$ROOT${ID}1"
	mv "$(image_of 1)" "$BATS_TEST_TMPDIR/away"
	run -0 qs cryptdestroy --yes enc-scsi-30001
	[[ $output == *absent* ]]
	[ ! -e "$(key_of 1)" ]
	[ ! -e "$(backup_of 1)" ]
	run ! grep -q enc- "$ROOT/etc/crypttab"
}

@test "destroy: a key file that another line uses stays" {
	qs cryptformat --no-open "${ID}1" "${ID}2"
	echo "data /dev/disk/by-id/other /etc/cryptconf/keys/enc-scsi-30001.key luks" >>"$ROOT/etc/crypttab"
	run -0 --separate-stderr qs --json cryptdestroy --yes "${ID}1"
	[ "$(jq -r '.devices[0].key_kept' <<<"$output")" = /etc/cryptconf/keys/enc-scsi-30001.key ]
	[ -e "$(key_of 1)" ]
}

@test "destroy without a yes: 6, and nothing changes" {
	qs cryptformat --no-open "${ID}1"
	before=$(sum "$(image_of 1)")
	run -6 qs cryptdestroy "${ID}1"
	run -6 qs --json cryptdestroy "${ID}1"
	[ "$(sum "$(image_of 1)")" = "$before" ]
	[ -e "$(key_of 1)" ]
}

@test "every JSON answer about devices validates against the schema, failures too" {
	local words
	while read -r words; do
		# shellcheck disable=SC2086 # words of a command line
		qs --json $words >>"$BATS_TEST_TMPDIR/answers" || true
	done <<-EOF
		cryptformat --no-open ${ID}1 ${ID}2
		cryptformat --no-open ${ID}1
		cryptformat ${ID}3
		cryptformat --no-open /dev/disk/by-id/gone ${ID}1
		cryptopenall --test
		cryptopen --test ${ID}1
		cryptopen --test ${ID}1 $KEY
		cryptopen ${ID}1 updatecrypttab
		cryptstatus
		cryptstatus ${ID}1 ${ID}3 /dev/null
		cryptclose ${ID}1
		cryptcloseall
		cryptdestroy ${ID}1
		--yes cryptdestroy ${ID}1 ${ID}2
		--yes cryptdestroy ${ID}1
		devicemap
		devicemap --all
	EOF
	[ "$(wc -l <"$BATS_TEST_TMPDIR/answers")" -eq 17 ]
	"$BATS_TEST_DIRNAME/../validate-json" --each <"$BATS_TEST_TMPDIR/answers"
}

@test "an ordinary user can go all the way with files of his own" {
	# Root without any capability has no more rights to files than their owner.
	local as=()
	[ "$EUID" -ne 0 ] || as=(setpriv --bounding-set=-all --inh-caps=-all)
	run -0 "${as[@]}" "$QS_UTIL" --root="$ROOT" cryptformat --no-open "${ID}1"
	run -0 "${as[@]}" "$QS_UTIL" --root="$ROOT" cryptopenall --test
	run -0 "${as[@]}" "$QS_UTIL" --root="$ROOT" --yes cryptdestroy "${ID}1"
	[ ! -e "$(key_of 1)" ]
}

@test "no key byte shows in output, JSON, journal or temporary files" {
	qs --json --verbose cryptformat --no-open "${ID}1" >"$BATS_TEST_TMPDIR/out" 2>&1
	qs --json --verbose cryptopenall --test >>"$BATS_TEST_TMPDIR/out" 2>&1
	python3 - "$(key_of 1)" "$BATS_TEST_TMPDIR/out" "$ROOT" <<-'EOF'
		import base64, os, sys
		key = open(sys.argv[1], "rb").read()
		piece = key[4096:4096 + 24]
		forms = [piece, piece.hex().encode(), base64.b64encode(piece)]
		files = [sys.argv[2]] + [os.path.join(d, f) for d, _, fs in os.walk(sys.argv[3]) for f in fs]
		found = [f for f in files if f != sys.argv[1] and any(x in open(f, "rb").read() for x in forms)]
		sys.exit(f"key bytes in {found}" if found else 0)
	EOF
}
