/*
 * TTLV, the encoding of KMIP messages (OASIS KMIP 1.2, 9.1): tag (3 bytes), type (1),
 * length (4), value, zeros up to a multiple of 8, all big-endian. Bytes to bytes: no
 * I/O and no allocation, so that nothing is as large as a foreign length says.
 */
#ifndef QS_TTLV_TTLV_H
#define QS_TTLV_TTLV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define QS_TTLV_HEADER_L 8        /* bytes before a value */
#define QS_TTLV_MESSAGE_MAX 65536 /* bytes; 128 keys in one answer have 30 000 */
#define QS_TTLV_DEPTH_MAX 32      /* structures in structures; KMIP has 9 */

enum qs_ttlv_type {
	QS_TTLV_STRUCTURE = 1,
	QS_TTLV_INTEGER,
	QS_TTLV_LONG,
	QS_TTLV_BIG,
	QS_TTLV_ENUMERATION,
	QS_TTLV_BOOLEAN,
	QS_TTLV_TEXT,
	QS_TTLV_BYTES,
	QS_TTLV_DATE,
	QS_TTLV_INTERVAL,
	QS_TTLV_DATE_EXTENDED,
};

/* ---- writing ---- */

/* All zero but for data and size, which are the caller's. */
struct qs_ttlv_writer {
	unsigned char *data;
	size_t size;                    /* bytes that there are */
	size_t used;                    /* bytes that are written */
	size_t open[QS_TTLV_DEPTH_MAX]; /* where the lengths of open structures stand */
	unsigned depth;
	bool full; /* something did not fit; nothing more is written */
};

void qs_ttlv_begin(struct qs_ttlv_writer *w, uint32_t tag); /* a structure */
void qs_ttlv_end(struct qs_ttlv_writer *w);
void qs_ttlv_integer(struct qs_ttlv_writer *w, uint32_t tag, int32_t value);
void qs_ttlv_enumeration(struct qs_ttlv_writer *w, uint32_t tag, uint32_t value);
void qs_ttlv_boolean(struct qs_ttlv_writer *w, uint32_t tag, bool value);
void qs_ttlv_text(struct qs_ttlv_writer *w, uint32_t tag, const char *value);
void qs_ttlv_text_bytes(struct qs_ttlv_writer *w, uint32_t tag, const void *value, size_t size);
void qs_ttlv_bytes(struct qs_ttlv_writer *w, uint32_t tag, const void *value, size_t size);

/* ---- reading ---- */

/* One item; VALUE points into the message. */
struct qs_ttlv {
	uint32_t tag;
	enum qs_ttlv_type type;
	const unsigned char *value;
	size_t size; /* without padding */
};

/*
 * How many bytes the message has whose first QS_TTLV_HEADER_L bytes are HEADER.
 * QS_E_FAILED: it is no structure with TAG, or longer than QS_TTLV_MESSAGE_MAX.
 */
int qs_ttlv_length(const unsigned char *header, uint32_t tag, size_t *ret, struct qs_error *err);

/*
 * Check all of the SIZE bytes: one item that fills them, every type known, every length
 * right for its type and inside of what it lies in, no deeper than QS_TTLV_DEPTH_MAX.
 * Padding may hold anything. Everything below is for items of a checked message.
 * QS_E_FAILED saying where.
 */
int qs_ttlv_check(const unsigned char *data, size_t size, struct qs_ttlv *ret,
		  struct qs_error *err);

/*
 * The child of STRUCTURE behind *AT (0 at first), which moves on. False: there is none, or
 * STRUCTURE is none.
 */
bool qs_ttlv_next(const struct qs_ttlv *structure, size_t *at, struct qs_ttlv *ret);

/*
 * The first child with this tag; *ret is anything when there is none. Others are passed over: newer
 * versions have more of them.
 */
bool qs_ttlv_find(const struct qs_ttlv *structure, uint32_t tag, struct qs_ttlv *ret);

/* The same of this type, and its value. False: there is none, or its type is another. */
bool qs_ttlv_find_structure(const struct qs_ttlv *structure, uint32_t tag, struct qs_ttlv *ret);
bool qs_ttlv_find_integer(const struct qs_ttlv *structure, uint32_t tag, int32_t *ret);
bool qs_ttlv_find_enumeration(const struct qs_ttlv *structure, uint32_t tag, uint32_t *ret);

/* The value of an item of type QS_TTLV_ENUMERATION or QS_TTLV_INTEGER. */
uint32_t qs_ttlv_word(const struct qs_ttlv *item);

/* A text with a NUL behind it. False, too: a NUL in it, or it does not fit into SIZE bytes. */
bool qs_ttlv_find_text(const struct qs_ttlv *structure, uint32_t tag, char *ret, size_t size);

#endif
