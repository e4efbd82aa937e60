# A software TPM beside a scratch system: "load tree", "load tpm2", then
# make_tpm in setup() and drop_tpm in teardown().
# shellcheck shell=bash

SWTPM=$BATS_TEST_DIRNAME/../swtpm

# The TPM's directory has to be short: its socket's path goes into 107 bytes.
make_tpm()
{
	TPM=$(mktemp -d "${TMPDIR:-/tmp}/qs-tpm-XXXXXX")
	"$SWTPM" start "$TPM"
	"$SWTPM" measure "$TPM" booted 0 2 7 11
	use_tpm "$TPM/s"
}

# make_tpm_tree LINK...: as many disks, formatted, and the TPM; IMAGE is the first one.
make_tpm_tree()
{
	make_tree $#
	make_tpm
	qs cryptformat --no-open "$@"
	# shellcheck disable=SC2034 # used by tests
	IMAGE=$(image_of 1)
}

drop_tpm()
{
	[ ! -e "$TPM/pid" ] || "$SWTPM" crash "$TPM"
	rm -r "$TPM"
}

# use_tpm SOCKET [SETTING...]: what qs-util takes for the TPM.
use_tpm()
{
	mkdir -p "$ROOT/etc/cryptconf"
	{
		printf 'tpm2_device = "swtpm:path=%s";\n' "$1"
		shift
		printf '%s\n' "$@"
	} >"$ROOT/etc/cryptconf/qs-util.conf"
}

# The counter that would lock the TPM.
failures()
{
	TPM2TOOLS_TCTI=swtpm:path=$TPM/s tpm2_getcap properties-variable |
		sed -n 's/^TPM2_PT_LOCKOUT_COUNTER: *//p'
}

# systemd_enroll N OPTION...: disk N, unlocked by its key file; NEWPIN is the PIN.
systemd_enroll()
{
	local n=$1
	shift
	systemd-cryptenroll --unlock-key-file="$(key_of "$n")" --tpm2-device="swtpm:path=$TPM/s" "$@" \
		"$(image_of "$n")"
	"$SWTPM" flush "$TPM"
}

# field JQ: of the first device in $output.
field()
{
	# shellcheck disable=SC2154 # set by run
	jq -r ".devices[0] | $1" <<<"$output"
}

# make_signer DIR: key.pem and pub.pem, for signed policies.
make_signer()
{
	openssl genrsa -out "$1/key.pem" 2048 2>/dev/null
	openssl rsa -in "$1/key.pem" -pubout -out "$1/pub.pem" 2>/dev/null
}

# sign_state DIR: systemd's file of signatures, with one for what PCR 11 is now.
sign_state()
{
	TPM2TOOLS_TCTI=swtpm:path=$TPM/s tpm2_pcrread -Q -o "$1/values" sha256:11
	{
		head -c 32 /dev/zero
		printf '0000017f00000001000b03000800' | xxd -r -p
		openssl dgst -sha256 -binary "$1/values"
	} | openssl dgst -sha256 -binary >"$1/pol"
	openssl dgst -sha256 -sign "$1/key.pem" -out "$1/sig" "$1/pol"
	mkdir -p "$ROOT/etc/systemd"
	jq -n --arg pol "$(xxd -p -c 64 "$1/pol")" --arg sig "$(base64 -w 0 "$1/sig")" --arg fp \
		"$(openssl rsa -pubin -in "$1/pub.pem" -RSAPublicKey_out -outform DER 2>/dev/null | sha256sum | cut -d' ' -f1)" \
		'{sha256: [{pcrs: [11], pkfp: $fp, pol: $pol, sig: $sig}]}' >"$ROOT/etc/systemd/tpm2-pcr-signature.json"
}
