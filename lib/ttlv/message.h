/*
 * KMIP messages, versions 1.0 to 1.4 and 2.0: requests into bytes, answers out of bytes.
 * No I/O. Numbers and shapes: OASIS KMIP 1.2 and 2.0, chapters on operations, message
 * contents, and tags. Of the requests Register and Encrypt hold a secret, of the answers those
 * to Get and Decrypt.
 */
#ifndef QS_TTLV_MESSAGE_H
#define QS_TTLV_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/secret.h"
#include "ttlv/ttlv.h"

#define QS_KMIP_UID_L 256     /* a unique identifier with its NUL; UUIDs have 36 bytes */
#define QS_KMIP_KEY_L 32      /* bytes: AES-256 */
#define QS_KMIP_BATCH_MAX 128 /* requests in one message */
#define QS_KMIP_TEXT_L 128    /* what a server says of itself */

#define QS_KMIP_RESPONSE 0x42007bU /* the tag of a response message */

struct qs_kmip_version {
	int major, minor;
};

/* Those that are spoken, best first. */
extern const struct qs_kmip_version qs_kmip_versions[];
extern const size_t qs_kmip_version_count;

/* "1.4", as in the configuration; false: not spoken. */
bool qs_kmip_version_parse(const char *text, struct qs_kmip_version *ret);

enum qs_kmip_operation {
	QS_KMIP_CREATE = 0x01,   /* a symmetric AES-256 key with the name ABOUT */
	QS_KMIP_REGISTER = 0x03, /* KEY, as a symmetric key with the name ABOUT */
	QS_KMIP_LOCATE = 0x08,   /* symmetric keys with the name ABOUT */
	QS_KMIP_GET = 0x0a,      /* ABOUT: a unique identifier, here and in all below but two */
	QS_KMIP_GET_ATTRIBUTES = 0x0b, /* those of struct qs_kmip_attributes */
	QS_KMIP_ACTIVATE = 0x12,
	QS_KMIP_REVOKE = 0x13, /* reason: cessation of operation */
	QS_KMIP_DESTROY = 0x14,
	QS_KMIP_QUERY = 0x18,    /* operations and vendor; no ABOUT */
	QS_KMIP_DISCOVER = 0x1e, /* versions; no ABOUT */
	QS_KMIP_ENCRYPT = 0x1f,  /* KEY, by the key ABOUT; from 1.2 on, like the next */
	QS_KMIP_DECRYPT = 0x20,
};

/*
 * How a key of the server's encrypts 32 bytes. The standard has a field for the tag of GCM from 1.4
 * on; what CBC gives is not authenticated.
 */
enum qs_kmip_cipher {
	QS_KMIP_NO_CIPHER,
	QS_KMIP_CBC, /* AES-CBC with PKCS5 padding */
	QS_KMIP_GCM, /* AES-GCM */
};

#define QS_KMIP_IV_MIN 12
#define QS_KMIP_IV_MAX 16 /* of GCM, too: PyKMIP takes so many; CBC has no other */
#define QS_KMIP_TAG_L 16  /* of GCM; CBC has none */
#define QS_KMIP_ENCRYPTED_MAX 48

/* What Encrypt makes of QS_KMIP_KEY_L bytes, and Decrypt takes. */
struct qs_kmip_encrypted {
	enum qs_kmip_cipher cipher;
	size_t iv_size;
	unsigned char iv[QS_KMIP_IV_MAX];
	unsigned char data[QS_KMIP_ENCRYPTED_MAX]; /* see qs_kmip_encrypted_size() */
	unsigned char tag[QS_KMIP_TAG_L];
};

/* Bytes of its data, and whether an initialization vector may have this size. */
size_t qs_kmip_encrypted_size(enum qs_kmip_cipher cipher);
bool qs_kmip_is_iv_size(enum qs_kmip_cipher cipher, size_t size);

/* Does this version have the operations, and a field for all that the cipher gives? */
bool qs_kmip_has_cipher(struct qs_kmip_version version, enum qs_kmip_cipher cipher);

struct qs_kmip_request {
	enum qs_kmip_operation operation;
	bool sensitive; /* Create: not to be handed out; from 1.4 on */
	const char *about;
	const unsigned char *key;                  /* Register, Encrypt: QS_KMIP_KEY_L bytes */
	const struct qs_kmip_encrypted *encrypted; /* Encrypt: its cipher; Decrypt: all of it */
};

/* Who we are beside our certificate: a credential of username and password. */
struct qs_kmip_login {
	const char *user;                 /* NULL or "": the certificate is enough */
	const struct qs_secret *password; /* text without a NUL */
};

/*
 * One message with COUNT (1 to QS_KMIP_BATCH_MAX) requests into BUFFER. A failure of one does not
 * end a batch of Encrypt or Decrypt, if the server keeps to that. LOGIN may be NULL. Returns its
 * bytes;
 * QS_E_FAILED: SIZE is too little.
 */
