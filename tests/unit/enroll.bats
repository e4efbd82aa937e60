#!/usr/bin/env bats
# cryptenroll: what it adds opens with stock tools, what it revokes opens nothing any
# more, neither the device nor a backup, and what it refuses changes nothing.

load tree

setup()
{
	make_tree 2
	KEY=$BATS_TEST_TMPDIR/key
	REC=$BATS_TEST_TMPDIR/recovery
	IMAGE=$(image_of 1)
	qs cryptformat --no-open "${ID}1"
}

# What stock cryptsetup says of the header.
metadata()
{
	cryptsetup luksDump --dump-json-metadata "$IMAGE"
}

keyslots()
{
	metadata | jq -r '.keyslots | keys | join(" ")'
}

# The header backups of the device: the current one and all versions, as files.
backups()
{
	find "$ROOT/etc/cryptconf/headers" -type f
}

# Key file $1 opens neither the device nor a backup that is left.
opens_nothing()
{
	local file
	run ! stock_opens "$IMAGE" "$1"
	while read -r file; do
		cp "$file" "$BATS_TEST_TMPDIR/probe"
		truncate -s 64M "$BATS_TEST_TMPDIR/probe"
		stock_opens "$BATS_TEST_TMPDIR/probe" "$(key_of 1)" || { echo "$file opens with nothing"; return 1; }
		! stock_opens "$BATS_TEST_TMPDIR/probe" "$1" || { echo "$file opens with a revoked key"; return 1; }
	done < <(backups)
}

# The current backup is the header that the device has, and nothing is pending.
is_settled()
{
	cmp -n "$(stat -c %s "$(backup_of 1)")" "$(backup_of 1)" "$IMAGE"
	[ -z "$(ls "$ROOT/etc/cryptconf/pending")" ]
	run -0 --separate-stderr qs --json cryptstatus "${ID}1"
	jq -e '.devices[0] | .backup.agrees and (has("warnings") | not)' <<<"$output"
}

@test "a recovery key in a file: opens with stock cryptsetup, marked as systemd does, backed up" {
	run -0 --separate-stderr qs --json cryptenroll "${ID}1" --recovery-key "$REC"
	[ "$(jq -c '.devices[0] | [.keyslot, .kind, .file]' <<<"$output")" = "[1,\"recovery\",\"$REC\"]" ]
	[ "$(stat -c '%a %s' "$REC")" = '400 71' ]
	grep -qxE '([cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8}' "$REC"
	stock_opens "$IMAGE" "$REC"
	cryptsetup open --test-passphrase "$IMAGE" <"$REC"
	[ "$(metadata | jq -c '[.tokens[] | select(.type == "systemd-recovery") | .keyslots]')" = '[["1"]]' ]
	[ "$(metadata | jq -c '.keyslots["1"].kdf | [.type, .iterations]')" = '["pbkdf2",1000]' ]
	cryptsetup open --test-passphrase --key-file "$REC" "$(backup_of 1)"
	is_settled
	run -0 qs cryptenroll "${ID}1" --test --recovery-key --passphrase-file "$REC"
}

@test "a recovery key goes to a new file only, and is never printed where others may read it" {
	echo mine >"$REC"
	before=$(sum "$IMAGE")
	run -5 qs cryptenroll "${ID}1" --recovery-key "$REC"
	[ "$(<"$REC")" = mine ]
	run -64 qs cryptenroll "${ID}1" --recovery-key
	[[ $output == *'name a FILE'* ]]
	run -1 qs cryptenroll "${ID}1" --recovery-key "$BATS_TEST_TMPDIR/none/recovery"
	[ "$(sum "$IMAGE")" = "$before" ]
	is_settled
}

@test "a recovery key on a terminal is shown once and opens" {
	run -0 typed -- cryptenroll "${ID}1" --recovery-key
	grep -oE '([cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8}' <<<"$output" >"$BATS_TEST_TMPDIR/shown"
	[ "$(wc -l <"$BATS_TEST_TMPDIR/shown")" -eq 1 ]
	head -c 71 "$BATS_TEST_TMPDIR/shown" >"$REC"
	stock_opens "$IMAGE" "$REC"
	is_settled
}

