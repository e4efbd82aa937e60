/*
 * A TCP connection within a deadline.
 */
#define _GNU_SOURCE
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/lookup.h"
#include "kmip/internal.h"

int64_t qs_kmip_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int qs_kmip_wait(int fd, short events, int64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = events };
	int64_t left = deadline - qs_kmip_now();
	int r;

	do
		r = left > 0 ? poll(&p, 1, (int)left) : 0;
	while (r < 0 && errno == EINTR && (left = deadline - qs_kmip_now()) > 0);
	if (r < 0)
		return -errno;
	return r == 0 ? -ETIMEDOUT : 0;
}

static int dial_one(const struct addrinfo *a, int64_t deadline)
{
	QS_AUTO(qs_auto_close)
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t size = sizeof(int);
	int r = 0, problem = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
		if (errno != EINPROGRESS)
			return -errno;
		r = qs_kmip_wait(fd, POLLOUT, deadline);
	}
	if (r == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &size) < 0)
		r = -errno;
	if (r < 0 || problem)
		return r < 0 ? r : -problem;
	return qs_take_fd(&fd);
}

int qs_kmip_dial(const struct qs_kmip_host *host, int64_t deadline, struct qs_error *err)
{
	struct addrinfo *list = NULL;
	int r = qs_look_up(host->name, host->port, deadline - qs_kmip_now(), &list, err);

	if (r < 0)
		return r;
	r = -EADDRNOTAVAIL;
	for (const struct addrinfo *a = list; a && r < 0; a = a->ai_next)
		r = dial_one(a, deadline);
	freeaddrinfo(list);
	if (r == -ETIMEDOUT)
		return qs_fail(err, QS_E_TEMPORARY, "it does not answer");
	return r < 0 ? qs_fail(err, QS_E_TEMPORARY, "cannot connect: %s", strerror(-r)) : r;
}
