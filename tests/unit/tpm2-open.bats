#!/usr/bin/env bats
# Opening by the TPM: devices that systemd-cryptenroll enrolled, in which order
# ways are tried, and what happens when the TPM says no, or nothing at all.
# Nothing is mapped here (--test); the guest tests do that.

load tree
load tpm2

setup()
{
	make_tree 3
	make_tpm
	PIN=$BATS_TEST_TMPDIR/pin
	(umask 077 && echo 1234 >"$PIN")
	qs cryptformat --no-open "${ID}1"
}

teardown()
{
	drop_tpm
}

@test "systemd-cryptenroll enrolled, PCR 7: opened by the TPM, before the key file" {
	systemd_enroll 1 --tpm2-pcrs=7
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(field '.token, .keyslot, .key_file')" = $'1\n1\nnull' ]
}

@test "no PCR, and PIN: opened, with the PIN from a file or a descriptor" {
	NEWPIN=1234 systemd_enroll 1 --tpm2-pcrs= --tpm2-with-pin=yes
	run -0 --separate-stderr qs --json cryptopen --test --pin-file "$PIN" "${ID}1"
	[ "$(field .keyslot)" = 1 ]
	run -0 --separate-stderr qs --json cryptopen --test --pin-fd 7 "${ID}1" 7<"$PIN"
	[ "$(field .keyslot)" = 1 ]
	[ "$(failures)" = 0x0 ]
}

@test "a wrong PIN counts once, and the key file still opens" {
	NEWPIN=1234 systemd_enroll 1 --tpm2-pcrs= --tpm2-with-pin=yes
	echo 4321 >"$PIN"
	run -0 --separate-stderr qs --json cryptopen --test --pin-file "$PIN" "${ID}1"
	[ "$(field .keyslot)" = 0 ]
	[[ $(field .tpm2_problem) == *'PIN is wrong'* ]]
	[ "$(failures)" = 0x1 ]
	rm "$(key_of 1)"
	run -2 --separate-stderr qs --json cryptopen --test --pin-file "$PIN" "${ID}1"
	[ "$(field .error.code)" = pin ]
	[ "$(failures)" = 0x2 ]
}

@test "three wrong PINs of somebody who types them: each is asked for once and counts once" {
	local try
	NEWPIN=1234 systemd_enroll 1 --tpm2-pcrs= --tpm2-with-pin=yes
	rm "$(key_of 1)"
	for try in 1 2 3; do
		run -2 typed "432$try" 'no passphrase' -- cryptopen --test "${ID}1"
		[[ $output == *'PIN is wrong'* ]]
		[ "$(failures)" = "0x$try" ]
	done
	run -0 typed 1234 -- cryptopen --test "${ID}1"
	[ "$(failures)" = 0x3 ]
}

@test "one wrong PIN for three devices counts once" {
	qs cryptformat --no-open "${ID}2" "${ID}3"
	for n in 1 2 3; do NEWPIN=1234 systemd_enroll $n --tpm2-pcrs= --tpm2-with-pin=yes; done
	echo 4321 >"$PIN"
	run -0 qs cryptopenall --test --pin-file "$PIN"
	[ "$(failures)" = 0x1 ]
	echo 1234 >"$PIN"
	run -0 --separate-stderr qs --json cryptopenall --test --pin-file "$PIN"
	[ "$(jq -c '[.devices[].keyslot]' <<<"$output")" = '[1,1,1]' ]
}

@test "without a PIN at hand, a keyslot that wants one is not tried" {
	NEWPIN=1234 systemd_enroll 1 --tpm2-pcrs= --tpm2-with-pin=yes
	run -0 qs cryptopen --test "${ID}1"
	[ "$(failures)" = 0x0 ]
}

@test "a PCR that moved: the key file opens, or the PCR is named: 2" {
	systemd_enroll 1 --tpm2-pcrs=7
	"$SWTPM" measure "$TPM" update 7
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[[ $(field .tpm2_problem) == 'PCR 7 (Secure Boot keys and state) changed since'* ]]
	rm "$(key_of 1)"
	run -2 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(field .error.code)" = tpm-pcr ]
	[[ $(field .error.message) == 'PCR 7 (Secure Boot keys and state) changed since'* ]]
}

