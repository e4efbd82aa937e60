#!/bin/bash
# dracut: put into the initramfs what opens the root file system's device and the lines
# of crypttab that are marked for it. What initramfs-tools' hook does, by the same scripts.
# shellcheck disable=SC2154 # its variables

check()
{
	# shellcheck source=initramfs/collect.sh
	. @LIBDIR@/initramfs/collect.sh
	[[ -n $(qs_lines) ]]
}

depends()
{
	echo dm rootfs-block
}

installkernel()
{
	# Any machine's, as for the ciphers: they are small, and the boot fails without.
	hostonly='' instmods dm_crypt =crypto =drivers/char/tpm
}

# dracut's own module for LUKS (90crypt, installed before this one) would ask for what
# we open, beside us and under other names, and even where we refuse.
drop_crypt()
{
	rm -f "$initdir$systemdutildir/system-generators/systemd-cryptsetup-generator" \
		"$initdir"/{,usr/,var/}lib/dracut/hooks/*/*{parse-crypt,crypt-cleanup}.sh
}

install()
{
	local action=reboot files libraries
	# shellcheck source=initramfs/collect.sh
	. @LIBDIR@/initramfs/collect.sh
	qs_collect "$initdir" || return 0
	drop_crypt
	# dracut looks for the libraries of programs only.
	mapfile -t files < <(qs_stack)
	[[ ${#files[@]} -eq 0 ]] ||
		mapfile -t libraries < <(ldd "${files[@]}" | sed -n 's/.*=> *\(\/[^ ]*\) (.*/\1/p' | sort -u)
	inst_multiple "$qs_util" "${files[@]}" "${libraries[@]}" cat mkdir mkfifo mv rm sleep
	# Argon2 ends its threads through it; nothing links it.
	inst_libdir_file libgcc_s.so.1
	inst_simple @LIBDIR@/initramfs/unlock.sh /lib/qs-util/unlock.sh
	inst_hook initqueue/settled 10 "$moddir/qs-util.sh"
	inst_hook initqueue/finished 10 "$moddir/qs-util-done.sh"
	dracut_need_initqueue
	# Whatever else fails in the initramfs must not end in a shell beside open disks. The
	# kernel's command line may say otherwise.
	[[ $("$qs_util" config early_poweroff) != true ]] || action=poweroff
	mkdir -p "$initdir/etc/cmdline.d"
	echo "rd.shell=0 rd.emergency=$action" >"$initdir/etc/cmdline.d/90qs-util.conf"
}