int qs_kmip_request_write(struct qs_kmip_version version, const struct qs_kmip_login *login,
			  const struct qs_kmip_request *requests, size_t count, void *buffer,
			  size_t size, struct qs_error *err);

/* What an answer means for us, out of many result reasons. */
enum qs_kmip_verdict {
	QS_KMIP_DONE,
	QS_KMIP_NOT_FOUND,
	QS_KMIP_NOT_ALLOWED,
	QS_KMIP_WRONG_STATE,
	QS_KMIP_NOT_EXTRACTABLE,
	QS_KMIP_NOT_SUPPORTED,
	QS_KMIP_NOT_UNDERSTOOD, /* the server takes our message for malformed */
	QS_KMIP_TRY_LATER,
	QS_KMIP_TOO_LARGE,     /* the answer would be */
	QS_KMIP_NOT_DECRYPTED, /* changed, or another key's; also a server's trouble at some */
	QS_KMIP_UNANSWERED,    /* a batch ended before it */
	QS_KMIP_FAILED,
};

struct qs_kmip_answer {
	struct qs_ttlv payload; /* of QS_KMIP_DONE; points into the message */
	enum qs_kmip_verdict verdict;
	struct qs_error error; /* of all others */
};

/*
 * The answers to REQUESTS, in their order, out of a whole message. Returns 0, or 1: the
 * server refused the message as a whole, and every answer says why. QS_E_FAILED: it is
 * malformed, of another version, or answers something else.
 */
int qs_kmip_response_read(const unsigned char *data, size_t size, struct qs_kmip_version version,
			  const struct qs_kmip_request *requests, size_t count,
			  struct qs_kmip_answer *answers, struct qs_error *err);

/* ---- payloads of answers that are QS_KMIP_DONE; QS_E_FAILED: not as it must be ---- */

/* Create and Register: the new key's unique identifier. */
int qs_kmip_read_uid(const struct qs_kmip_answer *answer, char ret[QS_KMIP_UID_L],
		     struct qs_error *err);

/* Locate: the first identifier. Returns how many there are. */
int qs_kmip_read_located(const struct qs_kmip_answer *answer, char ret[QS_KMIP_UID_L],
			 struct qs_error *err);

/*
 * Get of the key UID: where its QS_KMIP_KEY_L bytes lie in the message, which is the
 * caller's to wipe. Refused: another object, another kind of key, a wrapped one.
 */
int qs_kmip_read_key(const struct qs_kmip_answer *answer, const char *uid,
		     const unsigned char **ret, struct qs_error *err);

enum qs_kmip_state {
	QS_KMIP_PRE_ACTIVE = 1,
	QS_KMIP_ACTIVE,
	QS_KMIP_DEACTIVATED,
	QS_KMIP_COMPROMISED,
	QS_KMIP_DESTROYED,
	QS_KMIP_DESTROYED_COMPROMISED,
};

struct qs_kmip_attributes {
	enum qs_kmip_state state;
	bool named; /* it has the name that was looked for */
	/* 0 where the server does not tell. */
	uint32_t algorithm;
	int32_t bits, usage;
};

/* Get Attributes; NAME may be NULL. */
int qs_kmip_read_attributes(const struct qs_kmip_answer *answer, const char *name,
			    struct qs_kmip_attributes *ret, struct qs_error *err);

/*
 * Is it a key that somebody made for us to wrap with; THERE: by the server? QS_E_FAILED saying what
 * it is instead.
 */
int qs_kmip_check_attributes(const struct qs_kmip_attributes *a, bool there, struct qs_error *err);

/* Encrypt by the key UID with CIPHER. */
int qs_kmip_read_encrypted(const struct qs_kmip_answer *answer, const char *uid,
			   enum qs_kmip_cipher cipher, struct qs_kmip_encrypted *ret,
			   struct qs_error *err);

/*
 * Decrypt by the key UID: where its QS_KMIP_KEY_L bytes lie in the message. QS_E_NO_KEY: there are
 * more or less, as CBC gives them of what was changed.
 */
int qs_kmip_read_decrypted(const struct qs_kmip_answer *answer, const char *uid,
			   const unsigned char **ret, struct qs_error *err);

/* Discover Versions: the best that both speak. QS_E_FAILED naming the server's: none. */
int qs_kmip_read_versions(const struct qs_kmip_answer *answer, struct qs_kmip_version *ret,
			  struct qs_error *err);

/*
 * Query: the vendor (may be ""). QS_E_FAILED: it lacks an operation that we need; of Create and
 * Register one is enough, unless keys are to stay THERE.
 */
int qs_kmip_read_query(const struct qs_kmip_answer *answer, bool there, char ret[QS_KMIP_TEXT_L],
		       struct qs_error *err);

#endif
