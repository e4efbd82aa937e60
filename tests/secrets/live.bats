#!/usr/bin/env bats
# Every command that handles a secret, on a machine that swaps, logs and dumps
# cores, watched all the while. Started by "run" beside this file, which then
# looks for what the disk "evidence" says is secret.
#
# guest: --systemd --memory 768 --disk virtio:evidence:64M --disk virtio:swap:128M
# guest: --tpm @state/tpm
# guest: --disk virtio:d1:24M --disk virtio:d2:24M --disk virtio:d3:24M --disk virtio:d4:24M
# guest: --disk virtio:d5:24M --disk virtio:d6:24M --host @dir/../guest/key-server:both

load lib

readonly ID=/dev/disk/by-id/virtio- SLOT=$((2 << 20))

# known NAME <SECRET: a slot of the evidence disk, name and size in the first block.
known()
{
	local number size
	number=$(cat /run/evidence 2>/dev/null || echo 0)
	echo $((number + 1)) >/run/evidence
	# Block by block, past the page cache: what is not a whole one is filled up.
	size=$(tee >(dd of="${ID}evidence" bs=64K seek=$((number * SLOT / 65536 + 1)) \
		conv=sync,notrunc iflag=fullblock oflag=direct status=none) | wc -c)
	printf '%s %s\n' "$1" "$size" |
		dd of="${ID}evidence" bs=4096 seek=$((number * SLOT / 4096)) conv=sync,notrunc oflag=direct status=none
}

# key_of DISK
key_of()
{
	echo "/etc/cryptconf/keys/enc-virtio-$1.key"
}

# watched COMMAND...: its output goes where the host will look. Most of its memory
# that is not locked goes to swap. What locks all of its own would only crawl in so
# little, and gets MEMORY.
watched()
{
	local number
	number=$(find "$GUEST_RESULTS" -type f | wc -l)
	systemd-run --quiet --wait --pipe -p MemoryHigh="${MEMORY:-10M}" "$@" >"$GUEST_RESULTS/output-$number" 2>&1 ||
		{ cat "$GUEST_RESULTS/output-$number"; return 1; }
}

qs()
{
	watched qs-util --verbose "$@"
}

# What every process shows to others, until /run/enough is there. One program reads
# all of it: with one for each file, a short command came and went between two looks.
watch_processes()
{
	until [[ -e /run/enough ]]; do
		# It fails whenever a process ends meanwhile, and errexit would end the watch.
		cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null || true
		echo
	done | tr '\0' '\n' | awk '!seen[$0]++' >"$GUEST_RESULTS/processes"
}

setup_file()
{
	mkdir -p /var/crash
	echo '/var/crash/core.%e.%p' >/proc/sys/kernel/core_pattern
	echo 200 >/proc/sys/vm/swappiness
	mkswap -q "${ID}swap"
	swapon "${ID}swap"
	watch_processes 3>&- &
	echo $! >/run/watcher
}

@test "a key that is made, and one that is given" {
	qs cryptformat "${ID}d1" "${ID}d2"
	(umask 077 && head -c 4096 /dev/urandom >/root/given.key)
	qs --json cryptformat --pbkdf pbkdf2 --key-file /root/given.key "${ID}d3"
}

@test "looking, closing, opening" {
	qs cryptstatus
	qs --json cryptstatus "${ID}d1"
	qs cryptcloseall
	qs --json cryptopenall
	qs cryptclose "${ID}d1"
	qs cryptopen "${ID}d1" updatecrypttab
	qs devicemap --all
}

