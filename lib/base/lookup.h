/*
 * Addresses of a name within a time. getaddrinfo() itself knows none: a name server that does not
 * answer would use up the time of the key servers behind the one that is looked up.
 */
#ifndef QS_BASE_LOOKUP_H
#define QS_BASE_LOOKUP_H

#include <netdb.h>
#include <stdint.h>

#include "base/error.h"

/*
 * *ret: of stream sockets; freeaddrinfo() releases it. For worker processes: what is given up
 * after MS ms goes on in a thread, until the process ends. QS_E_TEMPORARY: no name server
 * answered, or there is no such name.
 */
int qs_look_up(const char *name, const char *port, int64_t ms, struct addrinfo **ret,
	       struct qs_error *err);

#endif