# picture: what the terminal showed, as a camera would see it: light modules white.
picture()
{
	python3 -c '
import sys
rows = []
for line in sys.stdin:
    if not line.startswith("\033[40;97m"):
        continue
    line = line[len("\033[40;97m"):].split("\033")[0]
    for blocks in "█▀", "█▄":
        rows.append("".join(("1" if c in blocks else "0") * 4 for c in line))
print("P5", len(rows[0]), 4 * len(rows), 255, flush=True)
for row in rows:
    sys.stdout.buffer.write(bytes(255 if c == "1" else 0 for c in row) * 4)
'
}

@test "its QR code reads as the key, where the terminal can show one" {
	export TERM=xterm LC_ALL=C.UTF-8
	run -0 typed -- cryptenroll "${ID}1" --recovery-key
	picture <<<"$output" >"$BATS_TEST_TMPDIR/code.pgm"
	zbarimg -q --raw "$BATS_TEST_TMPDIR/code.pgm" | head -c 71 >"$REC"
	stock_opens "$IMAGE" "$REC"
	LC_ALL=C run -0 typed -- cryptenroll "${ID}1" --recovery-key
	[[ $output != *█* ]]
	TERM=dumb run -0 typed -- cryptenroll "${ID}1" --recovery-key
	[[ $output != *█* ]]
	# Without the module the key is shown all the same.
	mkdir "$BATS_TEST_TMPDIR/bin"
	cp "$QS_UTIL" "$BATS_TEST_TMPDIR/bin/qs-util"
	QS_UTIL=$BATS_TEST_TMPDIR/bin/qs-util run -0 typed -- cryptenroll "${ID}1" --recovery-key
	[[ $output != *█* ]]
	[[ $output == *'no QR code'* ]]
	[[ $output =~ ([cbdefghijklnrtuv]{8}-){7} ]]
}

@test "a passphrase, typed twice: Argon2id, proven, known as one" {
	run -0 typed 'correct horse' 'correct horse' -- cryptenroll "${ID}1" --passphrase
	[[ $output != *horse* ]]
	[ "$(metadata | jq -r '.keyslots["1"].kdf.type')" = argon2id ]
	printf 'correct horse' >"$KEY"
	stock_opens "$IMAGE" "$KEY"
	run -0 --separate-stderr qs --json cryptenroll "${ID}1" --list
	[ "$(jq -r '.devices[0].keyslots[] | select(.number == 1).kind' <<<"$output")" = passphrase ]
	run -0 qs cryptstatus "${ID}1"
	[[ $output == *'1: argon2id, passphrase'* ]]
	# The same one again is no second slot.
	run -0 qs_input 'correct horse' cryptenroll "${ID}1" --passphrase-file -
	[[ $output == *'keyslot 1, which it opened before'* ]]
	[ "$(keyslots)" = '0 1' ]
	is_settled
	run -0 qs_input 'correct horse' cryptopen --test --passphrase-file - "${ID}1"
	# A kind in a comma-separated list; the key that was typed is revoked by the device's own.
	run -0 qs --yes cryptenroll "${ID}1" --wipe passphrase,recovery
	opens_nothing "$KEY"
	is_settled
}

@test "two different passphrases are asked for again, then given up" {
	before=$(sum "$IMAGE")
	run -6 typed one two one two one two -- cryptenroll "${ID}1" --passphrase
	[ "$(sum "$IMAGE")" = "$before" ]
}

@test "a key file of somebody's is added, listed and revoked by its kind" {
	new_key "$KEY"
	run -0 qs cryptenroll "${ID}1" --key-file "$KEY"
	stock_opens "$IMAGE" "$KEY"
	[ "$(metadata | jq -r '.keyslots["1"].kdf.type')" = argon2id ]
	run -0 qs cryptenroll "${ID}1" --test --key-file "$KEY"
	chmod 0440 "$KEY"
	run -2 qs cryptenroll "${ID}1" --key-file "$KEY"
	chmod 0400 "$KEY"
	# The kind is the device's own key's, too: that one must not go.
	run -6 qs --yes cryptenroll "${ID}1" --wipe key-file --unlock-key-file "$KEY"
	run -0 qs --yes cryptenroll "${ID}1" --wipe 1
	opens_nothing "$KEY"
	is_settled
}

