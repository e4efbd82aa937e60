/*
 * Scope cleanup: one attribute, one releaser per type. Every releaser accepts
 * an empty variable, so an early return is always safe.
 */
#ifndef QS_BASE_CLEANUP_H
#define QS_BASE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <jansson.h>
#include <libcryptsetup.h>

/* The variable is released by RELEASER(&variable) when it leaves its scope. */
#define QS_AUTO(releaser) __attribute__((cleanup(releaser)))

/* The number of elements of an array (not of a pointer). */
#define QS_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static inline void qs_auto_free(void *pointer)
{
	void **p = pointer;

	free(*p);
	*p = NULL;
}

/* Keeps errno: a cleanup must not change the reason of a failure. */
static inline void qs_auto_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

static inline void qs_auto_fclose(FILE **f)
{
	if (*f)
		fclose(*f);
	*f = NULL;
}

static inline void qs_auto_closedir(DIR **d)
{
	if (*d)
		closedir(*d);
	*d = NULL;
}

static inline void qs_auto_json(json_t **j)
{
	json_decref(*j);
	*j = NULL;
}

static inline void qs_auto_cd(struct crypt_device **cd)
{
	crypt_free(*cd);
	*cd = NULL;
}

/* Hand a file descriptor to the caller; the local variable no longer owns it. */
static inline int qs_take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

/* Hand a pointer to the caller; the local variable no longer owns it. */
#define QS_TAKE(p)                                                                                 \
	({                                                                                         \
		__typeof__(p) taken_ = (p);                                                        \
		(p) = NULL;                                                                        \
		taken_;                                                                            \
	})

#endif
