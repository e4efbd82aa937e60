#define _GNU_SOURCE
#include "base/secret.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/capability.h>

#include <jansson.h>

/*
 * Before the bytes of a secret; as wide as the alignment that malloc() promises, and more.
 *
 * A secret has its pages to itself. Locks are by page and do not nest: where small ones share a
 * page, as those of crypt_safe_alloc() (libcryptsetup 2.6) do, the end of one unlocks its
 * neighbours.
 */
struct pages {
	_Alignas(64) size_t size; /* of all, bytes */
};

int qs_secret_init(struct qs_secret *ret, size_t size, struct qs_error *err)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t all = (sizeof(struct pages) + size + page - 1) / page * page;
	void *memory = NULL;
	struct pages *pages;

	if (all < size || posix_memalign(&memory, page, all) != 0)
		return qs_fail(err, QS_E_MEMORY, "no memory for a secret of %zu bytes", size);
	(void)mlock(memory, all);
	memset(memory, 0, all);
	pages = memory;
	pages->size = all;
	ret->data = pages + 1;
	ret->size = size;
	return 0;
}

int qs_secret_random(struct qs_secret *ret, size_t size, struct qs_error *err)
{
	struct qs_secret s = {};
	size_t done = 0;
	int r = qs_secret_init(&s, size, err);

	if (r < 0)
		return r;
	while (done < size) {
		ssize_t n = getrandom((char *)s.data + done, size - done, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			r = qs_fail_errno(err, errno, "cannot get random bytes from the kernel");
			qs_secret_done(&s);
			return r;
		}
		done += (size_t)n;
	}
	*ret = qs_secret_move(&s);
	return 0;
}

int qs_secret_copy(const struct qs_secret *from, struct qs_secret *ret, struct qs_error *err)
{
	int r = qs_secret_init(ret, from->size, err);

	if (r == 0)
		memcpy(ret->data, from->data, from->size);
	return r;
}

/* glibc has no capget(); libcap would be a library for one call. */
static bool may_lock(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};

	return syscall(SYS_capget, &header, data) == 0 &&
	       data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK);
}

void qs_secret_lock_all(void)
{
	if (may_lock())
		(void)mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
}

void qs_secret_lock(const struct qs_secret *s)
{
	(void)mlock(s->data, s->size);
}

int qs_secret_share(void **ret, size_t size, struct qs_error *err)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return qs_fail_errno(err, errno, "no memory for secrets of %zu bytes", size);
	(void)mlock(memory, size);
	(void)madvise(memory, size, MADV_DONTDUMP);
	*ret = memory;
	return 0;
}

void qs_secret_unshare(void *shared, size_t size)
{
	if (!shared)
		return;
	explicit_bzero(shared, size);
	(void)munmap(shared, size);
}

void qs_secret_done(struct qs_secret *s)
{
	struct pages *pages = s->data ? (struct pages *)s->data - 1 : NULL;

	if (pages) {
		size_t all = pages->size;

		explicit_bzero(pages, all);
		(void)munlock(pages, all);
		free(pages);
	}
	s->data = NULL;
	s->size = 0;
}

/* What malloc() gave before can be released by this, too: it is asked for the size. */
static void wipe_and_free(void *p)
{
	if (p)
		explicit_bzero(p, malloc_usable_size(p));
	free(p);
}

void qs_secret_wipe_json(void)
{
	json_set_alloc_funcs(malloc, wipe_and_free);
}

struct qs_secret qs_secret_move(struct qs_secret *from)
{
	struct qs_secret moved = *from;

	from->data = NULL;
	from->size = 0;
	return moved;
}

bool qs_secret_equal(const struct qs_secret *a, const struct qs_secret *b)
{
	const unsigned char *x = a->data, *y = b->data;
	unsigned char difference = 0;

	if (a->size != b->size)
		return false;
	for (size_t i = 0; i < a->size; i++)
		difference |= x[i] ^ y[i];
	return difference == 0;
}
