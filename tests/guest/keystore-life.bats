#!/usr/bin/env bats
# The life of a keystore on the TPM: six disks formatted, two restarts, rotations, a disk that was
# pulled meanwhile, recovery by stock tools, a disk that was destroyed and came back, and its end.
#
# guest: --disk scsi:a:24M --disk scsi:b:24M --disk scsi:c:24M --disk scsi:d:24M --disk scsi:e:24M --disk scsi:f:24M
# guest: --tpm @state/tpm --copy /usr/bin/jose:/usr/bin/jose
# guest-boots: 3

# shellcheck disable=SC2030,SC2031 # $output is read by functions of the same test
load lib

readonly BASE=scsi-0QEMU_QEMU_HARDDISK_
readonly LINKS=/dev/disk/by-id/$BASE

settled_disks()
{
	local serial
	for serial in $GUEST_DISKS; do
		dev_of "$serial" >/dev/null
	done
	settle
}

# all_at GENERATION: none is open yet, all six open, by that generation.
all_at()
{
	[ -z "$(find /dev/mapper -name 'enc-scsi-*')" ]
	qs-util --json cryptopenall |
		jq -e --argjson g "$1" '[.devices[].keystore_generation] == [$g, $g, $g, $g, $g, $g]'
	[ "$(find /dev/mapper -name 'enc-scsi-*' | wc -l)" = 6 ]
}

# token_of PLACE: its token; generation_of SERIAL: which the header names.
token_of()
{
	cryptsetup luksDump --dump-json-metadata "$1" | jq -c '.tokens[] | select(.type == "qs-keystore")'
}

generation_of()
{
	token_of "$LINKS$1" | jq .generation
}

# pull SERIAL, plug SERIAL: the disk goes, and comes.
pull()
{
	local node
	node=$(readlink -f "$LINKS$1")
	echo 1 >"/sys/block/${node##*/}/device/delete"
	wait_while test -e "$LINKS$1"
}

plug()
{
	local host
	for host in /sys/class/scsi_host/host*; do
		echo '- - -' >"$host/scan"
	done
	wait_for test -b "$LINKS$1"
	settle
}

# exported GENERATION: its key as /root/N.jwk, by openssl.
exported()
{
	qs-util keystore export --public-key /root/escrow.pub --generation "$1" --output "/root/$1.rsa"
	openssl pkeyutl -decrypt -inkey /root/escrow.key -pkeyopt rsa_padding_mode:oaep \
		-pkeyopt rsa_oaep_md:sha256 -in "/root/$1.rsa" -out "/root/$1.jwk"
}

@test "boot 1: enabled on the TPM, and six disks formatted without a key file" {
	settled_disks
	# Emulated, six at once, on a machine that does other things.
	mkdir -p /etc/cryptconf
	echo 'open_deadline = 120;' >/etc/cryptconf/qs-util.conf
	qs-util --yes keystore enable --provider tpm2
	qs-util cryptformat "$LINKS"[abcdef]
	[ -z "$(ls /etc/cryptconf/keys 2>/dev/null)" ]
	[ "$(grep -c "^enc-$BASE.  $LINKS.  none  luks,noauto" /etc/crypttab)" = 6 ]
	for disk in a b c d e f; do
		echo "data of $disk" >"/dev/mapper/enc-$BASE$disk"
	done
	sync
}

@test "boot 2: all open; rotated" {
	settled_disks
	all_at 1
	for disk in a b c d e f; do
		[ "$(head -c 9 "/dev/mapper/enc-$BASE$disk")" = "data of $disk" ]
	done
	qs-util keystore rotate --force
	qs-util keystore verify
}

@test "boot 3: all open by the new generation; pulled, recovered, destroyed, restored, gone" {
	settled_disks
	all_at 2

	# One is away while the keystore is rotated: it opens when it is back, and follows.
	qs-util cryptclose "${LINKS}f"
	pull f
	qs-util keystore rotate --force
	plug f
	[ "$(generation_of f)" = 2 ]
	qs-util --json --progress=json cryptopenall 2>/root/progress |
		jq -e '[.devices[] | select(.keystore_generation)][0].keystore_generation == 2'
	# One progress only: that of opening, and none of what is brought along.
	jq -es '[.[] | select(.event == "progress")] | length > 0 and ([.[].total] | unique | length) == 1 and
		([.[] | select(.done == .total)] | length) == 1' /root/progress
	[ "$(head -c 9 "/dev/mapper/enc-${BASE}f")" = 'data of f' ]
	for disk in a b c d e f; do
		[ "$(generation_of $disk)" = 3 ]
	done

	# The key leaves the TPM for an escrow, and openssl, jose and cryptsetup open a disk with it.
	openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out /root/escrow.key 2>/dev/null
	openssl pkey -in /root/escrow.key -pubout -out /root/escrow.pub
	exported 3
	qs-util cryptclose "${LINKS}a"
	token_of "${LINKS}a" | jq -c .jwe >/root/a.jwe
	jose jwe dec -i /root/a.jwe -k /root/3.jwk |
		cryptsetup open --key-file - --keyfile-size 64 "${LINKS}a" recovered
	[ "$(head -c 9 /dev/mapper/recovered)" = 'data of a' ]
	cryptsetup close recovered

	# Destroyed, and brought back within the retention time.
	head -c 5M "${LINKS}f" >/root/pre-image
	qs-util --yes cryptdestroy "${LINKS}f"
	run ! cryptsetup isLuks "${LINKS}f"
	qs-util --yes cryptrestore "${LINKS}f"
	qs-util cryptopen "${LINKS}f"
	[ "$(head -c 9 "/dev/mapper/enc-${BASE}f")" = 'data of f' ]

	# Gone for good: with what was on the disk before, and with all that is left here.
	qs-util --yes cryptdestroy "${LINKS}f"
	qs-util keystore rotate --force
	qs-util keystore rotate --force
	[ -e /etc/cryptconf/keystore/3.sealed ]
	qs-util --yes keystore purge --all
	[ ! -e /etc/cryptconf/keystore/3.sealed ]
	dd if=/root/pre-image of="${LINKS}f" conv=fsync,notrunc status=none
	run -2 qs-util cryptopen "${LINKS}f"
	[[ $output == *'generation 3, which the keystore no longer has'* ]]
	token_of "${LINKS}f" | jq -c .jwe >/root/f.jwe
	for number in 4 5; do
		exported $number
		run ! jose jwe dec -i /root/f.jwe -k "/root/$number.jwk" -O /root/f.key
	done
	[ "$(cd /etc/cryptconf/keystore && echo *)" = '4.sealed 5.sealed keystore.json' ]
	[ -z "$(find /etc/cryptconf -name '*f.header')" ]
}
