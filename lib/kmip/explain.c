/*
 * What it means that TLS failed, as a sentence with the way out.
 */
#define _GNU_SOURCE
#include <time.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "base/cleanup.h"
#include "kmip/internal.h"

static void print_time(const ASN1_TIME *time, char ret[32])
{
	struct tm utc;

	if (ASN1_TIME_to_tm(time, &utc) != 1 || strftime(ret, 32, "%Y-%m-%d %H:%M UTC", &utc) == 0)
		(void)snprintf(ret, 32, "an unknown time");
}

/* Of the server's certificate that OpenSSL refused. */
static int explain_server(const struct qs_kmip_link *link, long verdict, struct qs_error *err)
{
	const char *ca = link->access->ca.path;

	switch (verdict) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return qs_fail(
			err, QS_E_HOSTILE,
			"its certificate, or its authority's, has expired; is this machine's "
			"clock right?");
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return qs_fail(err, QS_E_HOSTILE,
			       "its certificate is not valid yet; is this machine's clock right?");
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		return qs_fail(err, QS_E_HOSTILE,
			       "its certificate is for another name than the one in kmip_servers "
			       "(subjectAltName; a common name does not count)");
	default:
		return qs_fail(err, QS_E_HOSTILE, "its certificate is not vouched for by %s: %s",
			       ca, X509_verify_cert_error_string(verdict));
	}
}

/* What is wrong with our certificate by this machine's clock; "" if nothing. */
static void judge_own(const struct qs_kmip_link *link, char *ret, size_t size)
{
	const X509 *own = SSL_get_certificate(link->ssl);
	char when[32];

	*ret = '\0';
	if (own && X509_cmp_current_time(X509_get0_notAfter(own)) < 0) {
		print_time(X509_get0_notAfter(own), when);
		(void)snprintf(ret, size, ": it has expired on %s", when);
	} else if (own && X509_cmp_current_time(X509_get0_notBefore(own)) > 0) {
		print_time(X509_get0_notBefore(own), when);
		(void)snprintf(ret, size, ": it is valid from %s on", when);
	}
}

static const char *alert_text(int reason)
{
	switch (reason) {
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
		return " (it does not know its authority)";
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
		return " (expired)";
	case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
		return " (revoked)";
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
	case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
	case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
		return "";
	default:
		return NULL;
	}
}

void qs_kmip_note_denial(const struct qs_kmip_access *access, enum qs_kmip_denial denial)
{
	if (access->denial && *access->denial < denial)
		*access->denial = denial;
}

static int explain_error(const struct qs_kmip_link *link, unsigned long code, struct qs_error *err)
{
	int reason = ERR_GET_REASON(code);
	const char *alert = ERR_GET_LIB(code) == ERR_LIB_SSL ? alert_text(reason) : NULL;
	const char *text = ERR_reason_error_string(code);
	char own[64];

	if (alert) {
		qs_kmip_note_denial(link->access, QS_KMIP_DENIED);
		judge_own(link, own, sizeof(own));
		return qs_fail(err, QS_E_NOT_PERMITTED, "it refuses our certificate %s%s%s",
			       link->access->certificate.path, alert, own);
	}
	if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
		return qs_fail(err, QS_E_TEMPORARY, "it ended the connection");
	return qs_fail(err, QS_E_FAILED, "TLS failed: %s", text ? text : "for an unknown reason");
}

int qs_kmip_explain(const struct qs_kmip_link *link, int r, struct qs_error *err)
{
	long verdict = SSL_get_verify_result(link->ssl);
	unsigned long code = ERR_peek_error();

	if (r == -ETIMEDOUT)
		return qs_fail(err, QS_E_TEMPORARY, "it does not answer");
	if (verdict != X509_V_OK)
		return explain_server(link, verdict, err);
	if (code)
		return explain_error(link, code, err);
	return qs_fail(err, QS_E_TEMPORARY, "it ended the connection");
}