@test "a wiped key opens nothing any more: not the device, no backup, of no age" {
	qs cryptenroll "${ID}1" --recovery-key "$REC"
	# Versions that hold it pile up.
	qs cryptenroll "${ID}1" --recovery-key "$REC.2"
	qs cryptenroll "${ID}1" --recovery-key "$REC.3"
	[ "$(find "$(dirname "$(backup_of 1)")/enc-scsi-30001.d" -type f | wc -l)" -eq 3 ]
	run -0 --separate-stderr qs --json --yes cryptenroll "${ID}1" --wipe 1
	[ "$(jq -c '.devices[0] | [.wiped, .backups_erased, .backups_left]' <<<"$output")" = '[[1],3,[]]' ]
	opens_nothing "$REC"
	stock_opens "$IMAGE" "$REC.2"
	stock_opens "$(backup_of 1)" "$REC.3"
	[ "$(metadata | jq '[.tokens[] | select(.keyslots == [])] | length')" = 0 ]
	is_settled
}

@test "a replaced recovery key: the new one is there before the old one goes" {
	qs cryptenroll "${ID}1" --recovery-key "$REC"
	run -0 --separate-stderr qs --json --yes cryptenroll "${ID}1" --recovery-key "$REC.2" --wipe recovery
	[ "$(jq -c '.devices[0] | [.keyslot, .wiped]' <<<"$output")" = '[2,[1]]' ]
	opens_nothing "$REC"
	stock_opens "$IMAGE" "$REC.2"
	is_settled
}

@test "backups under another name that hold a revoked key are named, not touched" {
	qs cryptenroll "${ID}1" --recovery-key "$REC"
	cp "$(backup_of 1)" "$ROOT/etc/cryptconf/headers/enc-before.header"
	run -0 --separate-stderr qs --json --yes cryptenroll "${ID}1" --wipe recovery
	[ "$(jq -r '.devices[0].backups_left[]' <<<"$output")" = /etc/cryptconf/headers/enc-before.header ]
	stock_opens "$ROOT/etc/cryptconf/headers/enc-before.header" "$REC"
}

@test "what would leave nothing that opens is refused" {
	before=$(sum "$IMAGE")
	run -6 qs --yes cryptenroll "${ID}1" --wipe 0
	run -6 qs --yes cryptenroll "${ID}1" --wipe key-file --force
	run -6 qs cryptenroll "${ID}1" --wipe 0
	[[ $output == *--yes* ]]
	[ "$(sum "$IMAGE")" = "$before" ]
	qs cryptenroll "${ID}1" --recovery-key "$REC"
	# The device's own key opens the slot that shall go: another one has to be shown.
	run -2 qs --yes cryptenroll "${ID}1" --wipe 0
	[[ $output == *--unlock-passphrase-file* ]]
	run -6 qs --yes cryptenroll "${ID}1" --wipe 0 --unlock-passphrase-file "$REC"
	[[ $output == *--new-key* ]]
	[ "$(keyslots)" = '0 1' ]
	run -0 qs --yes cryptenroll "${ID}1" --wipe 0 --unlock-passphrase-file "$REC" --force
	run ! stock_opens "$IMAGE" "$(key_of 1)"
	stock_opens "$IMAGE" "$REC"
}

@test "a slot or kind that is not there, and words that are neither" {
	run -1 qs --yes cryptenroll "${ID}1" --wipe 7
	[[ $output == *--list* ]]
	run -1 qs --yes cryptenroll "${ID}1" --wipe recovery
	for words in 32 -1 x unknown 1,,2 '1 '; do
		run -64 qs --yes cryptenroll "${ID}1" --wipe="$words"
	done
	is_settled
}

@test "what would go is said before it is asked for, and also that nothing would" {
	qs cryptenroll "${ID}1" --recovery-key "$REC"
	local words said
	for words in recovery '0,recovery' tpm2 7; do
		case $words in
		recovery) said='keyslot 1' ;;
		0,*) said='keyslot 0, 1' ;;
		*) said='it has no such keyslot' ;;
		esac
		run -6 timeout 60 "$BATS_TEST_DIRNAME/../on-terminal" no "$QS_UTIL" --root="$ROOT" \
			cryptenroll "${ID}1" --wipe "$words"
		[[ $output == *"${ID}1: $said"*"Type 'yes' to go on: "* ]]
	done
	run -64 timeout 60 "$BATS_TEST_DIRNAME/../on-terminal" no "$QS_UTIL" --root="$ROOT" \
		cryptenroll "${ID}1" --wipe nonsense
	[[ $output != *"Type 'yes'"* ]]
}