@test "the disk in another machine, or after the TPM was cleared: 2, said as such" {
	systemd_enroll 1 --tpm2-pcrs=
	rm "$(key_of 1)"
	TPM2TOOLS_TCTI=swtpm:path=$TPM/s tpm2_clear
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'sealed by another TPM, or before this TPM was cleared'* ]]
	"$SWTPM" crash "$TPM"
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'cannot reach the TPM'* ]]
	echo 'tpm2_device = "none";' >"$ROOT/etc/cryptconf/qs-util.conf"
	run -2 qs cryptopen --test "${ID}1"
}

@test "a TPM in lockout is left alone for all devices" {
	qs cryptformat --no-open "${ID}2"
	NEWPIN=1234 systemd_enroll 1 --tpm2-pcrs= --tpm2-with-pin=yes
	systemd_enroll 2 --tpm2-pcrs=
	TPM2TOOLS_TCTI=swtpm:path=$TPM/s tpm2_dictionarylockout -s -n 1 -t 1000 -l 1000
	echo 4321 >"$PIN"
	qs cryptopen --test --pin-file "$PIN" "${ID}1"
	echo 1234 >"$PIN"
	"$SWTPM" proxy "$TPM" count
	use_tpm "$TPM/p"
	run -0 --separate-stderr qs --json cryptopenall --test --pin-file "$PIN"
	[ "$(jq -c '[.devices[].keyslot]' <<<"$output")" = '[0,0]' ]
	[ "$(grep -c '0x157\|0x176' "$TPM/commands")" -eq 1 ] # one Load or StartAuthSession, refused
	[[ $(field .tpm2_problem) == *'locked after too many wrong PINs'* ]]
}

# fails_to RULE WORDS STATUS [SETTING...]: with a TPM behind this rule, the key file opens and the
# answer has these words; without the key file nothing opens, with this exit status.
fails_to()
{
	"$SWTPM" proxy "$TPM" "$1"
	use_tpm "$TPM/p" "${@:4}"
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(field .keyslot)" = 0 ]
	[[ $(field .tpm2_problem) == *$2* ]]
	"$SWTPM" proxy "$TPM" "$1"
	"$SWTPM" flush "$TPM" # no resource manager does it
	mv "$(key_of 1)" "$BATS_TEST_TMPDIR/key"
	run "-$3" --separate-stderr qs --json cryptopen --test "${ID}1"
	[[ $(field .error.message) == *$2* ]]
	mv "$BATS_TEST_TMPDIR/key" "$(key_of 1)"
	"$SWTPM" proxy "$TPM" count
	"$SWTPM" flush "$TPM"
}

@test "a TPM that answers garbage, at once or in the end, or hangs up: the key file opens" {
	systemd_enroll 1 --tpm2-pcrs=7
	fails_to garbage 'while unsealing' 2
	fails_to gone 'while unsealing' 2
	fails_to babble 'while connecting' 2
}

@test "a TPM that never answers, or not in the end: the key file opens after the deadline" {
	systemd_enroll 1 --tpm2-pcrs=7
	fails_to never 'did not answer within 1 second' 1 'tpm2_deadline = 1;'
	fails_to silent 'did not answer within 1 second' 1 'tpm2_deadline = 1;'
}

@test "three devices, one session: the parent key is made once" {
	qs cryptformat --no-open "${ID}2" "${ID}3"
	for n in 1 2 3; do systemd_enroll $n --tpm2-pcrs=7; done
	"$SWTPM" proxy "$TPM" count
	use_tpm "$TPM/p"
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq -c '[.devices[].token]' <<<"$output")" = '[1,1,1]' ]
	# Four per token: Load, Unseal, FlushContext, PolicyPCR. For all of them: CreatePrimary,
	# Startup, StartAuthSession, GetCapability, PCR_Read, and the end of the first and third.
	[ "$(sort "$TPM/commands" | uniq -c | xargs)" = '1 0x131 1 0x144 3 0x157 3 0x15e 5 0x165 1 0x176 1 0x17a 1 0x17e 3 0x17f' ]
}

@test "a device is opened while the TPM is still asked for the next" {
	local pid
	qs cryptformat --no-open "${ID}2"
	for n in 1 2; do systemd_enroll $n --tpm2-pcrs=7; done
	"$SWTPM" proxy "$TPM" hold:1
	use_tpm "$TPM/p"
	qs --json --progress=json cryptopenall --test >"$TPM/out" 2>"$TPM/progress" 3>&- &
	pid=$!
	until grep -q '"done".*"device":"[^"]*1"' "$TPM/progress"; do
		kill -0 $pid
		sleep 0.05
	done
	run ! grep 'device":"[^"]*2"' "$TPM/progress"
	touch "$TPM/go"
	wait $pid
	[ "$(jq -c '[.devices[].token]' "$TPM/out")" = '[1,1]' ]
}