@test "a recovery key, a new key, and all keys in a bundle" {
	local MEMORY=64M disk
	mkdir -p /root/ways
	(umask 077 && cd /root/ways && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
		-keyout backup.pem -out backup.crt -subj /CN=backup -days 2 2>/dev/null)
	qs --json cryptenroll "${ID}d1" --recovery-key /root/ways/recovery
	qs cryptenroll "${ID}d1" --list
	qs --yes cryptenroll "${ID}d1" --new-key
	# For the host, which gets the volume keys out of it by the keys known in the end.
	for disk in d1 d2 d3; do
		dd if="$ID$disk" of="$GUEST_RESULTS/$disk.header" bs=1M count=5 status=none
	done
	qs cryptopen --test --passphrase-file /root/ways/recovery "${ID}d1"
	qs --json keybackup --to /root/ways/backup.crt /root/keys.cms
	qs --json cryptopenall --test --bundle /root/keys.cms --key-file /root/ways/backup.pem
	rm /etc/crypttab
	qs --json --yes keyrestore --key-file /root/ways/backup.pem /root/keys.cms
}

@test "header backups and tables" {
	local MEMORY=64M
	qs --json cryptbackup
	rm /etc/crypttab
	qs --json crypttabrepair --keys /root
	qs cryptclose "${ID}d3"
	dd if=/dev/zero of="${ID}d3" bs=4096 count=1 conv=fsync status=none
	qs --json --yes cryptrestore "${ID}d3"
	qs cryptopen "${ID}d3"
}

@test "a process that holds a key leaves no core when it crashes" {
	ulimit -c unlimited
	# shellcheck disable=SC2016 # for the shell inside
	run bash -c 'kill -SEGV $$'
	ls /var/crash/core.bash.*
	rm /var/crash/core.bash.*
	local when
	for when in 1 2 3 4; do
		run strace -f -o /run/strace -e trace=fsync -e "inject=fsync:signal=SIGSEGV:when=$when" \
			qs-util cryptformat "${ID}d4"
		grep -q SIGSEGV /run/strace
		[ -z "$(ls /var/crash)" ]
	done
	qs cryptformat "${ID}d4"
}

# killed_at WORDS -- WHEN...: the command ends at each of these calls of fsync() (or $CALL), and leaves no core.
killed_at()
{
	local words=() when
	while [[ $1 != -- ]]; do
		words+=("$1")
		shift
	done
	shift
	for when; do
		run strace -f -o /run/strace -e "trace=${CALL-fsync}" -e "inject=${CALL-fsync}:signal=SIGSEGV:when=$when" \
			qs-util "${words[@]}"
		grep -q SIGSEGV /run/strace
		[ -z "$(ls /var/crash)" ]
	done
}

@test "a key that the keystore wraps" {
	local MEMORY=64M
	qs --json --yes keystore enable
	qs --json cryptenroll "${ID}d4" --keystore
	qs cryptclose "${ID}d4"
	qs --json cryptopen "${ID}d4"
	qs keystore status
	qs --json keystore verify
	killed_at cryptenroll "${ID}d4" --keystore -- 2 4 6
	qs cryptenroll "${ID}d4" --keystore
}

@test "a key that goes from one generation to the next, and to an escrow" {
	local MEMORY=64M
	killed_at keystore rotate --force -- 2 4
	qs --json keystore rotate --force
	(cd /root/ways && openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out escrow.pem &&
		openssl pkey -in escrow.pem -pubout -out escrow.pub)
	killed_at keystore export --public-key /root/ways/escrow.pub --output /root/ways/kek.rsa -- 1
	qs --json keystore export --public-key /root/ways/escrow.pub --output /root/ways/kek.rsa --force
	swapoff "${ID}swap" # our own copy shall not be what is found there
	known kek-local-destroyed <"/etc/cryptconf/keystore/$(qs-util --json keystore status | jq .result.generation).kek"
	swapon "${ID}swap"
	qs --json --yes cryptenroll "${ID}d4" --wipe keystore
	qs --json --yes keystore disable
}

@test "a key that the keystore wraps with one of the TPM's" {
	local MEMORY=64M
	killed_at --yes keystore enable --provider tpm2 -- 2 4
	qs --json --yes keystore enable --provider tpm2
	qs --json cryptenroll "${ID}d4" --keystore
	killed_at keystore rotate --force -- 2 4
	qs --json keystore rotate --force
	qs cryptclose "${ID}d4"
	qs --json cryptopen "${ID}d4"
	qs --json keystore verify
	killed_at keystore export --public-key /root/ways/escrow.pub --output /root/ways/kek.rsa --force -- 1
}

