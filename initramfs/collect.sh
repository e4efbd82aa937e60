# What an initramfs needs of this system's configuration. Nothing here is of one
# maker of initramfs images.
# shellcheck shell=sh

qs_util=@SBINDIR@/qs-util

# qs_walk DEVICE: the names of the LUKS mappings at and below a block device.
qs_walk()
{
	set -- "/sys/class/block/$(basename "$(readlink -f "$1")")"
	case $(cat "$1/dm/uuid" 2>/dev/null) in
	CRYPT-*) cat "$1/dm/name" ;;
	esac
	for qs_slave in "$1"/slaves/*; do
		[ ! -e "$qs_slave" ] || (qs_walk "/dev/${qs_slave##*/}")
	done
}

# qs_boot_names: what / and /usr lie on, by fstab (the system may be another one than
# that which runs, as in a chroot) and by what is mounted.
qs_boot_names()
{
	for qs_where in / /usr; do
		for qs_source in \
			"$(findmnt --fstab --evaluate --noheadings --output SOURCE "$qs_where" 2>/dev/null)" \
			"$(findmnt --noheadings --nofsroot --output SOURCE "$qs_where" 2>/dev/null)"; do
			case $qs_source in
			/dev/mapper/*) echo "${qs_source#/dev/mapper/}" ;;
			esac
			[ ! -b "$qs_source" ] || qs_walk "$qs_source"
		done
	done | sort -u
}

# qs_backup NAME: the real path of its header backup.
qs_backup()
{
	echo "$("$qs_util" config headers_dir)/$1.header"
}

# Without a key file only the TPM opens it, which is closed once the initramfs is done.
qs_by_tpm_only()
{
	case ${2:-none} in
	none | -) ;;
	*) return 1 ;;
	esac
	case ,$3, in
	*,tpm2-device=*) return 0 ;;
	esac
	grep -qsF systemd-tpm2 "$(qs_backup "$1")"
}

# qs_lines: the lines of crypttab for the initramfs, each with the option that says so.
# Devices that only the TPM opens come with them, as far as they are there.
qs_lines()
{
	qs_boot=" $(qs_boot_names | tr '\n' ' ') "
	qs_any=no
	for qs_round in early tpm; do
		[ "$qs_round" = early ] || [ "$qs_any" = yes ] || return 0
		while read -r qs_name qs_device qs_key qs_options _; do
			case $qs_name in
			'' | '#'*) continue ;;
			esac
			qs_kind=none
			case $qs_boot,${qs_options-}, in
			*" $qs_name "* | *,initramfs,* | *,x-initrd.attach,*) qs_kind=early ;;
			*) ! qs_by_tpm_only "$qs_name" "${qs_key-}" "${qs_options-}" || qs_kind=tpm ;;
			esac
			[ "$qs_kind" = "$qs_round" ] || continue
			qs_any=yes
			case ,${qs_options:=luks}, in
			*,initramfs,* | *,x-initrd.attach,*) ;;
			*) qs_options=$qs_options,x-initrd.attach ;;
			esac
			[ "$qs_kind" = early ] || qs_options=$qs_options,nofail
			echo "$qs_name $qs_device ${qs_key:-none} $qs_options"
		done </etc/crypttab
	done
}

# qs_copy_header NAME DESTDIR: what tells the disk from a planted one: the first copy of
# the metadata, of which byte 8 on is the size. No keyslot comes along.
qs_copy_header()
{
	qs_from=$(qs_backup "$1")
	qs_size=$(od -An -t u8 --endian=big -j 8 -N 8 "$qs_from" 2>/dev/null | tr -d ' ')
	if [ "$(head -c 4 "$qs_from" 2>/dev/null)" != LUKS ] || [ "${qs_size:-0}" -gt 4194304 ]; then
		echo "W: qs-util: $1 has no header backup, so the TPM will not open it early:" \
			"run qs-util cryptbackup" >&2
		return 0
	fi
	mkdir -p "$2${qs_from%/*}"
	head -c "$qs_size" "$qs_from" >"$2$qs_from"
}

# qs_copy_config DESTDIR: without healing keyslots, whose new header backup would be lost
# with the initramfs.
qs_copy_config()
{
	[ -e /etc/cryptconf/qs-util.conf ] || return 0
	sed -E 's/(tpm2_self_heal[[:space:]]*[=:][[:space:]]*)[Tt][Rr][Uu][Ee]/\1false/' \
		/etc/cryptconf/qs-util.conf >"$1/etc/cryptconf/qs-util.conf"
	if [ "$("$qs_util" --config="$1/etc/cryptconf/qs-util.conf" config tpm2_self_heal)" != false ]; then
		echo "E: qs-util: qs-util.conf is not usable, or tpm2_self_heal is not on one line" >&2
		exit 1
	fi
}

# qs_collect DESTDIR: table, configuration, headers; key files only where the
# configuration wants them. Returns 1 when the initramfs has nothing to open.
qs_collect()
{
	qs_table=$(qs_lines)
	[ -n "$qs_table" ] || return 1
	mkdir -p "$1/etc/cryptconf"
	echo "$qs_table" >"$1/etc/crypttab"
	qs_copy_config "$1"
	echo "$qs_table" | while read -r qs_name _ qs_key _; do
		qs_copy_header "$qs_name" "$1"
		[ "$("$qs_util" config early_keys)" = true ] || continue
		case $qs_key in
		none | -) qs_key=$("$qs_util" config keys_dir)/$qs_name.key ;;
		esac
		[ -f "$qs_key" ] || continue
		mkdir -p "$1${qs_key%/*}"
		install -m 0400 "$qs_key" "$1$qs_key"
	done
}

# qs_stack: the module that talks to the TPM, and the one library that is loaded by name.
qs_stack()
{
	[ -e "@MODULEDIR@/tpm2.so" ] || return 0
	echo "@MODULEDIR@/tpm2.so"
	qs_esys=$(ldd "@MODULEDIR@/tpm2.so" | sed -n 's/.*libtss2-esys[^>]*=> *\(.*\)\/[^/]* (.*/\1/p')
	echo "$qs_esys/libtss2-tcti-device.so.0"
}