@test "the time that a silent TPM takes is not taken from that of opening; nobody is left behind" {
	qs cryptformat --no-open "${ID}2"
	for n in 1 2; do systemd_enroll $n --tpm2-pcrs=7; done
	"$SWTPM" proxy "$TPM" never
	use_tpm "$TPM/p" 'tpm2_deadline = 3;' 'open_deadline = 2;'
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq -c '[.devices[] | .keyslot, (.tpm2_problem | test("within 3 seconds"))]' <<<"$output")" = '[0,true,0,true]' ]
	run -1 pgrep -f -- "--root=$ROOT"
}

@test "a key file or passphrase that is named keeps the TPM out" {
	systemd_enroll 1 --tpm2-pcrs=7
	"$SWTPM" proxy "$TPM" count
	use_tpm "$TPM/p"
	run -0 qs cryptopen --test "${ID}1" "$(key_of 1)"
	[ ! -s "$TPM/commands" ]
	run -64 qs cryptopen --test --pin-file "$PIN" "${ID}1" "$(key_of 1)"
}

@test "a planted volume with a token of ours: refused; the TPM and people are not asked: 6" {
	systemd_enroll 1 --tpm2-pcrs=7
	rm "$(key_of 1)"
	"$QS_BUILD/tests/unit/mkheader" "$(image_of 1)" null-cipher
	"$SWTPM" proxy "$TPM" count
	use_tpm "$TPM/p"
	run -6 typed 'a passphrase' -- cryptopen --test "${ID}1"
	[[ $output == *'cipher_null-ecb, which does not encrypt'* ]]
	[[ $output != *Passphrase* ]]
	[ ! -s "$TPM/commands" ]
}

# token_edit FILTER: the token of disk 1 through jq.
token_edit()
{
	jq -c "$1" <"$BATS_TEST_TMPDIR/token" >"$BATS_TEST_TMPDIR/edited"
	cryptsetup token import --token-id 1 --token-replace --disable-external-tokens \
		--json-file "$BATS_TEST_TMPDIR/edited" "$(image_of 1)"
}

@test "tokens that no systemd wrote: the field is named, the TPM not asked, and the key file opens" {
	local row
	NEWPIN=1234 systemd_enroll 1 --tpm2-pcrs=7 --tpm2-with-pin=yes
	cryptsetup token export --token-id 1 "$(image_of 1)" >"$BATS_TEST_TMPDIR/token"
	"$SWTPM" proxy "$TPM" count
	use_tpm "$TPM/p"
	for row in \
		'tpm2-pcr-bank ."tpm2-pcr-bank" = "sha3"' \
		'tpm2-pcr-bank ."tpm2-pcr-bank" = 7' \
		'tpm2-primary-alg ."tpm2-primary-alg" = "dsa"' \
		'tpm2-pcrs ."tpm2-pcrs" = [24]' \
		'tpm2-pcrs ."tpm2-pcrs" = {}' \
		'tpm2-pcrs ."tpm2-pcrs" = [range(300) | 7]' \
		'tpm2-pin ."tpm2-pin" = "yes"' \
		'tpm2-policy-hash ."tpm2-policy-hash" = "00"' \
		'tpm2-blob ."tpm2-blob" = ("A" * 8000)' \
		'tpm2-blob ."tpm2-blob" = "AAAAAA=="' \
		'tpm2-blob ."tpm2-blob" = 1' \
		'tpm2_salt .tpm2_salt = "AA=="' \
		'tpm2_srk .tpm2_srk = [1]' \
		'tpm2_argon2id_memcost .tpm2_argon2id_memcost = -1' \
		'tpm2_pubkey .tpm2_pubkey_pcrs = [11]'; do
		token_edit "${row#* }"
		run -0 --separate-stderr qs --json cryptopen --test --pin-file "$PIN" "${ID}1"
		[[ $(field .tpm2_problem) == *"field ${row%% *} is"* ]]
	done
	run ! grep -q 0x131 "$TPM/commands" # CreatePrimary
}

