/*
 * TLS to a key server: at least 1.2, with our certificate, trusting the configured
 * authority alone. Nothing here logs, so no secret can be in a log.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/cleanup.h"
#include "base/openssl.h"
#include "kmip/internal.h"

/* ---- certificates and key ---- */

static void done_bio(BIO **bio)
{
	BIO_free(*bio);
}

static void done_x509(X509 **certificate)
{
	X509_free(*certificate);
}

static void done_key(EVP_PKEY **key)
{
	EVP_PKEY_free(*key);
}

/* Without it OpenSSL would ask the terminal. */
static int no_passphrase(char *buffer, // NOLINT(readability-non-const-parameter): OpenSSL's type
			 int size, int writing, void *cookie)
{
	(void)buffer;
	(void)size;
	(void)writing;
	(void)cookie;
	return -1;
}

static BIO *open_pem(const struct qs_kmip_pem *pem)
{
	return BIO_new_mem_buf(pem->text->data, (int)pem->text->size);
}

/* All certificates of the file; *ret_expires is when the first of them does. */
static int trust(SSL_CTX *context, const struct qs_kmip_pem *ca, time_t *ret_expires,
		 struct qs_error *err)
{
	QS_AUTO(done_bio) BIO *bio = open_pem(ca);
	X509_STORE *store = SSL_CTX_get_cert_store(context);
	size_t count = 0;

	for (;;) {
		QS_AUTO(done_x509)
		X509 *certificate = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
		time_t expires;

		if (!certificate)
			break;
		expires = qs_openssl_expiry(certificate);
		if (count++ == 0 || expires < *ret_expires)
			*ret_expires = expires;
		if (X509_STORE_add_cert(store, certificate) != 1)
			return qs_fail(err, QS_E_KEY_FILE, "%s: a certificate is not usable",
				       ca->path);
	}
	ERR_clear_error();
	if (count == 0)
		return qs_fail(err, QS_E_KEY_FILE, "%s holds no certificate in PEM form", ca->path);
	return 0;
}

/* The certificate, and behind it in the file those between it and the authority. */
static int show_certificate(SSL_CTX *context, const struct qs_kmip_pem *pem, time_t *ret_expires,
			    struct qs_error *err)
{
	QS_AUTO(done_bio) BIO *bio = open_pem(pem);
	QS_AUTO(done_x509)
	X509 *own = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
	X509 *next;

	if (!own || SSL_CTX_use_certificate(context, own) != 1)
		return qs_fail(err, QS_E_KEY_FILE, "%s holds no usable certificate in PEM form",
			       pem->path);
	*ret_expires = qs_openssl_expiry(own);
	while ((next = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)))
		if (SSL_CTX_add0_chain_cert(context, next) != 1) {
			X509_free(next);
			return qs_fail(err, QS_E_KEY_FILE, "%s: its chain is not usable",
				       pem->path);
		}
	ERR_clear_error();
	return 0;
}

static int use_key(SSL_CTX *context, const struct qs_kmip_access *access, struct qs_error *err)
{
	QS_AUTO(done_bio) BIO *bio = open_pem(&access->key);
	QS_AUTO(done_key)
	EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);

	if (!key)
		return qs_fail(err, QS_E_KEY_FILE,
			       "%s holds no private key in PEM form, or one under a passphrase, "
			       "which nobody could type at boot",
			       access->key.path);
	if (SSL_CTX_use_PrivateKey(context, key) != 1 || SSL_CTX_check_private_key(context) != 1)
		return qs_fail(err, QS_E_KEY_FILE, "the private key %s is not that of %s",
			       access->key.path, access->certificate.path);
	return 0;
}

static void done_context(SSL_CTX **context)
{
	SSL_CTX_free(*context);
}

int qs_kmip_context(const struct qs_kmip_access *access, SSL_CTX **ret,
		    struct qs_kmip_description *description, struct qs_error *err)
{
	QS_AUTO(done_context) SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	int r;

	if (!context || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1)
		return qs_fail(err, QS_E_FAILED, "OpenSSL cannot be used for TLS");
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	r = trust(context, &access->ca, &description->ca_expires, err);
	if (r == 0)
		r = show_certificate(context, &access->certificate,
				     &description->certificate_expires, err);
	if (r == 0)
		r = use_key(context, access, err);
	if (r == 0)
		*ret = QS_TAKE(context);
	return r;
}

/* ---- the connection ---- */

