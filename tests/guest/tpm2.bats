#!/usr/bin/env bats
# A TPM that the kernel drives: what we enrol, stock tools open and map; what
# systemd-cryptenroll enrols, we open and map; after a restart, too. What stock
# tools open though it is not ours, and where it is not to be opened, we refuse.
#
# guest: --disk scsi:a:32M --disk scsi:b:32M --disk scsi:c:32M --disk scsi:d:32M
# guest-boots: 4
# guest-boot 1: --tpm @state/tpm
# guest-boot 2: --tpm @state/tpm
# guest-boot 3: --tpm @state/other-tpm

# shellcheck disable=SC2030,SC2031 # $output is read by functions of the same test
load lib
load luks2
load tpm2

readonly PIN_FILE=/root/pin SAFE=/root/keys

# The name of the disk with serial $1, as qs-util gives it.
name_of()
{
	echo "enc-scsi-0QEMU_QEMU_HARDDISK_$1"
}

key_of()
{
	echo "/etc/cryptconf/keys/$(name_of "$1").key"
}

# fields JQ: of all devices in $output.
fields()
{
	jq -c "[.devices[] | $1]" <<<"$output"
}

is_open()
{
	[ -b "/dev/mapper/$1" ]
}

# stock COMMAND...: it opens the mapping "stock", which is closed again.
stock()
{
	"$@" </dev/null
	is_open stock
	cryptsetup close stock
}

attach()
{
	timeout 60 /lib/systemd/systemd-cryptsetup attach stock "$1" none "headless=1,$2"
}

# by_us SERIAL SLOT [OPTION...]: our cryptopen opens it by this keyslot and a token.
by_us()
{
	local serial=$1 slot=$2
	shift 2
	run -0 --separate-stderr qs-util --json cryptopen "$@" "$(dev_of "$serial")"
	[ "$(fields '.keyslot, .token != null')" = "[$slot,true]" ]
	is_open "$(name_of "$serial")"
	qs-util cryptclose "$(dev_of "$serial")"
}

systemd_enrolls()
{
	local serial=$1
	shift
	systemd-cryptenroll --tpm2-device=auto --unlock-key-file="$(key_of "$serial")" "$@" \
		"$(dev_of "$serial")"
}

@test "boot 1: there is a TPM, and something was measured into PCR 7" {
	[ -c /dev/tpmrm0 ]
	run ! grep -qE '^0+$' /sys/class/tpm/tpm0/pcr-sha256/7
	(umask 077 && echo 1234 >$PIN_FILE)
	qs-util cryptformat --no-open "$(dev_of a)" "$(dev_of b)" "$(dev_of c)" "$(dev_of d)"
}

@test "boot 1: enrolled by us: cryptsetup and systemd open it" {
	qs-util cryptenroll "$(dev_of a)" --tpm2
	stock cryptsetup open --token-only "$(dev_of a)" stock
	stock cryptsetup open "$(dev_of a)" stock
	stock attach "$(dev_of a)" tpm2-device=auto
	stock attach "$(dev_of a)" luks
	by_us a 1
}

@test "boot 1: enrolled by us with a PIN: they open it" {
	qs-util cryptenroll "$(dev_of b)" --tpm2 --pcrs none --pin-file $PIN_FILE
	cryptsetup open --token-only "$(dev_of b)" stock <$PIN_FILE
	is_open stock
	cryptsetup close stock
	PIN=1234 stock attach "$(dev_of b)" tpm2-device=auto
	by_us b 1 --pin-file $PIN_FILE
}

@test "boot 1: enrolled by systemd-cryptenroll, PCR 7, no PCR, PIN: we open it" {
	systemd_enrolls c --tpm2-pcrs=7
	by_us c 1
	systemd_enrolls d --tpm2-pcrs=
	by_us d 1
	NEWPIN=1234 systemd_enrolls d --tpm2-pcrs=0+7 --tpm2-with-pin=yes
	qs-util --yes cryptenroll "$(dev_of d)" --wipe 1
	by_us d 2 --pin-file $PIN_FILE
	sync
}