@test "slots without a mark go by number only; an empty passphrase is found" {
	printf '' >"$BATS_TEST_TMPDIR/empty"
	printf other >"$KEY"
	cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
		--key-file "$(key_of 1)" "$IMAGE" "$KEY"
	cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
		--key-file "$(key_of 1)" "$IMAGE" "$BATS_TEST_TMPDIR/empty"
	qs cryptbackup "${ID}1"
	run -1 qs --yes cryptenroll "${ID}1" --wipe passphrase
	run -0 --separate-stderr qs --json --yes cryptenroll "${ID}1" --wipe empty
	[ "$(jq -c '.devices[0].wiped' <<<"$output")" = '[2]' ]
	stock_opens "$IMAGE" "$KEY"
	run -0 qs --yes cryptenroll "${ID}1" --wipe 1
	opens_nothing "$KEY"
}

@test "--new-key: another key in the same file, the old one opens nothing" {
	cp "$(key_of 1)" "$KEY"
	run -0 --separate-stderr qs --json cryptenroll "${ID}1" --new-key
	[ "$(jq -c '.devices[0] | [.keyslot, .wiped, .file]' <<<"$output")" = \
		'[1,[0],"/etc/cryptconf/keys/enc-scsi-30001.key"]' ]
	[ "$(stat -c '%a %s' "$(key_of 1)")" = '400 1048576' ]
	[ "$(ls "$ROOT/etc/cryptconf/keys")" = enc-scsi-30001.key ]
	opens_nothing "$KEY"
	stock_opens "$IMAGE" "$(key_of 1)"
	[ "$(metadata | jq -c '[.tokens[] | select(.type == "qs-fingerprint") | .keyslots]')" = '[["1"]]' ]
	is_settled
	run -0 qs cryptopenall --test
}

@test "--new-key where the old key is lost, by a recovery key" {
	qs cryptenroll "${ID}1" --recovery-key "$REC"
	rm "$(key_of 1)"
	run -2 qs cryptenroll "${ID}1" --new-key
	[ ! -e "$(key_of 1)" ]
	[ -z "$(ls "$ROOT/etc/cryptconf/pending")$(ls "$ROOT/etc/cryptconf/keys")" ]
	run -0 qs cryptenroll "${ID}1" --new-key --unlock-passphrase-file "$REC"
	stock_opens "$IMAGE" "$(key_of 1)"
	is_settled
}

@test "--new-key refuses a key that others use, that is not ours, or that opens nothing" {
	sed 's/enc-scsi-30001 /data /; s/scsi-30001  /scsi-30002  /' "$ROOT/etc/crypttab" >>"$ROOT/etc/crypttab.2"
	cat "$ROOT/etc/crypttab.2" >>"$ROOT/etc/crypttab"
	run -6 qs cryptenroll "${ID}1" --new-key
	[[ $output == *'another line'* ]]
	new_key "$KEY"
	echo "enc-scsi-30001 ${ID}1 $KEY luks" >"$ROOT/etc/crypttab"
	run -6 qs cryptenroll "${ID}1" --new-key
	[[ $output == *'is not in /etc/cryptconf/keys'* ]]
	rm "$ROOT/etc/crypttab"
	cp "$(key_of 1)" "$BATS_TEST_TMPDIR/saved"
	chmod 0400 "$BATS_TEST_TMPDIR/saved"
	new_key "$(key_of 1)"
	run -2 qs cryptenroll "${ID}1" --new-key --unlock-key-file "$BATS_TEST_TMPDIR/saved"
	[[ $output == *'move it away'* ]]
	[ "$(keyslots)" = 0 ]
	[ -z "$(ls "$ROOT/etc/cryptconf/pending")" ]
}

@test "exactly one way at a time, and every option where it belongs" {
	run -64 qs cryptenroll "${ID}1"
	run -64 qs cryptenroll "${ID}1" --passphrase --new-key
	run -64 qs cryptenroll "${ID}1" file --new-key
	run -64 qs cryptenroll "${ID}1" --list --wipe 0
	run -64 qs cryptenroll "${ID}1" --test --new-key
	run -64 qs cryptenroll "${ID}1" --new-key --unlock-key-file "$KEY" --unlock-passphrase
	run -64 qs cryptenroll "${ID}1" --passphrase
	run -64 qs --json cryptenroll "${ID}1" --recovery-key
}

