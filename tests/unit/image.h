/*
 * One image after the other, read as the library reads it. Include after
 * cmocka.h.
 */
#ifndef QS_TESTS_IMAGE_H
#define QS_TESTS_IMAGE_H

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "headers.h"
#include "luks/header.h"
#include "scratch.h"

#define IMAGE "x.img"
#define COPY_L (128L << 10) /* bytes of one copy of luks2.img's header */
#define SHOWN_L (2UL << 20) /* bytes compared where reading must not write */

static char *image_scratch;

/* Group setup: a working directory of our own, with luks2.img. */
static inline int image_setup(void **state)
{
	(void)state;
	image_scratch = scratch_make();
	if (chdir(image_scratch) < 0)
		return -1;
	return headers_format("--pbkdf pbkdf2 --pbkdf-force-iterations 1000");
}

static inline int image_teardown(void **state)
{
	(void)state;
	if (chdir("/") < 0)
		return -1;
	scratch_drop(image_scratch);
	return 0;
}

/* IMAGE becomes a copy of BASE. */
static inline void fresh(const char *base)
{
	assert_int_equal(headers_shell("cp --sparse=always %s " IMAGE, base), 0);
}

static inline void assert_shell(const char *command)
{
	if (headers_shell("%s", command) != 0)
		fail_msg("failed: %s", command);
}

/* The header of IMAGE and its damage, read through a descriptor that cannot write. */
static inline struct qs_luks_header read_image(char **ret_damage)
{
	QS_AUTO(qs_auto_close) int fd = open(IMAGE, O_RDONLY | O_CLOEXEC);
	struct qs_luks_header h = {};
	struct qs_error err = {};

	if (qs_luks_header_read(fd, &h, &err) < 0)
		fail_msg("%s", err.text);
	*ret_damage = qs_luks_header_damage(&h, fd, IMAGE);
	return h;
}

/* Read IMAGE and expect these states and a damage that contains SENTENCE (NULL: none). */
static inline void assert_header(int version, enum qs_copy_state first, enum qs_copy_state second,
				 const char *sentence)
{
	QS_AUTO(qs_auto_free) char *damage = NULL;
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = read_image(&damage);

	assert_int_equal(h.version, version);
	assert_int_equal(h.copy[0], first);
	assert_int_equal(h.copy[1], second);
	assert_int_equal(h.json != NULL, version == 2);
	if (sentence ? !damage || !strstr(damage, sentence) : damage != NULL)
		fail_msg("the damage is: %s", damage ? damage : "none");
}

static inline char *first_bytes(void)
{
	char *bytes = malloc(SHOWN_L);
	QS_AUTO(qs_auto_close) int fd = open(IMAGE, O_RDONLY | O_CLOEXEC);

	assert_non_null(bytes);
	assert_int_equal(qs_file_pread(fd, bytes, SHOWN_L, 0), 0);
	return bytes;
}

static inline void write_at(off_t offset, const void *data, size_t size)
{
	QS_AUTO(qs_auto_close) int fd = open(IMAGE, O_WRONLY | O_CLOEXEC);

	assert_int_equal(qs_file_pwrite(fd, data, size, offset), 0);
}

#endif
