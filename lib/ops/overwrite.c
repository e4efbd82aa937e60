#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "ops/internal.h"

/* O_DIRECT wants aligned memory; 4096 fits every disk there is. */
#define ALIGNMENT 4096U
#define CHUNK (4U << 20)

struct pass {
	const struct qs_overwrite *how;
	const char *step;
	int percent; /* told last */
	char *chunk;
};

/* Called before each chunk. */
static int tell(struct pass *pass, uint64_t at, struct qs_error *err)
{
	const struct qs_overwrite *how = pass->how;
	int percent = (int)(at * 100 / how->dev->size);
	char step[32];

	if (qs_pool_interrupted())
		return qs_fail(err, QS_E_INTERRUPTED, "interrupted while overwriting %s",
			       how->dev->node);
	if (percent == pass->percent)
		return 0;
	pass->percent = percent;
	(void)snprintf(step, sizeof(step), "%s %d%%", pass->step, percent);
	qs_env_progress(how->env, how->label, step, how->done, how->total);
	return 0;
}

static int write_zeros(struct pass *pass, int fd, struct qs_error *err)
{
	const struct qs_device *dev = pass->how->dev;
	int flags = fcntl(fd, F_GETFL);
	int r = 0;

	/* Past the cache: memory is short just after swap was switched off. */
	if (dev->kind != QS_DEVICE_IMAGE)
		(void)fcntl(fd, F_SETFL, flags | O_DIRECT);
	memset(pass->chunk, 0, CHUNK);
	for (uint64_t at = pass->how->from; r == 0 && at < dev->size; at += CHUNK) {
		uint64_t left = dev->size - at;

		r = tell(pass, at, err);
		if (r < 0)
			break;
		r = qs_file_pwrite(fd, pass->chunk, left < CHUNK ? left : CHUNK, (off_t)at);
		if (r < 0)
			(void)qs_fail_errno(err, r, "cannot overwrite %s", dev->node);
	}
	(void)fcntl(fd, F_SETFL, flags);
	if (r == 0 && fsync(fd) < 0)
		r = qs_fail_errno(err, errno, "cannot sync %s", dev->node);
	return r;
}

static bool is_zero(const char *data, size_t size)
{
	return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

/* One chunk at AT; whole chunks are asked for, as O_DIRECT wants it. Returns its size. */
static ssize_t read_chunk(const struct pass *pass, int fd, uint64_t at)
{
	ssize_t n;

	do
		n = pread(fd, pass->chunk, CHUNK, (off_t)at);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static int read_again(struct pass *pass, struct qs_error *err)
{
	const struct qs_device *dev = pass->how->dev;
	QS_AUTO(qs_auto_close) int fd = qs_device_open_uncached(dev->node, err);
	ssize_t n;
	int r = fd < 0 ? fd : 0;

	for (uint64_t at = pass->how->from; r == 0 && at < dev->size; at += (uint64_t)n) {
		r = tell(pass, at, err);
		if (r < 0)
			break;
		n = read_chunk(pass, fd, at);
		if (n <= 0)
			return qs_fail_errno(err, n < 0 ? (int)n : EIO, "cannot read %s again",
					     dev->node);
		if (!is_zero(pass->chunk, (size_t)n))
			return qs_fail(err, QS_E_IO,
				       "%s reads back differently from what was written",
				       dev->node);
	}
	return r;
}

int qs_device_overwrite(const struct qs_overwrite *how, int fd, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *chunk = aligned_alloc(ALIGNMENT, CHUNK);
	struct pass pass = { .how = how, .step = "overwrite", .percent = -1, .chunk = chunk };
	int r;

	if (!chunk)
		return qs_fail(err, QS_E_MEMORY, "no memory to overwrite %s", how->dev->node);
	r = write_zeros(&pass, fd, err);
	if (r < 0)
		return r;
	pass.step = "verify";
	return read_again(&pass, err);
}
