#include "key/passphrase.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "key/keyfile.h"

/* The newline behind it, and one byte more to see that it is too long. */
#define BUFFER_SIZE (QS_PASSPHRASE_MAX + 2)

int qs_passphrase_finish(struct qs_secret *s, size_t size, const char *name, struct qs_error *err)
{
	const char *text = s->data;

	if (size > 0 && text[size - 1] == '\n')
		size--;
	if (size == 0)
		return qs_fail(err, QS_E_KEY_FILE, "the passphrase from %s is empty", name);
	if (size > QS_PASSPHRASE_MAX)
		return qs_fail(err, QS_E_KEY_FILE,
			       "the passphrase from %s is longer than %d bytes; for more, use a "
			       "key file",
			       name, QS_PASSPHRASE_MAX);
	if (memchr(text, '\n', size))
		return qs_fail(err, QS_E_KEY_FILE,
			       "%s has more than one line; a passphrase is a single line", name);
	if (memchr(text, '\0', size))
		return qs_fail(err, QS_E_KEY_FILE,
			       "the passphrase from %s has a NUL byte in it, which nobody can type",
			       name);
	s->size = size;
	return 0;
}

/* poll() and not read() waits: it ends at a caught signal though SA_RESTART is set. */
static ssize_t read_some(int fd, char *data, size_t size)
{
	struct pollfd p = { fd, POLLIN, 0 };
	ssize_t n = poll(&p, 1, -1);

	if (n >= 0)
		n = read(fd, data, size);
	return n < 0 ? -errno : n;
}

int qs_passphrase_read_fd(int fd, const char *name, struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret s = {};
	size_t size = 0;
	int r = qs_secret_init(&s, BUFFER_SIZE, err);

	while (r == 0 && size < BUFFER_SIZE) {
		ssize_t n = read_some(fd, (char *)s.data + size, BUFFER_SIZE - size);

		if (n == -EAGAIN)
			continue;
		if (n == -EINTR)
			return qs_fail(err, QS_E_INTERRUPTED,
				       "interrupted while reading the passphrase from %s", name);
		if (n < 0)
			return qs_fail_errno(err, (int)n, "cannot read the passphrase from %s",
					     name);
		if (n == 0)
			break;
		size += (size_t)n;
	}
	if (r == 0)
		r = qs_passphrase_finish(&s, size, name, err);
	if (r == 0)
		*ret = qs_secret_move(&s);
	return r;
}

int qs_passphrase_read_file(const char *path, struct qs_secret *ret, struct qs_error *err)
{
	/* O_NONBLOCK: an open of a FIFO must not hang; read_some() waits for its writer. */
	QS_AUTO(qs_auto_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	const char *problem = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return qs_fail_errno(err, errno, "cannot open the passphrase file %s", path);
	if (S_ISDIR(st.st_mode))
		return qs_fail(err, QS_E_KEY_FILE, "the passphrase file %s is a directory", path);
	if (S_ISREG(st.st_mode))
		problem = qs_key_not_private(&st, 077);
	if (problem)
		return qs_fail(err, QS_E_KEY_FILE, "the passphrase file %s %s; chmod 0400 %s", path,
			       problem, path);
	return qs_passphrase_read_fd(fd, path, ret, err);
}
