#!/usr/bin/env bats
# The plugin of libcryptsetup: stock cryptsetup opens by the keystore with no key file, and makes
# the same refusals. It is put where cryptsetup looks in a mount namespace of the test's own.

# shellcheck disable=SC2030,SC2031 # IMAGE is each test's own
load tree
load tpm2
load kmip

setup()
{
	make_tree 2
	IMAGE=$(image_of 1)
	qs cryptformat --no-open "${ID}1" "${ID}2"
	qs --yes keystore enable
	qs cryptenroll "${ID}1" "${ID}2" --keystore
}

teardown()
{
	[ -z "${TPM-}" ] || drop_tpm
}

# with_plugin COMMAND...: as on a machine whose /etc is that of the tree and that has the plugin.
with_plugin()
{
	local sanitizer # wants to be the first library
	sanitizer=$(ldd "$QS_BUILD/libcryptsetup-token-qs-keystore.so" | awk '/libasan/ { print $3 }')
	# shellcheck disable=SC2016 # for the shell inside
	SANITIZER=$sanitizer unshare --map-root-user --mount bash -euc '
		mount --bind "$1" /usr/lib/x86_64-linux-gnu/cryptsetup
		mount --bind "$2/etc" /etc
		shift 2
		exec env ${SANITIZER:+LD_PRELOAD="$SANITIZER" ASAN_OPTIONS=detect_leaks=0} "$@"' - "$(readlink -f "$QS_BUILD")" "$ROOT" "$@" </dev/null
}

by_token()
{
	with_plugin cryptsetup open --test-passphrase --token-only "$@"
}

refused()
{
	run ! by_token "$IMAGE"
	[[ $output == *"$1"* ]]
}

token_number()
{
	cryptsetup luksDump --dump-json-metadata "$1" |
		jq -r '.tokens | to_entries[] | select(.value.type == "qs-keystore") | .key'
}

token()
{
	cryptsetup token export --token-id "$(token_number "$1")" "$1"
}

@test "cryptsetup opens by the token alone, and shows what it is" {
	run ! cryptsetup open --test-passphrase --token-only "$IMAGE" # without the plugin
	before=$(sum "$IMAGE")
	run -0 by_token "$IMAGE"
	[ -z "$output" ]
	run -0 by_token "$(image_of 2)"
	run -0 with_plugin cryptsetup luksDump "$IMAGE"
	[[ $output == *'generation: 1'* ]]
	[[ $output == *"keystore:   $(jq -r .store "$ROOT/etc/cryptconf/keystore/keystore.json")"* ]]
	[ "$(sum "$IMAGE")" = "$before" ]
	# Not by us: what a header names chooses no code.
	rm "$ROOT/etc/cryptconf/keys/"*
	mv "$ROOT/etc/cryptconf/keystore" "$BATS_TEST_TMPDIR/away"
	run -2 with_plugin "$QS_UTIL" cryptopen --test "$IMAGE"
	[[ $output != *'The keystore of qs-util does not open'* ]]
}

@test "a volume that is not the one that was enrolled is refused, as by cryptopen" {
	local old uuid
	old=$(token "$IMAGE")
	uuid=$(cryptsetup luksUUID "$IMAGE")
	printf '{"kty":"oct","alg":"A256GCMKW","k":"%s"}' \
		"$(base64 -w0 "$ROOT/etc/cryptconf/keystore/1.kek" | tr '+/' '-_' | tr -d =)" >"$BATS_TEST_TMPDIR/jwk"
	jq .jwe <<<"$old" | jose jwe dec -i - -k "$BATS_TEST_TMPDIR/jwk" | head -c 64 >"$BATS_TEST_TMPDIR/devkey"
	stock_opens "$IMAGE" "$BATS_TEST_TMPDIR/devkey"
	stock_format "$IMAGE" "$(key_of 1)" --uuid "$uuid" --sector-size 4096
	cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file "$(key_of 1)" \
		"$IMAGE" "$BATS_TEST_TMPDIR/devkey"
	cryptsetup token import --json-file - "$IMAGE" <<<"$old"
	stock_opens "$IMAGE" "$BATS_TEST_TMPDIR/devkey"
	refused 'the volume key is not the one'
	refused 'Type no passphrase'
}

@test "tokens of another device, damaged ones, and a keystore that is lost: a sentence" {
	cryptsetup token remove --token-id "$(token_number "$IMAGE")" "$IMAGE"
	token "$(image_of 2)" | cryptsetup token import --json-file - "$IMAGE"
	refused 'made for another volume'
	cryptsetup token remove --token-id "$(token_number "$IMAGE")" "$IMAGE"
	token "$(image_of 2)" | jq '.jwe.iv = "AAAA"' >"$BATS_TEST_TMPDIR/token"
	# It is not taken in where the plugin is.
	run ! with_plugin cryptsetup token import --json-file "$BATS_TEST_TMPDIR/token" "$IMAGE"
	cryptsetup token import --json-file "$BATS_TEST_TMPDIR/token" "$IMAGE"
	refused 'jwe.iv'
	IMAGE=$(image_of 2)
	chmod 0644 "$ROOT/etc/cryptconf/keystore/1.kek"
	refused 'group or others'
	mv "$ROOT/etc/cryptconf/keystore/1.kek" "$BATS_TEST_TMPDIR"
	refused '1.kek does not exist'
	mv "$ROOT/etc/cryptconf/keystore" "$BATS_TEST_TMPDIR/away"
	refused 'which is not on this machine'
	# Another key still opens it: that is not the plugin's to refuse.
	run -0 with_plugin cryptsetup open --test-passphrase --key-file "$(key_of 2)" "$IMAGE"
}

@test "a header that no honest tool writes gets no key" {
	echo 'max_kdf_iterations = 1000;' >"$ROOT/etc/cryptconf/qs-util.conf"
	cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 2000 --key-file "$(key_of 1)" \
		"$IMAGE" "$(key_of 2)"
	refused 'iterations'
}

@test "it exports what libcryptsetup asks for, and nothing else of ours" {
	local exported
	exported=$(nm -D --defined-only "$QS_BUILD/libcryptsetup-token-qs-keystore.so" | awk '$3 !~ /^__/ { print $3 }')
	[ "$(grep -c '@@CRYPTSETUP_TOKEN_1.0$' <<<"$exported")" = 5 ]
	[ "$(wc -l <<<"$exported")" = 6 ] # and the name of the version
}

@test "a keystore in the TPM: cryptsetup opens by it, and says what the TPM says" {
	make_tpm
	qs --yes cryptenroll "${ID}1" "${ID}2" --wipe keystore
	qs --yes keystore disable
	qs --yes keystore enable --provider tpm2
	qs cryptenroll "${ID}1" --keystore
	run -0 by_token "$IMAGE"
	[ -z "$output" ]
	"$SWTPM" measure "$TPM" update 7
	refused 'PCR 7 changed since it was sealed'
}

@test "a key that stays at a key server opens it, by the server alone" {
	SERVER=$BATS_TEST_TMPDIR/server
	kmip start "$SERVER"
	mkdir "$ROOT/etc/cryptconf/kmip"
	identity client
	servers "$SERVER"
	echo '127.0.0.1 localhost' >"$ROOT/etc/hosts"
	qs --yes keystore migrate --provider kmip-wrap
	run -0 by_token "$IMAGE"
	kmip stop "$SERVER"
	refused 'cannot connect'
}