@test "a device that the keystore's key is made for, and a keystore that moves" {
	local MEMORY=64M number
	killed_at cryptformat "${ID}d5" -- 1 2 3
	qs --json cryptformat "${ID}d5"
	killed_at --yes keystore migrate --provider local -- 2 4
	qs --json --yes keystore migrate --provider local
	number=$(qs-util --json keystore status | jq .result.generation)
	swapoff "${ID}swap" # our own copy shall not be what is found there
	known kek-moved-destroyed <"/etc/cryptconf/keystore/$number.kek"
	swapon "${ID}swap"
	killed_at --yes keystore migrate --provider tpm2 -- 2 4
	qs --json --yes keystore migrate --provider tpm2
	qs --json keystore rotate --force
	[ ! -e "/etc/cryptconf/keystore/$number.kek" ]
	qs cryptclose "${ID}d5"
	qs --json cryptopen "${ID}d5"
}

@test "a keystore at key servers, and a device with a key of its own" {
	local MEMORY=64M
	join_network
	cp -a /servers/etc/cryptconf/. /etc/cryptconf
	# What talks to the server dies while it has token and keys.
	CALL=recvfrom killed_at --yes keystore migrate --provider vault -- 22
	qs --json --yes keystore migrate --provider vault
	killed_at keystore rotate --force -- 2
	qs --json keystore rotate --force
	qs cryptclose "${ID}d5"
	CALL=recvfrom killed_at cryptopen "${ID}d5" -- 24
	qs --json cryptopen "${ID}d5"
	killed_at cryptformat --kms-key finance "${ID}d6" -- 2
	qs --json cryptformat --kms-key finance "${ID}d6"
	qs --json keystore rotate --kms-key finance --force
	qs --json keystore verify
	qs --json keystore check
	qs --json keystore rewrap --cluster-key "${ID}d6"
	qs --json --yes keystore migrate --provider kmip
	qs cryptclose "${ID}d6"
	qs --json cryptopen "${ID}d6"
	qs --json --yes keystore migrate --provider tpm2
}

# What a program would leave there that does not lock its memory.
@test "a secret that nobody guards" {
	head -c 48K /dev/urandom | base64 -w 0 >/run/control
	# shellcheck disable=SC2016 # for the shell inside
	watched bash -c 'key=$(</run/control); rest=$(head -c 24M /dev/zero | tr "\0" x); echo ${#key} ${#rest}'
}

@test "the end of a key" {
	swapoff "${ID}swap" # our own copy shall not be what is found there
	known key-d2-destroyed <"$(key_of d2)"
	swapon "${ID}swap"
	qs --json --yes cryptdestroy "${ID}d2"
}

@test "what the machine still knows" {
	touch /run/enough
	wait_while kill -0 "$(cat /run/watcher)"
	grep -qx cryptdestroy "$GUEST_RESULTS/processes" || { cat "$GUEST_RESULTS/processes"; return 1; }
	journalctl -o export >"$GUEST_RESULTS/journal"
	[ -s "$GUEST_RESULTS/journal" ]
	tar -C / --exclude=run/guest --exclude=run/control --exclude=run/udev -cf "$GUEST_RESULTS/run.tar" run dev/shm
	swapoff "${ID}swap"
	known key-d1 <"$(key_of d1)"
	known key-d4 <"$(key_of d4)"
	known given-d3 </root/given.key
	# The middle of the DER form of an EC key is the number itself: the rest is the same in all.
	openssl ec -in /root/ways/backup.pem -outform DER 2>/dev/null | head -c 39 | tail -c 32 | known private
	known recovery </root/ways/recovery
	# No file has it.
	qs-util keystore export --public-key /root/ways/escrow.pub --output /run/kek.rsa
	openssl pkeyutl -decrypt -inkey /root/ways/escrow.pem -in /run/kek.rsa -pkeyopt rsa_padding_mode:oaep \
		-pkeyopt rsa_oaep_md:sha256 | jq -r '.k + "="' | tr '_-' '/+' | base64 -d | known kek
	known control </run/control
}
