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

# The fields of the only device in $output.
field()
{
	jq -r ".devices[0].$1" <<<"$output"
}

@test "systemd-cryptenroll enrolled, PCR 7: opened by the TPM, before the key file" {
	systemd_enroll 1 --tpm2-pcrs=7
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(field 'token, .devices[0].keyslot, .devices[0].key_file')" = $'1\n1\nnull' ]
}

@test "no PCR, and PIN: opened, with the PIN from a file or a descriptor" {
	NEWPIN=1234 systemd_enroll 1 --tpm2-pcrs= --tpm2-with-pin=yes
	run -0 --separate-stderr qs --json cryptopen --test --pin-file "$PIN" "${ID}1"
	[ "$(field keyslot)" = 1 ]
	run -0 --separate-stderr qs --json cryptopen --test --pin-fd 7 "${ID}1" 7<"$PIN"
	[ "$(field keyslot)" = 1 ]
	[ "$(failures)" = 0x0 ]
}

@test "a wrong PIN counts once, and the key file still opens" {
	NEWPIN=1234 systemd_enroll 1 --tpm2-pcrs= --tpm2-with-pin=yes
	echo 4321 >"$PIN"
	run -0 --separate-stderr qs --json cryptopen --test --pin-file "$PIN" "${ID}1"
	[ "$(field keyslot)" = 0 ]
	[[ $(field tpm2_problem) == *'PIN is wrong'* ]]
	[ "$(failures)" = 0x1 ]
	rm "$(key_of 1)"
	run -2 --separate-stderr qs --json cryptopen --test --pin-file "$PIN" "${ID}1"
	[ "$(field error.code)" = pin ]
	[ "$(failures)" = 0x2 ]
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
	[[ $(field tpm2_problem) == 'PCR 7 (Secure Boot keys and state) changed since'* ]]
	rm "$(key_of 1)"
	run -2 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(field error.code)" = tpm-pcr ]
	[[ $(field error.message) == 'PCR 7 (Secure Boot keys and state) changed since'* ]]
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
	run -0 --separate-stderr qs --json cryptopenall --test --pin-file "$PIN"
	[ "$(jq -c '[.devices[].keyslot]' <<<"$output")" = '[0,0]' ]
	[[ $(field tpm2_problem) == *'locked after too many wrong PINs'* ]]
}

@test "a TPM that answers garbage: the key file opens" {
	systemd_enroll 1 --tpm2-pcrs=7
	"$SWTPM" proxy "$TPM" garbage
	use_tpm "$TPM/p"
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(field keyslot)" = 0 ]
}

@test "a TPM that never answers: the key file opens after the deadline" {
	systemd_enroll 1 --tpm2-pcrs=7
	"$SWTPM" proxy "$TPM" never
	use_tpm "$TPM/p" 'tpm2_deadline = 1;'
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(field keyslot)" = 0 ]
	[[ $(field tpm2_problem) == *'did not answer within 1 second'* ]]
}

@test "three devices, one session: the parent key is made once" {
	qs cryptformat --no-open "${ID}2" "${ID}3"
	for n in 1 2 3; do systemd_enroll $n --tpm2-pcrs=7; done
	"$SWTPM" proxy "$TPM" count
	use_tpm "$TPM/p"
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq -c '[.devices[].token]' <<<"$output")" = '[1,1,1]' ]
	[ "$(grep -c 0x131 "$TPM/commands")" -eq 1 ] # CreatePrimary
	[ "$(grep -c 0x176 "$TPM/commands")" -eq 2 ] # StartAuthSession
	[ "$(grep -c 0x15e "$TPM/commands")" -eq 3 ] # Unseal
}

@test "a key file or passphrase that is named keeps the TPM out" {
	systemd_enroll 1 --tpm2-pcrs=7
	"$SWTPM" proxy "$TPM" count
	use_tpm "$TPM/p"
	run -0 qs cryptopen --test "${ID}1" "$(key_of 1)"
	[ ! -s "$TPM/commands" ]
	run -64 qs cryptopen --test --pin-file "$PIN" "${ID}1" "$(key_of 1)"
}

@test "a planted volume with the token of ours is refused, not opened by its passphrase: 6" {
	systemd_enroll 1 --tpm2-pcrs=7
	"$QS_BUILD/tests/unit/mkheader" "$(image_of 1)" null-cipher
	run -6 qs cryptopen --test "${ID}1"
	[[ $output == *null* ]]
}

@test "a token that no systemd wrote: said as such, and the key file opens" {
	systemd_enroll 1 --tpm2-pcrs=7
	cryptsetup token export --token-id 1 "$(image_of 1)" |
		jq -c '."tpm2-pcr-bank"="sha3"' >"$BATS_TEST_TMPDIR/token"
	cryptsetup token remove --token-id 1 "$(image_of 1)"
	cryptsetup token import --token-id 1 --disable-external-tokens --json-file "$BATS_TEST_TMPDIR/token" "$(image_of 1)"
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[[ $(field tpm2_problem) == *'tpm2-pcr-bank'* ]]
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
