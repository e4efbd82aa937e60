# A journal for one command. "load journal" behind "load tree".
# shellcheck shell=bash

# journal ARGUMENT...: qs-util, and what it sends goes to $BATS_TEST_TMPDIR/journal.log, a line per field. In a mount
# namespace of its own, as libsystemd knows one socket only.
journal()
{
	local dir=$BATS_TEST_TMPDIR/journal
	rm -rf "$dir" "$dir.ready"
	mkdir -p "$dir" "$ROOT/run/systemd/journal"
	: >"$ROOT/run/systemd/journal/socket"
	: >"$dir.log"
	# shellcheck disable=SC2016 # they expand in there
	unshare -m sh -euc 'mkdir -p /run/systemd/journal; mount --bind "$1" /run/systemd/journal
		python3 -B -c "
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(\"/run/systemd/journal/socket\")
print(\"ready\", flush=True)
s.settimeout(60)
while True:
    data = s.recv(1 << 16)
    if data == b\"end\": break
    open(sys.argv[1], \"ab\").write(data + b\"\\n--\\n\")
" "$1.log" >"$1.ready" & server=$!
		while ! grep -q ready "$1.ready"; do sleep 0.05; done
		log=$1; shift
		"$@" || status=$?
		python3 -B -c "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b\"end\", \"/run/systemd/journal/socket\")"
		wait $server
		exit ${status-0}' sh "$dir" "$QS_UTIL" --root="$ROOT" "$@"
}
