/*
 * Shared by the files of the module kmip.so.
 */
#ifndef QS_KMIP_INTERNAL_H
#define QS_KMIP_INTERNAL_H

#include <stdint.h>

#include <openssl/ssl.h>

#include "kmip/kmip.h"

struct qs_kmip_host {
	char name[256];
	char port[6];
	char text[QS_KMIP_SERVER_L]; /* for sentences */
};

/* A TLS connection. Release with qs_kmip_disconnect(). */
struct qs_kmip_link {
	SSL_CTX *context;
	SSL *ssl;
	int fd;           /* -1: none */
	int64_t deadline; /* of qs_kmip_now() */
	const struct qs_kmip_access *access;
};

int64_t qs_kmip_now(void); /* ms */

/* Poll FD for EVENTS. -ETIMEDOUT after the deadline. */
int qs_kmip_wait(int fd, short events, int64_t deadline);

/* TCP to HOST, by names and addresses. Returns a descriptor that does not block. */
int qs_kmip_dial(const struct qs_kmip_host *host, int64_t deadline, struct qs_error *err);

/* The context that trusts CA alone and shows our certificate. QS_E_KEY_FILE: a PEM. */
int qs_kmip_context(const struct qs_kmip_access *access, SSL_CTX **ret,
		    struct qs_kmip_description *description, struct qs_error *err);

int qs_kmip_connect(const struct qs_kmip_access *access, const struct qs_kmip_host *host,
		    int64_t deadline, struct qs_kmip_link *ret, struct qs_error *err);
void qs_kmip_disconnect(struct qs_kmip_link *link); /* also a QS_AUTO releaser */

/* Raise access.denial, if anybody wants to know it. */
void qs_kmip_note_denial(const struct qs_kmip_access *access, enum qs_kmip_denial denial);

/* What to say of the failed call on the connection that returned R. Returns -errno. */
int qs_kmip_explain(const struct qs_kmip_link *link, int r, struct qs_error *err);

/* Send SIZE bytes of REQUEST; the answer goes into BUFFER. Returns its bytes. */
int qs_kmip_exchange(struct qs_kmip_link *link, const void *request, size_t size,
		     struct qs_secret *buffer, struct qs_error *err);

#endif
