#include "key/recovery.h"

#include <ctype.h>
#include <string.h>

#include "base/cleanup.h"

#define LETTERS 64
#define GROUP 8

static const char modhex[] = "cbdefghijklnrtuv";

/* Where letter I stands in the text. */
static size_t place(size_t i)
{
	return i + i / GROUP;
}

static int blank_key(struct qs_secret *ret, struct qs_error *err)
{
	int r = qs_secret_init(ret, QS_RECOVERY_L, err);

	if (r == 0)
		memset(ret->data, '-', QS_RECOVERY_L);
	return r;
}

int qs_recovery_generate(struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret bits = {};
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	int r = qs_secret_random(&bits, LETTERS / 2, err);

	if (r == 0)
		r = blank_key(&key, err);
	if (r != 0)
		return qs_negative(r);
	for (size_t i = 0; i < LETTERS; i++) {
		unsigned byte = ((const unsigned char *)bits.data)[i / 2];

		((char *)key.data)[place(i)] = modhex[i % 2 ? byte & 15 : byte >> 4];
	}
	*ret = qs_secret_move(&key);
	return 0;
}

int qs_recovery_spell(const struct qs_secret *typed, struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	const char *text = typed->data;
	size_t letters = 0;
	int r = blank_key(&key, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < typed->size; i++) {
		int c = tolower((unsigned char)text[i]);

		if (c == '-' || c == ' ')
			continue;
		if (c == '\0' || !strchr(modhex, c) || letters == LETTERS)
			return 0;
		((char *)key.data)[place(letters++)] = (char)c;
	}
	if (letters < LETTERS)
		return 0;
	*ret = qs_secret_move(&key);
	return 1;
}
