#!/usr/bin/env bats
# Every example of the manual, as it is printed, on a machine with twelve SCSI
# disks. tests/unit/manual.bats fails when an example has no run here.
#
# guest: --disk scsi:a:20M --disk scsi:b:20M --disk scsi:c:20M --disk scsi:d:20M
# guest: --disk scsi:e:20M --disk scsi:f:20M --disk scsi:g:20M --disk scsi:h:20M
# guest: --disk scsi:i:20M --disk scsi:j:20M:wwn=0x5001517bb282023a
# guest: --disk scsi:k:20M --disk scsi:l:20M --tpm @state/tpm --host @dir/key-server:both

load lib

readonly NAME=enc-scsi-35001517bb282023a
readonly SERIALS=(a b c d e f g h i j k l)

# The kernel probes disks at the same time and gives letters as they come; one
# after the other they get the letters that their serials say.
setup_file()
{
	local target letter delete
	for delete in /sys/block/sd*/device/delete; do
		echo 1 >"$delete"
	done
	for target in "${!SERIALS[@]}"; do
		letter=${SERIALS[target]}
		echo "0 $target 0" >"$(echo /sys/class/scsi_host/host*/scan)"
		wait_for test -b "/dev/sd$letter"
	done
	settle
}

# example LINE [ANSWER]: "qs-util LINE" succeeds, exactly as the manual has it; on a
# terminal where ANSWER is typed, once it asks, if there is one.
example()
{
	if [[ $# -eq 1 ]]; then
		bash -c "qs-util $1"
	else
		: >/run/terminal
		(wait_for grep -Eqi 'type|passphrase' /run/terminal && echo "$2") |
			script -qefc "qs-util $1" /run/terminal
	fi
}

# The same for a whole line that is not ours.
shown()
{
	bash -c "$1"
}

# All disks as they came, with nothing known about them.
bare()
{
	qs-util cryptcloseall
	rm -rf /etc/cryptconf /etc/crypttab
	blank "$@"
}

@test "the disks have the letters of their serials" {
	[ "$(dev_of j)" = /dev/sdj ]
	[ "$(readlink -f "/dev/disk/by-id/${NAME#enc-}")" = /dev/sdj ]
}

@test "devicemap" {
	example 'devicemap' | grep "^/dev/sdj	/dev/disk/by-id/scsi-35001517bb282023a, "
	[ "$(example '--json devicemap --all' | jq -r '.devices[] | select(.device == "/dev/sdj").by_id')" = \
		/dev/disk/by-id/scsi-35001517bb282023a ]
}

@test "help" {
	example 'help cryptformat' | grep -q '^usage: qs-util cryptformat '
	example 'help --format=json' | jq -e '.commands[] | select(.name == "cryptopen")'
}

@test "settings" {
	example 'config' | grep -qx 'keys_dir = "/etc/cryptconf/keys";'
	[ "$(example 'config keys_dir')" = /etc/cryptconf/keys ]
}

@test "swap" {
	printf 'size=6M\nsize=6M\n' | sfdisk -q /dev/sda
	wait_for_udev /dev/sda test -b /dev/sda2
	local swap
	for swap in /dev/sda2 /dev/sdb; do
		make_fs swap "$swap"
		swapon "$swap"
		echo "$swap none swap sw 0 0" >>/etc/fstab
	done
	example 'cryptswap --now /dev/sda2'
	swapon --show=NAME --noheadings --raw | grep -q '^/dev/dm-'
	run ! grep -q '^/dev/sda2 ' /proc/swaps
	example 'cryptswap'
	run ! grep -q '^/dev/sdb ' /proc/swaps
	[ "$(grep -c '^enc-scsi-.*  /dev/urandom  swap,' /etc/crypttab)" -eq 2 ]
	[ "$(grep -c '^/dev/mapper/enc-scsi-.* none swap ' /etc/fstab)" -eq 2 ]
	swapoff -a
	dmsetup remove_all
	rm /etc/fstab
}

@test "a disk of its own key: format, status, close, open" {
	example 'cryptformat /dev/sdj'
	[ -b "/dev/mapper/$NAME" ]
	example 'cryptstatus' | grep -q '^/dev/sdj '
	example 'cryptstatus /dev/sdj' | grep -qE 'state +open'
	example 'cryptclose /dev/sdj'
	[ ! -e "/dev/mapper/$NAME" ]
	example 'cryptopen /dev/sdj'
	[ -b "/dev/mapper/$NAME" ]
	qs-util cryptclose /dev/sdj
	shown 'cryptsetup open /dev/sdj enc-scsi-35001517bb282023a --key-file /etc/cryptconf/keys/enc-scsi-35001517bb282023a.key'
	[ -b "/dev/mapper/$NAME" ]
}

@test "all of ours: close, prove, open" {
	example 'cryptcloseall'
	[ ! -e "/dev/mapper/$NAME" ]
	example 'cryptopenall --test'
	[ ! -e "/dev/mapper/$NAME" ]
	example 'cryptopenall'
	[ -b "/dev/mapper/$NAME" ]
}

@test "a lost crypttab" {
	rm /etc/crypttab
	example 'crypttabrepair --dry-run' | grep -q "^+$NAME  "
	[ ! -e /etc/crypttab ]
	example 'crypttabrepair'
	grep -q "^$NAME  .*/etc/cryptconf/keys/$NAME.key  luks$" /etc/crypttab
	mkdir -p /mnt/stick
	mv /etc/cryptconf/keys /mnt/stick/
	example 'crypttabrepair --keys /mnt/stick/keys'
	grep -q "^$NAME  .*/mnt/stick/keys/$NAME.key  luks$" /etc/crypttab
	mv /mnt/stick/keys /etc/cryptconf/
	qs-util crypttabrepair
}

@test "a header that somebody wrote over" {
	echo '{"type":"test","keyslots":[]}' | cryptsetup token import --json-file - /dev/sdj
	example 'cryptbackup' | grep -q '^/dev/sdj: .*stored'
	example 'cryptbackup --list /dev/sdj' | grep -q "^$NAME .*current, agrees"
	qs-util cryptcloseall
	sgdisk -o /dev/sdj
	example 'cryptrestore --dry-run /dev/sdj' | grep -q '^/dev/sdj: would restore'
	run ! cryptsetup isLuks /dev/sdj
	example 'cryptrestore /dev/sdj' yes
	qs-util cryptopen /dev/sdj
	[ -b "/dev/mapper/$NAME" ]
}

@test "the end of a disk's life" {
	bare /dev/sdj
	qs-util cryptformat /dev/sdj
	example '--json --yes cryptdestroy /dev/sdj' | jq -e .ok
	run ! cryptsetup isLuks /dev/sdj
	qs-util cryptformat /dev/sdj
	example 'cryptdestroy /dev/sdj' yes
	run ! cryptsetup isLuks /dev/sdj
}

# How many devices of ours are open: an encrypted swap may be among them.
open_devices()
{
	dmsetup ls --target crypt | grep -c '^enc-' || true
}

@test "several disks, and a key that exists" {
	local before
	bare /dev/sdj
	before=$(open_devices)
	example 'cryptformat /dev/sdj /dev/sdk /dev/sdl'
	[ "$(open_devices)" -eq $((before + 3)) ]
	bare /dev/sdj /dev/sdk /dev/sdl
	(umask 077 && head -c 4096 /dev/urandom >/root/k.key)
	example 'cryptformat --key-file /root/k.key /dev/sdj'
	cryptsetup open --test-passphrase --key-file /root/k.key /dev/sdj
	bare /dev/sdj
	before=$(open_devices)
	example 'cryptformat /dev/sdb /dev/sdc /dev/sdd'
	[ "$(open_devices)" -eq $((before + 3)) ]
}

@test "a device that others formatted" {
	mkdir /path
	(umask 077 && head -c 64 /dev/urandom >/path/k.key)
	cryptsetup luksFormat -q "${FAST_PBKDF[@]}" --key-file /path/k.key /dev/sdj
	example 'cryptopen /dev/sdj /path/k.key updatecrypttab'
	[ -b "/dev/mapper/$NAME" ]
	grep -q "^$NAME  /dev/disk/by-id/${NAME#enc-}  /path/k.key  " /etc/crypttab
}

@test "a device with a passphrase" {
	bare /dev/sdj
	printf %s 'open sesame' | cryptsetup luksFormat -q "${FAST_PBKDF[@]}" --key-file - /dev/sdj
	example 'cryptopen --passphrase /dev/sdj' 'open sesame'
	[ -b "/dev/mapper/$NAME" ]
}

@test "all keys in one file, and back" {
	bare /dev/sdj
	qs-util cryptformat /dev/sdj
	mkdir -p /mnt/usb
	(umask 077 && echo 'open sesame' >/root/pass)
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /root/backup.pem \
		-out /root/backup.crt -subj /CN=backup -days 2
	example 'keybackup --passphrase-file /root/pass /mnt/usb/keys.cms'
	rm /mnt/usb/keys.cms
	example 'keybackup --to /root/backup.crt /mnt/usb/keys.cms'
	qs-util cryptcloseall
	rm -r /etc/cryptconf /etc/crypttab
	example 'cryptopenall --bundle /mnt/usb/keys.cms --key-file /root/backup.pem'
	[ -b "/dev/mapper/$NAME" ]
	example 'keyrestore --dry-run --key-file /root/backup.pem /mnt/usb/keys.cms' | grep -q 'would be created'
	[ ! -e /etc/cryptconf ]
	example 'keyrestore --key-file /root/backup.pem /mnt/usb/keys.cms'
	cryptsetup open --test-passphrase --key-file "/etc/cryptconf/keys/$NAME.key" /dev/sdj
	grep -q "^$NAME " /etc/crypttab
}

@test "more ways to open a device" {
	bare /dev/sdj
	qs-util cryptformat /dev/sdj
	cp -a "/etc/cryptconf/keys/$NAME.key" /root/first.key
	# Open and in use: none of this needs the device closed.
	example 'cryptenroll /dev/sdj --recovery-key /root/sdj.recovery'
	cryptsetup open --test-passphrase --key-file /root/sdj.recovery /dev/sdj
	example '--yes cryptenroll /dev/sdj --recovery-key /root/j.new --wipe recovery'
	run ! cryptsetup open --test-passphrase --key-file /root/sdj.recovery /dev/sdj
	cryptsetup open --test-passphrase --key-file /root/j.new /dev/sdj
	example 'cryptenroll /dev/sdj --list' | grep -q ' recovery '
	example 'cryptenroll /dev/sdj --new-key'
	run ! cryptsetup open --test-passphrase --key-file /root/first.key /dev/sdj
	qs-util cryptclose /dev/sdj
	qs-util cryptopen /dev/sdj
	# systemd's own attach, as a person would type the key at boot.
	qs-util cryptclose /dev/sdj
	/lib/systemd/systemd-cryptsetup attach "$NAME" /dev/sdj /root/j.new luks
	[ -b "/dev/mapper/$NAME" ]
	example '--yes cryptenroll /dev/sdj --wipe recovery'
	run ! cryptsetup open --test-passphrase --key-file /root/j.new /dev/sdj
	cryptsetup open --test-passphrase --key-file "/etc/cryptconf/keys/$NAME.key" /dev/sdj
	run ! cryptsetup open --test-passphrase --key-file /root/j.new "/etc/cryptconf/headers/$NAME.header"
	[ -z "$(ls /etc/cryptconf/pending)$(ls "/etc/cryptconf/headers/$NAME.d")" ]
	blank /dev/sdk
	qs-util cryptformat --no-open /dev/sdk
	example 'cryptenroll /dev/sdj /dev/sdk --tpm2'
	qs-util cryptenroll --test --tpm2 /dev/sdj
	qs-util cryptenroll --test --tpm2 /dev/sdk
}

@test "the keystore" {
	bare /dev/sdj /dev/sdk
	qs-util cryptformat /dev/sdj /dev/sdk
	example '--yes keystore enable'
	example 'cryptenroll /dev/sdj /dev/sdk --keystore'
	qs-util cryptclose /dev/sdj
	qs-util --json cryptopen /dev/sdj | jq -e '.devices[0].keystore_generation == 1'
	[ -b "/dev/mapper/$NAME" ]
	example 'keystore status' | grep -q 'for 2 devices'
	example 'keystore rotate --force'
	qs-util cryptclose /dev/sdj
	qs-util --json cryptopen /dev/sdj | jq -e '.devices[0].keystore_generation == 2'
	example 'keystore verify'
	example 'keystore check' | grep -q '^2 generations'
	openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out /root/escrow.key 2>/dev/null
	openssl pkey -in /root/escrow.key -pubout -out /root/escrow.pub
	example 'keystore export --public-key /root/escrow.pub --output /root/kek.rsa'
	openssl pkeyutl -decrypt -inkey /root/escrow.key -pkeyopt rsa_padding_mode:oaep \
		-pkeyopt rsa_oaep_md:sha256 -in /root/kek.rsa | jq -e '.alg == "A256GCMKW"'
	example 'keystore retention 10D'
	example 'keystore schedule 6W' | grep -q 'every 6W'
	qs-util --yes cryptdestroy /dev/sdk
	run ! cryptsetup isLuks /dev/sdk
	qs-util --yes cryptrestore /dev/sdk
	qs-util --json cryptopen /dev/sdk | jq -e '.devices[0].keystore_generation == 2'
	qs-util --yes cryptdestroy /dev/sdk
	example '--yes keystore purge --all'
	run ! qs-util --yes cryptrestore /dev/sdk
	# By stock tools alone, with no key file: the plugin is where libcryptsetup looks.
	qs-util cryptcloseall
	cryptsetup open --token-only /dev/sdj by-cryptsetup
	[ -b /dev/mapper/by-cryptsetup ]
	cryptsetup close by-cryptsetup
	/lib/systemd/systemd-cryptsetup attach by-systemd /dev/sdj none luks,headless=1
	[ -b /dev/mapper/by-systemd ]
	cryptsetup close by-systemd
	example '--yes keystore migrate --provider tpm2' | grep -q 'its provider is tpm2'
	qs-util --json cryptopen /dev/sdj | jq -e '.devices[0].keystore_generation == 3'
	qs-util --yes cryptenroll /dev/sdj --wipe keystore
	example '--yes keystore disable'
	[ ! -e /etc/cryptconf/keystore ]
	example '--yes keystore enable --provider tpm2'
	qs-util cryptenroll /dev/sdj --keystore
	qs-util cryptclose /dev/sdj
	qs-util --json cryptopen /dev/sdj | jq -e '.devices[0].keystore_generation == 1'
	qs-util cryptformat --key-file-only /dev/sdk
	example 'keystore rewrap --all'
	qs-util cryptclose /dev/sdk
	qs-util --json cryptopen /dev/sdk | jq -e '.devices[0].keystore_generation == 1'
}

# generation_of DISK: what opens it.
generation_of()
{
	qs-util --json cryptopen --test "$1" | jq '.devices[0].keystore_generation'
}

@test "the keystore at key servers, and a device with a key of its own" {
	bare /dev/sdj /dev/sdk
	join_network
	mkdir -p /etc/cryptconf
	cp -a /servers/etc/cryptconf/. /etc/cryptconf
	example '--yes keystore enable --provider vault'
	example 'cryptformat --kms-key finance /dev/sdj'
	[ "$(generation_of /dev/sdj)" = 2 ]
	example 'keystore rewrap --cluster-key /dev/sdj'
	[ "$(generation_of /dev/sdj)" = 1 ]
	example 'keystore rewrap --kms-key finance /dev/sdj'
	example 'keystore rotate --kms-key finance --force'
	qs-util cryptformat --no-open /dev/sdk
	example '--yes keystore migrate --provider kmip'
	qs-util --json keystore status |
		jq -e '[.result.generations[] | select(.devices > 0) | .key.name == "finance"] == [true, false]'
	qs-util cryptcloseall
	qs-util cryptopenall
	[ -b "/dev/mapper/$NAME" ]
}
