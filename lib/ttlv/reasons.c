#include "ttlv/reasons.h"

#include "base/cleanup.h"

static const struct qs_kmip_reason unknown = { 0, QS_KMIP_FAILED, "an unknown reason" };

static const struct qs_kmip_reason reasons[] = {
	{ 0x01, QS_KMIP_NOT_FOUND, "there is no such key" },
	{ 0x02, QS_KMIP_TOO_LARGE, "its answer would be too large" },
	{ 0x03, QS_KMIP_NOT_ALLOWED,
	  "it does not accept who we are (a client certificate without extendedKeyUsage "
	  "clientAuth, or unknown there)" },
	{ 0x04, QS_KMIP_NOT_UNDERSTOOD, "it takes our message for invalid" },
	{ 0x05, QS_KMIP_NOT_SUPPORTED, "it does not have the operation" },
	{ 0x06, QS_KMIP_NOT_UNDERSTOOD, "it misses something in our message" },
	{ 0x07, QS_KMIP_FAILED, "it does not take a field of our message" },
	{ 0x08, QS_KMIP_NOT_SUPPORTED, "it does not have the feature" },
	{ 0x0a, QS_KMIP_FAILED, "its cryptography failed" },
	/* 1.x has no reason of its own for a wrong state. */
	{ 0x0b, QS_KMIP_WRONG_STATE, "the key's state does not allow it" },
	{ 0x0c, QS_KMIP_NOT_ALLOWED,
	  "permission denied: the key is another client's, or its state does not allow it" },
	{ 0x0d, QS_KMIP_WRONG_STATE, "the key is archived" },
	{ 0x10, QS_KMIP_NOT_SUPPORTED, "it does not hand out raw keys" },
	{ 0x13, QS_KMIP_NOT_EXTRACTABLE, "it does not have the key itself" },
	{ 0x16, QS_KMIP_NOT_EXTRACTABLE, "the key is sensitive, and not handed out" },
	{ 0x17, QS_KMIP_NOT_EXTRACTABLE, "the key may not be extracted" },
	{ 0x18, QS_KMIP_FAILED, "the name is taken" },
	{ 0x24, QS_KMIP_FAILED, "it does not take the parameters of the cipher" },
	{ 0x26, QS_KMIP_NOT_UNDERSTOOD, "it cannot decode our message" },
	{ 0x29, QS_KMIP_NOT_ALLOWED, "the key is not for this use" },
	{ 0x2a, QS_KMIP_TRY_LATER, "it has an error of its own" },
	{ 0x35, QS_KMIP_FAILED, "the name is taken" },
	{ 0x36, QS_KMIP_NOT_FOUND, "the key was destroyed" },
	{ 0x37, QS_KMIP_NOT_FOUND, "there is no such key" },
	{ 0x39, QS_KMIP_NOT_ALLOWED, "we are not authorised" },
	{ 0x3a, QS_KMIP_TRY_LATER, "it is at a limit of its own" },
	{ 0x3b, QS_KMIP_NOT_UNDERSTOOD, "it does not know a number in our message" },
	{ 0x3d, QS_KMIP_NOT_UNDERSTOOD, "it does not know a tag in our message" },
	{ 0x3e, QS_KMIP_NOT_SUPPORTED, "it does not have the cipher" },
	{ 0x3f, QS_KMIP_NOT_UNDERSTOOD, "it does not speak this version of KMIP" },
	{ 0x43, QS_KMIP_WRONG_STATE, "the key's state does not allow it" },
	{ 0x100, QS_KMIP_TRY_LATER, "it failed, and does not say why" },
};

/*
 * Servers do not agree on how Decrypt fails when a tag or padding is wrong (PyKMIP: general
 * failure). It may be the server's own trouble, too, so a twin is asked all the same.
 */
static const struct qs_kmip_reason not_decrypted[] = {
	{ 0x0a, QS_KMIP_NOT_DECRYPTED, "it was changed, or is of another key" },
	{ 0x24, QS_KMIP_NOT_DECRYPTED, "it was changed, or is of another key" },
	{ 0x100, QS_KMIP_NOT_DECRYPTED,
	  "it was changed, or is of another key, or the server has an error of its own" },
};

const struct qs_kmip_reason *qs_kmip_reason_find(uint32_t code, enum qs_kmip_operation operation)
{
	for (size_t i = 0; operation == QS_KMIP_DECRYPT && i < QS_ARRAY_SIZE(not_decrypted); i++)
		if (not_decrypted[i].code == code)
			return &not_decrypted[i];
	for (size_t i = 0; i < QS_ARRAY_SIZE(reasons); i++)
		if (reasons[i].code == code)
			return &reasons[i];
	return &unknown;
}