@test "boot 2: after a restart, all by the TPM in one go, without a key file" {
	mkdir $SAFE
	mv /etc/cryptconf/keys/* $SAFE/
	run -0 --separate-stderr qs-util --json cryptopenall --pin-file $PIN_FILE
	[ "$(fields '.token != null')" = '[true,true,true,true]' ]
	for disk in a b c d; do is_open "$(name_of $disk)"; done
	qs-util cryptcloseall
	stock cryptsetup open --token-only "$(dev_of a)" stock
}

# refused WORDS: disk a, with these words, while the others open; and nothing is mapped.
refused()
{
	run -6 qs-util cryptopen "$(dev_of a)"
	[[ $output == *$1* ]]
	run -7 qs-util cryptopenall --pin-file $PIN_FILE
	[[ $output == *$1* ]]
	run ! is_open "$(name_of a)"
	qs-util cryptcloseall
}

# plant: a volume of the attacker on disk a, under the UUID, label and token of ours; he has no
# more than the disk.
plant()
{
	local disk label
	disk=$(dev_of a)
	label=$(name_of a)
	cryptsetup token export --token-id 1 "$disk" >/root/token
	head -c 64 /dev/urandom >/root/planted.key
	cryptsetup luksFormat -q "${FAST_PBKDF[@]}" --sector-size 4096 \
		--uuid "$(cryptsetup luksUUID "$disk")" --label "$label" --subsystem qs-util \
		"$disk" /root/planted.key
	cryptsetup luksAddKey -q "${FAST_PBKDF[@]}" --key-file /root/planted.key "$disk" /root/planted.key
	cryptsetup token import --token-id 1 --json-file /root/token "$disk"
}

@test "boot 2: a planted volume with our UUID, label and token: refused before its key is tried" {
	dd if="$(dev_of a)" of=/root/genuine bs=1M status=none
	plant
	refused 'not the one that was backed up'
}

@test "boot 2: the same with a keyslot that any passphrase opens: stock tools open it, we do not" {
	luks2_null_keyslot "$(dev_of a)" 1 /root/planted.key
	stock cryptsetup open --token-only "$(dev_of a)" stock
	stock attach "$(dev_of a)" tpm2-device=auto
	refused 'keyslot 1 uses cipher_null-ecb, which does not encrypt'
}

@test "boot 2: the genuine header with a null cipher for the data: stock tools open it, we do not" {
	dd if=/root/genuine of="$(dev_of a)" bs=1M conv=fsync status=none
	luks2_edit "$(dev_of a)" '.segments["0"].encryption = "cipher_null-ecb"'
	stock cryptsetup open --token-only "$(dev_of a)" stock
	refused 'the data segment uses cipher_null-ecb, which does not encrypt'
	dd if=/root/genuine of="$(dev_of a)" bs=1M conv=fsync status=none
	by_us a 1
}

@test "boot 2: another state of the machine: closed, the PCR is named, enrolled anew it opens" {
	extend_pcr_7
	run -2 qs-util cryptopen "$(dev_of a)"
	[[ $output == *'PCR 7 (Secure Boot keys and state) changed'* ]]
	run ! is_open "$(name_of a)"
	by_us b 1 --pin-file $PIN_FILE # not bound to PCRs
	mv $SAFE/* /etc/cryptconf/keys/
	run -0 qs-util cryptenroll "$(dev_of a)" --tpm2
	run -0 qs-util cryptenroll "$(dev_of a)" --test --tpm2
	sync
}

@test "boot 3: in another machine: closed, said why, and the key file opens" {
	mv /etc/cryptconf/keys/* $SAFE/
	run -2 qs-util cryptopen --pin-file $PIN_FILE "$(dev_of b)"
	[[ $output == *'sealed by another TPM'* ]]
	run ! is_open "$(name_of b)"
	mv $SAFE/* /etc/cryptconf/keys/
	run -0 --separate-stderr qs-util --json cryptopen --pin-file $PIN_FILE "$(dev_of b)"
	[[ $(fields .tpm2_problem) == *'sealed by another TPM'* ]]
	qs-util cryptclose "$(dev_of b)"
	sync
}

@test "boot 4: in a machine without a TPM: closed, said why, and the key file opens" {
	run -0 qs-util cryptopen "$(dev_of a)"
	qs-util cryptclose "$(dev_of a)"
	rm "$(key_of a)"
	run -2 qs-util cryptopen "$(dev_of a)"
	[[ $output == *'no TPM 2.0'* ]]
	run ! is_open "$(name_of a)"
}