@test "LUKS1, no LUKS, a damaged header, no such device" {
	new_key "$KEY"
	stock_format "$(image_of 2)" "$KEY" --type luks1
	run -4 qs cryptenroll "${ID}2" --recovery-key "$REC" --unlock-key-file "$KEY"
	[[ $output == *convert* ]]
	run -0 --separate-stderr qs --json cryptenroll "${ID}2" --list
	[ "$(jq -r '.devices[0].keyslots[0].kind' <<<"$output")" = unknown ]
	rm "$(image_of 2)" && truncate -s 64M "$(image_of 2)"
	run -4 qs cryptenroll "${ID}2" --recovery-key "$REC"
	run -4 qs cryptenroll "${ID}7" --recovery-key "$REC"
	dd if=/dev/zero of="$IMAGE" bs=4096 count=1 conv=notrunc status=none
	run -4 qs cryptenroll "${ID}1" --recovery-key "$REC"
	[ ! -e "$REC" ]
}

@test "a device that others formatted is backed up and enrolled, too" {
	new_key "$KEY"
	stock_format "$(image_of 2)" "$KEY"
	run -2 qs cryptenroll "${ID}2" --recovery-key "$REC"
	run -0 qs cryptenroll "${ID}2" --recovery-key "$REC" --unlock-key-file "$KEY"
	stock_opens "$(image_of 2)" "$REC"
	stock_opens "$(backup_of 2)" "$REC"
}

@test "no room for another keyslot: said, and nothing is left behind" {
	rm "$IMAGE" "$(backup_of 1)"
	truncate -s 64M "$IMAGE"
	stock_format "$IMAGE" "$(key_of 1)" --luks2-keyslots-size 288k
	before=$(sum "$IMAGE")
	run -1 qs cryptenroll "${ID}1" --recovery-key "$REC"
	[[ $output == *'no room'* ]]
	run -1 qs cryptenroll "${ID}1" --new-key
	[ ! -e "$REC" ]
	[ "$(ls "$ROOT/etc/cryptconf/keys")" = enc-scsi-30001.key ]
	[ "$(sum "$IMAGE")" = "$before" ]
	is_settled || [ -z "$(ls "$ROOT/etc/cryptconf/pending")" ]
}

@test "an update of the header that was cut off is completed by the next change" {
	qs cryptenroll "${ID}1" --recovery-key "$REC"
	# As if the power had gone while the first copy was written.
	dd if=/dev/urandom of="$IMAGE" bs=512 seek=40 count=1 conv=notrunc status=none
	run -0 qs cryptenroll "${ID}1" --recovery-key "$REC.2"
	stock_opens "$IMAGE" "$REC"
	stock_opens "$IMAGE" "$REC.2"
	is_settled
}

@test "slots of others keep every byte" {
	printf other >"$KEY"
	cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
		--key-file "$(key_of 1)" "$IMAGE" "$KEY"
	qs cryptbackup "${ID}1"
	area=$(metadata | jq -c '.keyslots["1"]')
	offset=$(jq -r .area.offset <<<"$area")
	[ "$(jq -r .area.size <<<"$area")" = $((63 * 4096)) ]
	before=$(dd if="$IMAGE" bs=4096 skip=$((offset / 4096)) count=63 status=none | sha256sum)
	qs cryptenroll "${ID}1" --recovery-key "$REC"
	qs cryptenroll "${ID}1" --new-key
	qs --yes cryptenroll "${ID}1" --wipe recovery
	[ "$(metadata | jq -c '.keyslots["1"]')" = "$area" ]
	[ "$(dd if="$IMAGE" bs=4096 skip=$((offset / 4096)) count=63 status=none | sha256sum)" = "$before" ]
	stock_opens "$IMAGE" "$KEY"
}

@test "no secret is in the arguments of a process, and none in the JSON" {
	export ASAN_OPTIONS=detect_leaks=0
	(umask 077 && echo 'correct horse' >"$BATS_TEST_TMPDIR/pass")
	run -0 strace -f -qq -s 200 -e trace=execve -o "$BATS_TEST_TMPDIR/trace" \
		"$QS_UTIL" --root="$ROOT" --json cryptenroll "${ID}1" --recovery-key "$REC"
	[[ $output != *"$(<"$REC")"* ]]
	run ! grep -F "$(<"$REC")" "$BATS_TEST_TMPDIR/trace"
	run ! grep -rF "$(<"$REC")" "$ROOT/etc" "$ROOT/run"
}
