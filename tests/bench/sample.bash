# Samples that "run" reads: "load ../bench/sample" behind "load lib".
# shellcheck shell=bash

# sample GOAL SIDE COMMAND [ARG...]: a line "GOAL SIDE wall user system", in seconds.
sample()
{
	local goal=$1 side=$2 times TIMEFORMAT='%R %U %S'
	shift 2
	times=$({ time "$@" >"$BATS_TEST_TMPDIR/log" 2>&1; } 2>&1) || {
		cat "$BATS_TEST_TMPDIR/log"
		return 1
	}
	echo "$goal $side $times" >>"$GUEST_RESULTS/samples"
}
