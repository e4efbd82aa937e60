#!/usr/bin/env bats
# What somebody who listens on the TPM's bus gets: no secret, no PIN. The secret is
# known to the test because tpm2-tools unseal it, without encryption, as the control.

load tree
load tpm2

setup()
{
	make_tree 1
	make_tpm
	cd "$BATS_TEST_TMPDIR" || return
	(umask 077 && printf 'S3cr3t-P1N' >pin)
	printf 'S3cr3t-P1N' | openssl dgst -sha256 -binary >auth
	qs cryptformat --no-open "${ID}1"
}

teardown()
{
	drop_tpm
}

# recorded FILE ARGUMENT...: qs-util, and what crosses the bus goes to FILE.
recorded()
{
	local file=$1
	shift
	TCTI_PCAP_FILE=$file qs "$@"
}

# unseal_plainly SLOT NAME: the secret of the token for keyslot SLOT goes to NAME, what an
# unprotected Unseal shows on the bus to NAME.bus, the sealed object to NAME.private.
unseal_plainly()
{
	local token auth='' tcti=swtpm:path=$TPM/s
	token=$(cryptsetup luksDump --dump-json-metadata "$(image_of 1)" |
		jq -c --arg slot "$1" '.tokens[] | select(.type == "systemd-tpm2" and .keyslots == [$slot])')
	jq -r '."tpm2-blob"' <<<"$token" | base64 -d >blob
	head -c $((16#$(xxd -p -l 2 blob) + 2)) blob >"$2.private"
	tail -c +$((16#$(xxd -p -l 2 blob) + 3)) blob >public
	export TPM2TOOLS_TCTI=$tcti
	tpm2_createprimary -Q -C o -g sha256 -G ecc256:aes128cfb -c primary.ctx \
		-a 'restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth'
	tpm2_flushcontext -t
	tpm2_load -Q -C primary.ctx -u public -r "$2.private" -c object.ctx
	tpm2_flushcontext -t
	tpm2_startauthsession --policy-session -S session.ctx
	tpm2_policypcr -Q -S session.ctx -l sha256:7
	if [ "$(jq '."tpm2-pin"' <<<"$token")" = true ]; then
		tpm2_policyauthvalue -S session.ctx
		auth=+hex:$(xxd -p -c 64 auth)
	fi
	TPM2TOOLS_TCTI=pcap:$tcti TCTI_PCAP_FILE=$2.bus \
		tpm2_unseal -c object.ctx -p "session:session.ctx$auth" -o "$2"
	"$SWTPM" flush "$TPM"
	base64 -w 0 "$2" >"$2.base64"
	cryptsetup open --test-passphrase --key-slot "$1" --key-file "$2.base64" "$(image_of 1)"
}

# shows BUS FILE: eight bytes in a row of FILE are in BUS.
shows()
{
	python3 -c 'import sys
bus, text = (open(name, "rb").read() for name in sys.argv[1:])
sys.exit(not any(text[i : i + 8] in bus for i in range(len(text) - 7)))' "$@"
}

# listen SLOT [OPTION...]: enrol into keyslot SLOT, open, enrol anew after an update.
listen()
{
	local slot=$1 bus text
	shift
	use_tpm "$TPM/s"
	sed -i 's/"swtpm/"pcap:swtpm/' "$ROOT/etc/cryptconf/qs-util.conf"
	recorded enrol cryptenroll "${ID}1" --tpm2 "$@"
	unseal_plainly "$slot" first
	recorded open cryptopen --test "$@" "${ID}1"
	"$SWTPM" measure "$TPM" update 7
	recorded again cryptenroll "${ID}1" --tpm2 "$@"
	unseal_plainly $((slot + 1)) second
	shows enrol first.private
	shows open first.private
	shows again second.private
	shows first.bus first # the control: this is how it would look
	for bus in enrol open again; do
		for text in first first.base64 second second.base64 pin auth; do
			run ! shows $bus $text
		done
	done
}

@test "without a PIN: enrolling, opening, enrolling anew" {
	listen 1
}

@test "with a PIN: enrolling, opening, enrolling anew" {
	listen 1 --pin-file "$BATS_TEST_TMPDIR/pin"
}
