#!/bin/sh
# dracut runs this again and again in its loop, each time udev has come to rest. Devices
# may lie on LVM, which is put together in that loop, too: so it is not held up while one is
# missing, for as long as early_wait.

qs_may_wait()
{
	read -r qs_now _ </proc/uptime
	: "${qs_since:=${qs_now%.*}}"
	[ $((${qs_now%.*} - qs_since)) -lt "$(qs-util config early_wait)" ]
}

# Its functions stay in this shell; their names begin with qs_.
# shellcheck source=initramfs/unlock.sh
. /lib/qs-util/unlock.sh
# What lies on LVM on such an array cannot wait for qs_unlock.
[ -n "$qs_since" ] || (qs_degraded) >/dev/console 2>&1
if ! qs_missing || ! qs_may_wait; then
	# Under systemd standard output is the journal's.
	(qs_unlock) >/dev/console 2>&1
	# shellcheck disable=SC2154 # dracut's: this very file
	rm -f -- "$job"
fi
