# What the scripts that run on the host share. Source it; it changes no state.
# shellcheck shell=bash

# Exit statuses of the harness, so that a caller can tell them apart.
# shellcheck disable=SC2034 # used by those who source this
readonly GUEST_FAILED=1 GUEST_USAGE=64 GUEST_CANNOT_RUN=77 GUEST_BROKE=125

note()
{
	printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# Prints the head comment of the running script as its help.
show_help()
{
	sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

usage_error()
{
	note "$*"
	exit "$GUEST_USAGE"
}

# This host lacks something: a skip for a developer, a failure in CI.
cannot_run()
{
	note "cannot run here: $*"
	exit "$GUEST_CANNOT_RUN"
}

# need_commands COMMAND:PACKAGE...
need_commands()
{
	local pair missing=()
	for pair; do
		command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
	done
	[[ ${#missing[@]} -eq 0 ]] ||
		cannot_run "missing packages: ${missing[*]} (see tests/install-deps guest)"
}
