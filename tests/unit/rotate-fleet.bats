#!/usr/bin/env bats
# What a rotation costs, counted: no clock. Its time is goal G9 of tests/bench.

load tree

readonly FLEET=100

# traced REGEX: how many calls of the trace there are.
traced()
{
	grep -cE "$1" "$BATS_TEST_TMPDIR/trace" || true
}

@test "a hundred devices: few flushes, few bytes, no more calls of the provider than for one" {
	make_tree $FLEET
	qs cryptformat --no-open "${ROOT}"/img/d*
	qs --yes keystore enable
	local devices=("$ROOT$ID"*)
	qs cryptenroll "${devices[@]#"$ROOT"}" --keystore
	# The leak checker of a sanitizer build cannot run under strace.
	ASAN_OPTIONS=detect_leaks=0 run -0 strace -f -ff -qq -y --seccomp-bpf -o "$BATS_TEST_TMPDIR/trace" \
		-e trace=fsync,fdatasync,syncfs,pread64,pwrite64,write,openat,%%stat "$QS_UTIL" --root="$ROOT" keystore rotate --force
	# A file for each process: nothing is cut in two by another one's call.
	cat "$BATS_TEST_TMPDIR"/trace.* >"$BATS_TEST_TMPDIR/trace"
	# Two flushes for a disk, and at most ten of the system disk, however many disks there are.
	[ "$(grep -oE "sync\([0-9]*<$ROOT/img/d[0-9]+" "$BATS_TEST_TMPDIR/trace" | sed 's/.*<//' | sort | uniq -c |
		awk '$1 == 2' | wc -l)" = $FLEET ]
	[ "$(traced "sync(fs)?\([0-9]*<$ROOT/etc/")" -le 10 ]
	local bytes
	bytes=$(grep -E 'write(64)?\(' "$BATS_TEST_TMPDIR/trace" | grep -E "$ROOT/(img|etc/cryptconf/headers)/" |
		sed -n 's/.* = \([0-9]*\)$/\1/p' | paste -sd+ | bc)
	[ "$bytes" -gt 0 ]
	[ "$bytes" -le $((FLEET * 600 * 1024)) ]
	# Each KEK is read once for all devices, and the new one, too, when it has been written.
	[ "$(traced 'openat.*1\.kek", O_RDONLY')" = 1 ]
	[ "$(traced 'openat.*2\.kek", O_RDONLY')" = 2 ]
	# Headers are read when there is a reason to (it was five times as often once).
	[ "$(traced 'pread64\(')" -le $((30 * FLEET)) ]
	# The naming rule and crypttab are not asked anew for each pair of devices.
	[ "$(traced 'stat(at|x)?(64)?\(')" -le $((100 * FLEET)) ]
	[ "$(traced 'openat.*/etc/crypttab", O_RDONLY')" -le 10 ]
	run -0 --separate-stderr qs --json keystore status
	[ "$(jq -c '[.result.generations[] | [.number, .devices]]' <<<"$output")" = "[[1,0],[2,$FLEET]]" ]
}