static int expect_name(SSL *ssl, const char *name, struct qs_error *err)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
	unsigned char address[sizeof(struct in6_addr)];
	int good;

	if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1) {
		good = X509_VERIFY_PARAM_set1_ip_asc(param, name);
	} else {
		/* A common name is no name of a host (RFC 9525). */
		X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
							       X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
		good = X509_VERIFY_PARAM_set1_host(param, name, 0) == 1 &&
		       SSL_set_tlsext_host_name(ssl, name) == 1;
	}
	return good == 1 ? 0 : qs_fail(err, QS_E_FAILED, "OpenSSL does not take the name %s", name);
}

/* What a call of OpenSSL that returned R waits for. 0: call it again. */
static int wait_for(const struct qs_kmip_link *link, int r)
{
	switch (SSL_get_error(link->ssl, r)) {
	case SSL_ERROR_WANT_READ:
		return qs_kmip_wait(link->fd, POLLIN, link->deadline);
	case SSL_ERROR_WANT_WRITE:
		return qs_kmip_wait(link->fd, POLLOUT, link->deadline);
	default:
		return -EIO;
	}
}

static int shake_hands(struct qs_kmip_link *link, struct qs_error *err)
{
	int r, waited = 0;

	do {
		ERR_clear_error();
		r = SSL_connect(link->ssl);
	} while (r != 1 && (waited = wait_for(link, r)) == 0);
	return r == 1 ? 0 : qs_kmip_explain(link, waited, err);
}

int qs_kmip_connect(const struct qs_kmip_access *access, const struct qs_kmip_host *host,
		    int64_t deadline, struct qs_kmip_link *ret, struct qs_error *err)
{
	struct qs_kmip_description unused;
	int r = qs_kmip_context(access, &ret->context, &unused, err);

	ret->access = access;
	ret->deadline = deadline;
	if (r < 0)
		return r;
	ret->fd = qs_kmip_dial(host, deadline, err);
	if (ret->fd < 0)
		return ret->fd;
	ret->ssl = SSL_new(ret->context);
	if (!ret->ssl || SSL_set_fd(ret->ssl, ret->fd) != 1)
		return qs_fail(err, QS_E_MEMORY, "no memory for a TLS connection");
	r = expect_name(ret->ssl, host->name, err);
	return r < 0 ? r : shake_hands(ret, err);
}

void qs_kmip_disconnect(struct qs_kmip_link *link)
{
	if (link->ssl && SSL_is_init_finished(link->ssl))
		(void)SSL_shutdown(link->ssl);
	SSL_free(link->ssl);
	SSL_CTX_free(link->context);
	qs_auto_close(&link->fd);
	*link = (struct qs_kmip_link){ .fd = -1 };
}

/* ---- messages ---- */

static int send_all(struct qs_kmip_link *link, const unsigned char *data, size_t size,
		    struct qs_error *err)
{
	size_t sent = 0;

	while (sent < size) {
		int r, waited;

		ERR_clear_error();
		r = SSL_write(link->ssl, data + sent, (int)(size - sent));
		if (r > 0) {
			sent += (size_t)r;
			continue;
		}
		waited = wait_for(link, r);
		if (waited < 0)
			return qs_kmip_explain(link, waited, err);
	}
	return 0;
}

static int receive(struct qs_kmip_link *link, unsigned char *data, size_t size,
		   struct qs_error *err)
{
	size_t got = 0;

	while (got < size) {
		int r, waited;

		ERR_clear_error();
		r = SSL_read(link->ssl, data + got, (int)(size - got));
		if (r > 0) {
			got += (size_t)r;
			continue;
		}
		waited = wait_for(link, r);
		if (waited < 0)
			return qs_kmip_explain(link, waited, err);
	}
	return 0;
}

int qs_kmip_exchange(struct qs_kmip_link *link, const void *request, size_t size,
		     struct qs_secret *buffer, struct qs_error *err)
{
	unsigned char *data = buffer->data;
	size_t length = 0;
	int r = send_all(link, request, size, err);

	if (r == 0)
		r = receive(link, data, QS_TTLV_HEADER_L, err);
	if (r == 0)
		r = qs_ttlv_length(data, QS_KMIP_RESPONSE, &length, err);
	if (r == 0)
		r = receive(link, data + QS_TTLV_HEADER_L, length - QS_TTLV_HEADER_L, err);
	return r < 0 ? r : (int)length;
}