@test "a token that wants a costly PIN: refused before it is computed, and nothing counted" {
	NEWPIN=1234 systemd_enroll 1 --tpm2-pcrs=7 --tpm2-with-pin=yes
	cryptsetup token export --token-id 1 "$(image_of 1)" >"$BATS_TEST_TMPDIR/token"
	token_edit '.tpm2_salt = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" | .tpm2_argon2id_lanes = 4 |
		.tpm2_argon2id_iterations = 4 | .tpm2_argon2id_memcost = 1099511627776'
	run -0 --separate-stderr qs --json cryptopen --test --pin-file "$PIN" "${ID}1"
	[[ $(field .tpm2_problem) == *max_kdf_memory* ]]
	token_edit '.tpm2_salt = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" | .tpm2_argon2id_lanes = 4 |
		.tpm2_argon2id_iterations = 4000000000 | .tpm2_argon2id_memcost = 1024'
	run -0 --separate-stderr qs --json cryptopen --test --pin-file "$PIN" "${ID}1"
	[[ $(field .tpm2_problem) == *max_kdf_time* ]]
	token_edit '.tpm2_salt = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" | .tpm2_argon2id_lanes = 17 |
		.tpm2_argon2id_iterations = 4 | .tpm2_argon2id_memcost = 1024'
	run -0 --separate-stderr qs --json cryptopen --test --pin-file "$PIN" "${ID}1"
	[[ $(field .tpm2_problem) == *'17 Argon2 lanes'* ]]
	[ "$(failures)" = 0x0 ]
}

@test "what the TPM gives is for its token's keyslots, and tried on no other" {
	systemd_enroll 1 --tpm2-pcrs=7
	cryptsetup token export --token-id 1 "$(image_of 1)" >"$BATS_TEST_TMPDIR/token"
	token_edit '.keyslots = ["0"]'
	rm "$(key_of 1)"
	run -2 qs cryptopen --test "${ID}1"
	token_edit '.keyslots = ["1"]'
	run -0 qs cryptopen --test "${ID}1"
}

@test "a revoked keyslot that comes back with an old header: the TPM is not asked for it" {
	local image
	image=$(image_of 1)
	qs cryptenroll "${ID}1" --tpm2
	cp "$image" "$BATS_TEST_TMPDIR/old"
	qs --yes cryptenroll "${ID}1" --wipe tpm2
	dd if="$BATS_TEST_TMPDIR/old" of="$image" conv=notrunc status=none
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(field .keyslot)" = 0 ]
	[[ $(field .tpm2_problem) == *'older than its backup'*'were revoked'* ]]
	# Changed until it has the sequence id of the backup.
	while [ "$(qs --json cryptstatus "${ID}1" | jq '.devices[0].backup.agrees')" = false ]; do
		cryptsetup config --label x "$image"
	done
	rm "$(key_of 1)"
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'older than its backup, or another one of its age'* ]]
	# It is what the administrator wants.
	qs cryptbackup "${ID}1"
	run -0 qs cryptopen --test "${ID}1"
}

@test "a module that others may write to is not loaded" {
	systemd_enroll 1 --tpm2-pcrs=7
	rm "$(key_of 1)"
	mkdir "$BATS_TEST_TMPDIR/bin"
	cp -r "$QS_UTIL" "$QS_BUILD/modules" "$BATS_TEST_TMPDIR/bin"
	QS_UTIL=$BATS_TEST_TMPDIR/bin/qs-util
	chmod -R go-w "$BATS_TEST_TMPDIR/bin"
	run -0 qs cryptopen --test "${ID}1"
	chmod g+w "$BATS_TEST_TMPDIR/bin/modules/tpm2.so"
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'may write to'*'tpm2.so'* ]]
	chmod go-w "$BATS_TEST_TMPDIR/bin/modules/tpm2.so"
	chmod o+w "$BATS_TEST_TMPDIR/bin/modules"
	run -2 qs cryptopen --test "${ID}1"
	rm -r "$BATS_TEST_TMPDIR/bin/modules"
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'module tpm2'*'not installed'* ]]
}

@test "a hostile driver name in the configuration is refused: 78" {
	for bad in /tmp/evil.so:x ../evil:x 'device' 'swtpm:a b' ''; do
		printf 'tpm2_device = "%s";\n' "$bad" >"$ROOT/etc/cryptconf/qs-util.conf"
		run -78 qs cryptopen --test "${ID}1"
	done
}
