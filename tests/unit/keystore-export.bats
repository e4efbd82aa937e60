#!/usr/bin/env bats
# Export of the keystore's key: stock tools open it and, with it, the disk; keys that are not
# fit are refused, and nothing is replaced unasked.

load tree

setup_file()
{
	cd "$BATS_FILE_TMPDIR" || return
	openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out escrow.key
	openssl pkey -in escrow.key -pubout -out escrow.pub
}

setup()
{
	make_tree 1
	cd "$BATS_TEST_TMPDIR" || return
	KEYS=$BATS_FILE_TMPDIR
	KEYSTORE=$ROOT/etc/cryptconf/keystore
	IMAGE=$(image_of 1)
}

# opened FILE: what the owner of the private key makes of it.
opened()
{
	openssl pkeyutl -decrypt -inkey "$KEYS/escrow.key" -pkeyopt rsa_padding_mode:oaep \
		-pkeyopt rsa_oaep_md:sha256 -in "$1"
}

# refused STATUS TEXT ARGUMENT...: and no file is made.
refused()
{
	local status=$1 text=$2
	shift 2
	run "-$status" qs keystore export "$@" --output out
	[[ $output == *"$text"* ]]
	[ ! -e out ]
}

@test "the exported key is the generation's, for the private key alone" {
	qs --yes keystore enable
	run -0 --separate-stderr qs --json keystore export --public-key "$KEYS/escrow.pub" --output kek
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '.result | [.generation, .file, .size, .key_bits]' <<<"$output")" = '[1,"kek",384,3072]' ]
	[ "$(stat -c '%a %s' kek)" = '600 384' ]
	opened kek >jwk
	jq -r '.k + "="' jwk | tr '_-' '/+' | base64 -d | cmp - "$KEYSTORE/1.kek"
	[ "$(jq -c '[.kty, .alg, .kid]' jwk)" = "[\"oct\",\"A256GCMKW\",\"$(jq -r .store "$KEYSTORE/keystore.json")/1\"]" ]
	# To a pipe, and of a generation by its number; each encryption is another text.
	qs keystore export --generation 1 --public-key "$KEYS/escrow.pub" | cat >piped
	opened piped | cmp - jwk
	run ! cmp piped kek
	run ! grep -aF "$(jq -r .k jwk)" kek
	run -5 qs keystore export --public-key "$KEYS/escrow.pub" --output kek
	run -0 qs keystore export --public-key "$KEYS/escrow.pub" --output kek --force
	opened kek | cmp - jwk
}

@test "the manual's recovery opens the device, word by word, without us" {
	local recipe
	recipe=$(recipe 'Recovery without')
	[[ $recipe == *pkeyutl*jose* ]]
	qs cryptformat --no-open "${ID}1"
	qs --yes keystore enable
	qs cryptenroll "${ID}1" --recovery-key recovery
	qs cryptenroll "${ID}1" --keystore
	qs keystore export --public-key "$KEYS/escrow.pub" --output kek.rsa
	qs --yes cryptenroll "${ID}1" --wipe recovery
	rm -r "$ROOT/etc/cryptconf"
	# Only where things are is another place, and the host maps nothing.
	recipe=${recipe//\/root\/escrow.key/$KEYS/escrow.key}
	recipe=${recipe//\/root\/kek.rsa/$PWD/kek.rsa}
	recipe=${recipe//\/dev\/sdj/$IMAGE}
	recipe=${recipe//\/dev\/shm/$PWD}
	recipe=${recipe/cryptsetup open/cryptsetup open --test-passphrase}
	run -0 bash -euo pipefail -c "$recipe"
	head -c 384 /dev/urandom >kek.rsa
	run ! bash -euo pipefail -c "$recipe"
}

@test "keys that are not fit are refused with a sentence" {
	qs --yes keystore enable
	openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 2>/dev/null | openssl pkey -pubout -out small
	openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 | openssl pkey -pubout -out ec
	openssl genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:3072 2>/dev/null | openssl pkey -pubout -out pss
	openssl req -x509 -new -key "$KEYS/escrow.key" -subj /CN=x -days 2 -out certificate
	refused 1 '2048 bits; at least 3072' --public-key small
	refused 1 'no RSA key for encryption' --public-key ec
	refused 1 'no RSA key for encryption' --public-key pss
	refused 1 'has no place on this machine' --public-key "$KEYS/escrow.key"
	refused 1 'openssl x509' --public-key certificate
	refused 1 'no public key' --public-key "$KEYSTORE/keystore.json"
	head -c 200 "$KEYS/escrow.pub" >truncated
	refused 1 'no public key' --public-key truncated
	: >empty
	refused 1 'no public key' --public-key empty
	refused 1 'No such file' --public-key absent
	# The modulus of a good key with the exponent 1, which would encrypt nothing.
	python3 - "$(openssl rsa -pubin -in "$KEYS/escrow.pub" -noout -modulus | sed 's/.*=//')" <<-'END' >asn1
		import sys
		print("asn1=SEQUENCE:key\n[key]\na=SEQUENCE:algorithm\nb=BITWRAP,SEQUENCE:rsa\n[algorithm]\n"
		      "a=OID:rsaEncryption\nb=NULL\n[rsa]\nn=INTEGER:0x" + sys.argv[1] + "\ne=INTEGER:1")
	END
	openssl asn1parse -genconf asn1 -noout -out one.der
	openssl base64 -in one.der | sed '1i-----BEGIN PUBLIC KEY-----
		$a-----END PUBLIC KEY-----' >one
	openssl rsa -pubin -in one -noout -text | grep -q 'Exponent: 1 '
	refused 1 'not safe' --public-key one
}

@test "what cannot be exported, and where it cannot go" {
	refused 1 'disabled' --public-key "$KEYS/escrow.pub"
	qs --yes keystore enable
	refused 1 'no generation 2' --public-key "$KEYS/escrow.pub" --generation 2
	refused 64 'needs --public-key'
	run -64 qs --json keystore export --public-key "$KEYS/escrow.pub"
	[[ $output == *'standard output'* ]]
	run -64 qs keystore status --public-key "$KEYS/escrow.pub"
	run -1 qs keystore export --public-key "$KEYS/escrow.pub" --output .
	run -1 qs keystore export --public-key "$KEYS/escrow.pub" --output absent/kek
	run -64 typed -- keystore export --public-key "$KEYS/escrow.pub"
	[[ $output == *'not written to a terminal'* ]]
	mv "$KEYSTORE/1.kek" away
	refused 2 '1.kek' --public-key "$KEYS/escrow.pub"
}
