/*
 * Headers that no honest tool writes, for tests: an image formatted by stock
 * cryptsetup is edited and its checksums are put right again, so that only a
 * reader that looks at the meaning can refuse it.
 */
#ifndef QS_TESTS_HEADERS_H
#define QS_TESTS_HEADERS_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

/*
 * Make "key" (64 bytes) and "luks2.img" (64 MiB, sparse; metadata areas of 128
 * KiB as we make them, formatted by stock cryptsetup with OPTIONS) in the
 * working directory, and let every command of an administrator be found.
 * Returns 0.
 */
int headers_format(const char *options);

/* Run a shell command, its output in the file "log". Returns its exit status. */
int headers_shell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Both copies of a LUKS2 header in memory. */
struct headers_pair {
	uint8_t *copy[2];
	size_t size;  /* bytes of one copy */
	json_t *json; /* the first copy's text */
};

/* All functions end the program with a message when the image cannot be used. */
void headers_load(const char *image, struct headers_pair *ret);
void headers_done(struct headers_pair *pair); /* also a cleanup releaser */

/* Put TEXT (LENGTH bytes, then zeros) or PAIR's own JSON into the JSON area of copy WHICH. */
void headers_put_text(struct headers_pair *pair, unsigned which, const char *text, size_t length);
void headers_put_json(struct headers_pair *pair, unsigned which);

/* Big-endian numbers of the binary block. */
enum headers_field { HEADERS_SIZE = 8, HEADERS_SEQID = 16, HEADERS_OFFSET = 256 };
void headers_put_number(struct headers_pair *pair, unsigned which, enum headers_field field,
			uint64_t value);

/* Write copy WHICH to where it belongs, with the checksum put right. */
void headers_store(const char *image, const struct headers_pair *pair, unsigned which);

/* One way to make a header hostile. */
struct headers_case {
	const char *name;
	const char *sentence; /* a part of what qs_luks_json_check() says */
	void (*edit)(json_t *json);
};

extern const struct headers_case headers_cases[];
extern const size_t headers_case_count;

/* Make the header of IMAGE hostile in the way called NAME. Returns 0, or -1 for an unknown name. */
int headers_break(const char *image, const char *name);

#endif
