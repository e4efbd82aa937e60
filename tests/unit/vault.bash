# The double of Vault and OpenBao, for Bats: "load tree", "load vault", then make_tree and vault_setup.
# shellcheck shell=bash

vault_setup()
{
	KEYSTORE=$ROOT/etc/cryptconf/keystore
	SERVER=$BATS_TEST_TMPDIR/server
	OTHER=$BATS_TEST_TMPDIR/other
	mkdir -p "$ROOT/etc/cryptconf/vault"
}

teardown()
{
	double stop "$SERVER"
	double stop "$OTHER"
}

double()
{
	"$BATS_TEST_DIRNAME/../vault-server" "$@"
}

# started AGE: the server, and what this machine knows of it.
started()
{
	double start "$SERVER" "$1"
	install -m 0400 "$SERVER/certs/ca.crt" "$ROOT/etc/cryptconf/vault/ca.pem"
	install -m 0400 "$SERVER/secret-id" "$ROOT/etc/cryptconf/vault/secret-id"
	servers "$SERVER"
}

# servers DIR...: those to ask, in that order. DEADLINE: for all of them; the default is for tests in
# which one says nothing.
servers()
{
	local dir list=
	for dir; do list+=,localhost:$(<"$dir/port"); done
	printf 'vault_servers = "%s"; vault_deadline = %s; vault_role_id = "%s";\n' "${list#,}" "${DEADLINE:-3}" \
		"$(<"$SERVER/role-id")" >"$ROOT/etc/cryptconf/qs-util.conf"
}

setting()
{
	echo "$*" >>"$ROOT/etc/cryptconf/qs-util.conf"
}

# rules LINE...: how the server misbehaves from now on; counts anew.
rules()
{
	printf '%s\n' "$@" >"$SERVER/rules.new"
	mv "$SERVER/rules.new" "$SERVER/rules"
	: >"$SERVER/requests"
}

# asked REGEX: how often the server has been, since the rules were set.
asked()
{
	grep -cE "$1" "$SERVER/requests" || true
}

# admin METHOD PATH [BODY]: somebody with all rights asks the server.
admin()
{
	curl -sS --fail-with-body --cacert "$SERVER/certs/ca.crt" -H "X-Vault-Token: $(<"$SERVER/token")" \
		-X "$1" ${3+--data "$3"} "https://localhost:$(<"$SERVER/port")/v1/$2"
}

own_key()
{
	echo "qs-util-$(jq -r .store "$KEYSTORE/keystore.json")"
}

# copied FROM NUMBER...: those devices are copies of that one.
copied()
{
	local n line
	line=$(grep -w "scsi-3000$1" "$ROOT/etc/crypttab")
	for n in "${@:2}"; do
		cp --sparse=always "$(image_of "$1")" "$ROOT/img/d$n"
		ln -sfn "$ROOT/img/d$n" "$ROOT${ID}$n"
		echo "${line//scsi-3000$1/scsi-3000$n}" >>"$ROOT/etc/crypttab"
	done
}

# held_at N before|after ARGUMENT...: starts a command, $pid, and waits until it has sent its Nth request
# and the server, which answers no more, has (not) done it. Fails when the command ends with fewer.
held_at()
{
	rm -f "$SERVER/held"
	rules "hold nth=$1 when=$2"
	setsid "$QS_UTIL" --root="$ROOT" "${@:3}" </dev/null >"$BATS_TEST_TMPDIR/killed" 2>&1 &
	pid=$!
	until [ -e "$SERVER/held" ]; do
		kill -0 "$pid" 2>/dev/null || { wait "$pid" || return 2; return 1; }
		sleep 0.02
	done
}

# killed_at N before|after ARGUMENT...: all processes of a command are killed there.
killed_at()
{
	local pid
	held_at "$@" || return
	kill -9 -- "-$pid"
	wait "$pid" || true
	rules ''
}

# interrupted_at N before|after ARGUMENT...: Ctrl-C there; output and status are the command's.
interrupted_at()
{
	local pid
	held_at "$@"
	kill -INT -- "-$pid"
	wait "$pid" || { pid=$?; cat "$BATS_TEST_TMPDIR/killed"; rules ''; return "$pid"; }
	cat "$BATS_TEST_TMPDIR/killed"
	rules ''
}

# exchanges ARGUMENT...: how many requests the command makes.
exchanges()
{
	rules ''
	"$QS_UTIL" --root="$ROOT" "$@" </dev/null >&2
	wc -l <"$SERVER/requests"
}

# swept COUNT: the points at which to kill, half of them unless QS_FAULT_ALL is set.
swept()
{
	local n
	for ((n = 1; n <= $1; n++)); do
		[ -z "${QS_FAULT_ALL-}" ] || printf "%s\n" "$n before" "$n after"
		[ -n "${QS_FAULT_ALL-}" ] || { ((n % 2)) && echo "$n after" || echo "$n before"; }
	done
}

# within NAMESPACE METHOD PATH [BODY]: as admin, in that namespace.
within()
{
	curl -sS --fail-with-body --cacert "$SERVER/certs/ca.crt" -H "X-Vault-Token: $(<"$SERVER/token")" \
		-H "X-Vault-Namespace: $1" -X "$2" ${4+--data "$4"} "https://localhost:$(<"$SERVER/port")/v1/$3"
}

# policy PREFIX: what the keys PREFIX* of the transit engine may be used for, as JSON.
policy()
{
	jq -n --arg p "$1" '{policy: ([["encrypt", "update"], ["decrypt", "update"]][] as [$what, $may] |
		"path \"transit/\($what)/\($p)*\" { capabilities = [\"\($may)\"] }\n"),
		more: "path \"transit/keys/\($p)*\" { capabilities = [\"create\",\"read\",\"update\",\"delete\"] }"}' |
		jq -s '{policy: (map(.policy) + [.[0].more] | join("\n"))}'
}

# namespace NAME: a namespace with transit and AppRole, and a role "team" for its keys; its role-id
# is in the file NAME.role, its secret-id in NAME.secret below $SERVER.
namespace()
{
	admin POST "sys/namespaces/$1"
	within "$1" POST sys/mounts/transit '{"type":"transit"}'
	within "$1" POST sys/auth/approle '{"type":"approle"}'
	within "$1" POST sys/policies/acl/team "$(policy '')"
	within "$1" POST auth/approle/role/team '{"token_policies":"team","token_ttl":"20m"}'
	within "$1" GET auth/approle/role/team/role-id | jq -r .data.role_id >"$SERVER/$1.role"
	within "$1" POST auth/approle/role/team/secret-id | jq -r .data.secret_id >"$SERVER/$1.secret"
}
