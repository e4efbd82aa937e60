# Key servers for Bats: "load kmip" behind "load tree". SERVER is the directory of the real one.
# shellcheck shell=bash

kmip()
{
	"$BATS_TEST_DIRNAME/../kmip-server" "$@"
}

# identity NAME: who we are to the server.
identity()
{
	local dir=$ROOT/etc/cryptconf/kmip
	install -m 0400 "$SERVER/certs/ca.crt" "$dir/ca.pem"
	install -m 0400 "$SERVER/certs/$1.crt" "$dir/client.pem"
	install -m 0400 "$SERVER/certs/$1.key" "$dir/client.key"
}

# servers DIR...: those to ask, in that order, within DEADLINE seconds.
servers()
{
	local dir list=
	for dir; do list+=,localhost:$(<"$dir/port"); done
	printf 'kmip_servers = "%s"; kmip_deadline = %s;\n' "${list#,}" "${DEADLINE:-30}" >"$ROOT/etc/cryptconf/qs-util.conf"
}

setting()
{
	echo "$*" >>"$ROOT/etc/cryptconf/qs-util.conf"
}

# enrolled COUNT [PROVIDER]: that many devices, enabled and enrolled, without another key.
enrolled()
{
	enrolled_with "${2-kmip}" "$1"
}

# The keys that the server has.
keys()
{
	python3 -c 'import sqlite3, sys
for row in sqlite3.connect(sys.argv[1]).execute("SELECT COUNT(*) FROM managed_objects"): print(row[0])' "$SERVER/keys.db"
}
