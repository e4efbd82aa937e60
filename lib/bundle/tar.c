#include "bundle/tar.h"

#include <stdio.h>
#include <string.h>

/* Fields of POSIX.1-1988, "ustar": offset and length of each in the block. */
enum {
	NAME = 0,
	NAME_L = 100,
	MODE = 100,
	UID = 108,
	GID = 116,
	ID_L = 8,
	SIZE = 124,
	MTIME = 136,
	NUMBER_L = 12,
	SUM = 148,
	SUM_L = 8,
	TYPE = 156,
	MAGIC = 257,
	MAGIC_L = 8,
	PREFIX = 345,
	PREFIX_L = 155,
};

static const char magic[MAGIC_L] = { 'u', 's', 't', 'a', 'r', '\0', '0', '0' };

/* Where a name is cut into prefix and name: its slash, NULL when it fits whole, or NAME itself. */
static const char *cut_of(const char *name)
{
	size_t length = strlen(name);
	const char *p;

	if (length <= NAME_L)
		return NULL;
	for (p = strchr(name, '/'); p; p = strchr(p + 1, '/'))
		if (p > name && p - name <= PREFIX_L && length - (size_t)(p - name) - 1 <= NAME_L)
			return p;
	return name;
}

bool qs_tar_fits(const char *name)
{
	return *name && cut_of(name) != name;
}

/* LENGTH - 1 octal digits and a NUL. */
static void put_octal(unsigned char *field, size_t length, uint64_t value)
{
	field[--length] = '\0';
	while (length > 0) {
		field[--length] = (unsigned char)('0' + (value & 7));
		value >>= 3;
	}
}

/* The sum of all bytes, those of the sum itself counted as blanks. */
static unsigned sum_of(const unsigned char *block)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < QS_TAR_BLOCK; i++)
		sum += i >= SUM && i < SUM + SUM_L ? ' ' : block[i];
	return sum;
}

void qs_tar_encode(const struct qs_tar_header *h, unsigned char block[QS_TAR_BLOCK])
{
	const char *cut = cut_of(h->name);

	memset(block, 0, QS_TAR_BLOCK);
	if (cut) {
		memcpy(block + PREFIX, h->name, (size_t)(cut - h->name));
		memcpy(block + NAME, cut + 1, strlen(cut + 1));
	} else {
		memcpy(block + NAME, h->name, strlen(h->name));
	}
	put_octal(block + MODE, ID_L, h->mode);
	put_octal(block + UID, ID_L, 0);
	put_octal(block + GID, ID_L, 0);
	put_octal(block + SIZE, NUMBER_L, h->size);
	put_octal(block + MTIME, NUMBER_L, h->mtime > 0 ? (uint64_t)h->mtime : 0);
	block[TYPE] = h->directory ? '5' : '0';
	memcpy(block + MAGIC, magic, MAGIC_L);
	put_octal(block + SUM, SUM_L - 1, sum_of(block));
	block[SUM + SUM_L - 1] = ' ';
}

/* Octal digits up to a NUL or a blank, at least one. Returns false for anything else. */
static bool get_octal(const unsigned char *field, size_t length, uint64_t *ret)
{
	uint64_t value = 0;
	size_t i = 0;

	for (; i < length && field[i] >= '0' && field[i] <= '7'; i++)
		value = value << 3 | (field[i] - (unsigned)'0');
	if (i == 0 || (i < length && field[i] != '\0' && field[i] != ' '))
		return false;
	*ret = value;
	return true;
}

static void get_name(const unsigned char *block, char ret[QS_TAR_NAME_L])
{
	const char *name = (const char *)block + NAME, *prefix = (const char *)block + PREFIX;

	(void)snprintf(ret, QS_TAR_NAME_L, "%.*s%s%.*s", PREFIX_L, prefix, *prefix ? "/" : "",
		       NAME_L, name);
}

static bool is_zero(const unsigned char *block)
{
	for (unsigned i = 0; i < QS_TAR_BLOCK; i++)
		if (block[i])
			return false;
	return true;
}

int qs_tar_decode(const unsigned char block[QS_TAR_BLOCK], struct qs_tar_header *ret,
		  struct qs_error *err)
{
	struct qs_tar_header h = { .directory = block[TYPE] == '5' };
	uint64_t sum, mode, mtime;

	if (is_zero(block))
		return 0;
	if (memcmp(block + MAGIC, magic, MAGIC_L) != 0 || !get_octal(block + SUM, SUM_L, &sum) ||
	    sum != sum_of(block))
		return qs_fail(err, QS_E_FAILED, "there is no tar header where one must be");
	if (block[TYPE] != '0' && block[TYPE] != '5')
		return qs_fail(err, QS_E_FAILED,
			       "it holds something that is neither a file nor a directory");
	if (!get_octal(block + SIZE, NUMBER_L, &h.size) || !get_octal(block + MODE, ID_L, &mode) ||
	    !get_octal(block + MTIME, NUMBER_L, &mtime) || (h.directory && h.size > 0))
		return qs_fail(err, QS_E_FAILED, "a tar header has a number that cannot be");
	get_name(block, h.name);
	h.mode = (unsigned)mode & 07777U;
	h.mtime = (time_t)mtime;
	*ret = h;
	return 1;
}
