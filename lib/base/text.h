/*
 * Small text: sizes and durations as people write them, and the bytes that may
 * stand in a table.
 */
#ifndef QS_BASE_TEXT_H
#define QS_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/*
 * "4096", "512 KiB", "4MiB": a decimal number, and B, KiB, MiB, GiB or TiB with
 * or without blanks before it. *ret is in bytes.
 * Returns: -EINVAL not of this form; -ERANGE does not fit.
 */
int qs_text_parse_size(const char *text, uint64_t *ret);

/* "90", "90s", "5 m", "2h": *ret is in seconds. Returns as qs_text_parse_size(). */
int qs_text_parse_seconds(const char *text, uint64_t *ret);

/*
 * A span of days and more: "10D", "6W", "2M" (30 days each), "1Y" (365 days), and h, m, s; d is
 * D. *ret is in seconds. Returns as qs_text_parse_size().
 */
int qs_text_parse_span(const char *text, uint64_t *ret);

enum qs_text_form {
	QS_TEXT_RFC3339, /* 2026-11-22T14:05:00Z */
	QS_TEXT_COMPACT, /* 20261122T140500Z, for names of files */
};

/* A time in UTC, to the second; only what is printed is taken. Returns -EINVAL. */
int qs_text_parse_time(const char *text, enum qs_text_form form, time_t *ret);

#define QS_TEXT_TIME_L 32

/* The reverse; "" where there is none (the year 10000 and more). Returns RET. */
const char *qs_text_print_time(time_t when, enum qs_text_form form, char ret[QS_TEXT_TIME_L]);

#define QS_TEXT_SIZE_L 32

/* The shortest exact form, "128 KiB"; what is no multiple of a unit in bytes: "1000 B". */
void qs_text_print_size(uint64_t bytes, char ret[QS_TEXT_SIZE_L]);

/* For a sentence: "1 second", "30 seconds". Returns RET. */
const char *qs_text_seconds(uint64_t seconds, char ret[QS_TEXT_SIZE_L]);

/*
 * True for a byte that systemd and Debian's scripts both take literally in a
 * field of crypttab: visible ASCII but no backslash, quote or '$' (which systemd
 * expands in the unit that it makes of the line).
 */
bool qs_text_is_plain(char c);

/*
 * True for a byte that device-mapper keeps as it is in the name of a mapping,
 * so that /dev/mapper/NAME is literally that: libdevmapper's and udev's list.
 */
bool qs_text_is_name(char c);

/*
 * True for an absolute path without empty, "." or ".." parts and without a '/'
 * at its end: the only spelling that systemd accepts for a device.
 */
bool qs_text_is_normal_path(const char *text);

#endif
