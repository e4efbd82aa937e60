#define _GNU_SOURCE
#include "base/lookup.h"

#include <stdio.h>
#include <stdlib.h>

/* What glibc works on in a thread of its own; it outlives a time that is over. */
struct lookup {
	struct gaicb request;
	struct addrinfo hints;
	char name[300], port[12]; /* as long as settings may have them */
};

int qs_look_up(const char *name, const char *port, int64_t ms, struct addrinfo **ret,
	       struct qs_error *err)
{
	struct lookup *l = calloc(1, sizeof(*l));
	struct gaicb *list[1] = { l ? &l->request : NULL };
	const struct timespec timeout = { ms > 0 ? ms / 1000 : 0,
					  ms > 0 ? ms % 1000 * 1000000 : 0 };
	int r;

	if (!l)
		return qs_fail(err, QS_E_MEMORY, "no memory to look up %s", name);
	(void)snprintf(l->name, sizeof(l->name), "%s", name);
	(void)snprintf(l->port, sizeof(l->port), "%s", port);
	l->hints.ai_socktype = SOCK_STREAM;
	l->request = (struct gaicb){ .ar_name = l->name,
				     .ar_service = l->port,
				     .ar_request = &l->hints };
	r = getaddrinfo_a(GAI_NOWAIT, list, 1, NULL);
	if (r == 0)
		(void)gai_suspend((const struct gaicb *const *)list, 1, &timeout);
	if (r == 0)
		r = gai_error(list[0]);
	/* The thread still writes into it: it is given up, until the worker process ends. */
	if (r == EAI_INPROGRESS)
		return qs_fail(err, QS_E_TEMPORARY, "no name server answered for %s", name);
	*ret = l->request.ar_result;
	free(l);
	if (r != 0)
		return qs_fail(err, QS_E_TEMPORARY, "cannot find the address of %s: %s", name,
			       gai_strerror(r));
	return 0;
}
