#!/usr/bin/env bats
# The manual pages: well-formed, complete, and no example that nobody runs.

bats_require_minimum_version 1.5.0

setup()
{
	top=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
	QS_UTIL=${QS_UTIL:-$top/build/qs-util}
	export LC_ALL=C.UTF-8
	cd "$BATS_TEST_TMPDIR" || return
}

# The argument of each call of WORD in examples.bats.
run_by()
{
	sed -n "s/.*\b$1 '\([^']*\)'.*/\1/p" "$top/tests/guest/examples.bats" | sort -u
}

# What stands between .EX and .EE, without roff's escapes, a command in one line.
shown_in()
{
	sed -n '/^\.EX/,/^\.EE/{/^\.E/d;s/\\e$/\\/;s/\\\([-(]\)/\1/g;p}' "$1" |
		sed -e ':a' -e '/\\$/N;s/ *\\\n */ /;ta'
}

@test "every command has a page with examples, and the page is where NAME says" {
	local name
	for name in $("$QS_UTIL" help --format=json | jq -r '.commands[].name'); do
		grep -qE "^qs\\\\-util\\\\-$name \\\\- " "$top/man/qs-util-$name.8"
		grep -q '^\.SH EXAMPLES' "$top/man/qs-util-$name.8" || { echo "$name has no example"; return 1; }
	done
}

@test "every example of the manual is run in the guest" {
	"$QS_UTIL" help --format=json | jq -r '.commands[].examples[].line' >lines
	shown_in "$top/man/qs-util.8.in" | sed -n 's/^qs-util //p' >>lines
	[ -s lines ]
	diff <(sort -u lines) <(run_by example)
	diff <(shown_in "$top/man/qs-util.8.in" | grep -v '^qs-util ' | sort -u) <(run_by shown)
}

@test "other pages that are named exist, if they are ours" {
	local page
	while read -r page; do
		[ -e "$top/man/$page.8" ] || { echo "there is no $page(8)"; return 1; }
	done < <(grep -ohE 'qs\\-util\\-[a-z]+\\fR\(8\)' "$top"/man/*.8 | sed 's/\\fR.*//; s/\\//g' | sort -u)
}

@test "roff has nothing to complain of" {
	local page
	for page in "$top"/man/*.[58]; do
		run -0 --separate-stderr man --warnings -E UTF-8 -l -Tutf8 "$page"
		[ -z "$stderr" ] || { echo "$page: $stderr"; return 1; }
		# That no date stands in the head is meant: a version does.
		mandoc -Tlint -Wwarning "$page" | grep -v 'missing date' >lint || true
		[ ! -s lint ] || { cat lint; return 1; }
	done
}
