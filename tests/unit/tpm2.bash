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
