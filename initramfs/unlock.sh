# Runs in the initramfs: open what the root file system needs, or end the boot; never
# fall through to a shell. Nothing here is of one maker of initramfs images.
# shellcheck shell=sh
#
# Only the shell's own commands, cat, mkdir, mkfifo, mv, rm, sleep and reboot are used:
# an initramfs without busybox has no more.

qs_run=/run/qs-util
qs_tries=3

# qs_say SENTENCE: on the console, on the splash, and by the kernel's log in the journal.
# The program plymouth ends by an assertion when it is given more than 255 bytes.
qs_say()
{
	echo "qs-util: $1"
	echo "<29>qs-util: $1" >/dev/kmsg 2>/dev/null || true
	! qs_splash || plymouth display-message --text="$(printf '%.250s' "$1")" || true
}

qs_splash()
{
	command -v plymouth >/dev/null 2>&1 && plymouth --ping 2>/dev/null
}

# qs_pass_on: each line of what qs-util says.
qs_pass_on()
{
	while read -r qs_line; do
		qs_say "$qs_line"
	done
}

# qs_setting NAME DEFAULT: of qs-util.conf.
qs_setting()
{
	qs-util config "$1" 2>/dev/null || echo "$2"
}

# qs_stop SENTENCE: the boot cannot go on. A shell would be root's, beside disks that are open.
qs_stop()
{
	qs_say "$1"
	if [ "$(qs_setting early_poweroff false)" = true ]; then
		qs_say "switching off"
		set -- poweroff o
	else
		qs_say "starting again in 5 seconds"
		set -- reboot b
	fi
	sleep 5
	"$1" -f 2>/dev/null
	echo "$2" >/proc/sysrq-trigger
	while :; do sleep 3600; done
}

# qs_arrays: those of md that wait for a disk.
qs_arrays()
{
	for qs_array in /sys/block/md*/md/array_state; do
		[ -e "$qs_array" ] || continue
		[ "$(cat "$qs_array")" != inactive ] || echo "${qs_array%/md/array_state}"
	done
}

# qs_missing: is there no device for a line that the boot needs?
qs_missing()
{
	while read -r _ qs_device _ qs_options; do
		case ,$qs_options, in
		*,nofail,*) continue ;;
		esac
		case $qs_device in
		UUID=*) qs_device=/dev/disk/by-uuid/${qs_device#*=} ;;
		LABEL=*) qs_device=/dev/disk/by-label/${qs_device#*=} ;;
		PARTUUID=*) qs_device=/dev/disk/by-partuuid/${qs_device#*=} ;;
		PARTLABEL=*) qs_device=/dev/disk/by-partlabel/${qs_device#*=} ;;
		esac
		[ -e "$qs_device" ] || return 0
	done </etc/crypttab
	return 1
}

# qs_degraded: while something is missing, arrays get early_wait for their disks to come; then
# they are started without.
qs_degraded()
{
	command -v mdadm >/dev/null 2>&1 || return 0
	qs_left=$(qs_setting early_wait 30)
	while qs_missing && [ -n "$(qs_arrays)" ] && [ "$qs_left" -gt 0 ]; do
		sleep 1
		qs_left=$((qs_left - 1))
	done
	qs_missing || return 0
	for qs_array in $(qs_arrays); do
		qs_array=/dev/${qs_array##*/}
		qs_say "$qs_array is started without all of its disks"
		mdadm --run --quiet "$qs_array"
	done
}

# qs_serve PROMPT: makes $qs_run/answer, whose every reader gets what is typed on the splash
# after he opened it. A new one takes its place before it is filled, so that the next
# reader cannot come upon this answer's pipe.
qs_serve()
{
	qs_renew || return
	while :; do
		{
			qs_renew
			plymouth ask-for-password --prompt="$1" &
			echo $! >"$qs_run/asker"
			wait $! && rm "$qs_run/asker"
		} >"$qs_run/answer" || return
	done >/dev/null 2>&1 &
	qs_server=$!
}

qs_renew()
{
	rm -f "$qs_run/next"
	mkfifo -m 0600 "$qs_run/next" && mv "$qs_run/next" "$qs_run/answer"
}

# A question that nobody answered stays on the splash when its asker has gone, and takes
# the next answer away.
qs_serve_no_more()
{
	kill "$qs_server" 2>/dev/null
	if [ -e "$qs_run/asker" ] && kill "$(cat "$qs_run/asker")" 2>/dev/null; then
		qs_say "the question was given up: press Enter for the next one"
	fi
	rm -f "$qs_run/answer" "$qs_run/asker"
}

# qs_answered PROMPT OPTION COMMAND...: qs-util with questions that are answered on the splash
# or on the console. The secret goes through a pipe, or the terminal.
qs_answered()
{
	qs_prompt=$1
	qs_option=$2
	shift 2
	set -- "$@" --ask-deadline "$(qs_setting early_prompt 120)"
	if ! qs_splash; then
		qs_console=/dev/console
		# A machine without one has nobody to ask.
		(: <>$qs_console) 2>/dev/null || qs_console=/dev/null
		qs-util "$@" "$qs_option" - <>$qs_console
		return
	fi
	qs_serve "$qs_prompt" || return
	qs-util "$@" "$qs_option" "$qs_run/answer" </dev/null
	set -- $?
	qs_serve_no_more
	return "$1"
}

# qs_ask NAME LINK: one question, with its deadline.
qs_ask()
{
	qs_answered "Passphrase of $1" --passphrase-file cryptopen "$2"
}

# qs_ask_for NAME LINK: until it is open, or nobody knows better.
qs_ask_for()
{
	qs_try=0
	while [ "$qs_try" -lt "$qs_tries" ]; do
		if qs_ask "$1" "$2" 2>&1; then
			qs_say "$1 was opened by a key that was typed"
			return
		fi
		qs_try=$((qs_try + 1))
	done
	qs_say "$1 was not opened"
	return 1
}

# qs_settle STATE NEED NAME LINK: one line of the report. The table is read from
# descriptor 3, so that a question may have standard input.
qs_settle()
{
	[ "$1" != open ] || return 0
	# What the boot can do without is left to the system that it boots.
	[ "$2" = needed ] || return 0
	case $1 in
	ask) qs_ask_for "$3" "$4" || qs_stop "the boot cannot go on without $3" ;;
	refused) qs_stop "$3 is refused, so no key of it may be typed here" ;;
	absent) qs_stop "the device of $3 is not there: $4" ;;
	*) qs_stop "$3 cannot be opened" ;;
	esac
}

# All of it. Returns only when everything that is needed is open.
qs_unlock()
{
	[ -s /etc/crypttab ] || return 0
	# dm-crypt may be built in.
	modprobe -q dm_crypt 2>/dev/null || true
	mkdir -p "$qs_run"
	rm -f "$qs_run/early"
	qs_degraded
	qs_answered PIN --pin-file cryptopenall --early 2>&1 | qs_pass_on
	[ -e "$qs_run/early" ] || qs_stop "the encrypted devices could not be opened"
	while read -r qs_state qs_need qs_name qs_link <&3; do
		qs_settle "$qs_state" "$qs_need" "$qs_name" "$qs_link"
	done 3<"$qs_run/early"
}
