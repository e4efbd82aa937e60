/*
 * mkheader IMAGE CASE: make the LUKS2 header of IMAGE hostile in one of the
 * ways of headers.c, with right checksums; without arguments: list the cases.
 */
#include <err.h>
#include <stdio.h>

#include "headers.h"

int main(int argc, char **argv)
{
	if (argc != 3) {
		for (size_t i = 0; i < headers_case_count; i++)
			puts(headers_cases[i].name);
		return argc == 1 ? 0 : 64;
	}
	if (headers_break(argv[1], argv[2]) < 0)
		errx(64, "there is no case called %s", argv[2]);
	return 0;
}
