/*
 * The keys under which objects are sealed, and loading those objects.
 *
 * systemd 248 to 253 make a primary key anew each time, from a template that is
 * not the TCG's storage root key (no noDA); that is what we seal under, as
 * Debian 12 can open nothing else. Since 254 the parent is the persistent
 * storage root key, which the token names.
 */
#include <string.h>

#include "base/cleanup.h"
#include "tpm2/internal.h"

#define PRIMARY_ATTRIBUTES                                                                         \
	(TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT | TPMA_OBJECT_FIXEDTPM |                     \
	 TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_USERWITHAUTH)

#define AES_128_CFB                                                                                \
	{                                                                                          \
		.algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB            \
	}

/* First byte of the handles of persistent objects (TPM 2.0 library, part 2, 7.2). */
#define PERSISTENT 0x81U

const TPM2B_PUBLIC qs_tpm2_ecc_template = {
	.publicArea = {
		.type = TPM2_ALG_ECC,
		.nameAlg = TPM2_ALG_SHA256,
		.objectAttributes = PRIMARY_ATTRIBUTES,
		.parameters.eccDetail = {
			.symmetric = AES_128_CFB,
			.scheme.scheme = TPM2_ALG_NULL,
			.curveID = TPM2_ECC_NIST_P256,
			.kdf.scheme = TPM2_ALG_NULL,
		},
	},
};

const TPM2B_PUBLIC qs_tpm2_rsa_template = {
	.publicArea = {
		.type = TPM2_ALG_RSA,
		.nameAlg = TPM2_ALG_SHA256,
		.objectAttributes = PRIMARY_ATTRIBUTES,
		.parameters.rsaDetail = {
			.symmetric = AES_128_CFB,
			.scheme.scheme = TPM2_ALG_NULL,
			.keyBits = 2048,
		},
	},
};

/* OTHER makes room: a TPM without a resource manager holds three objects. */
int qs_tpm2_make_primary(const struct qs_tpm2 *tpm, const TPM2B_PUBLIC *template, ESYS_TR *ret,
			 ESYS_TR *other, struct qs_error *err)
{
	const TPM2B_SENSITIVE_CREATE no_auth = {};
	const TPML_PCR_SELECTION no_pcrs = {};
	const TPM2B_DATA no_data = {};
	TSS2_RC rc;

	if (*ret != ESYS_TR_NONE)
		return 0;
	qs_tpm2_flush(tpm, other);
	rc = Esys_CreatePrimary(tpm->esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE,
				ESYS_TR_NONE, &no_auth, template, &no_data, &no_pcrs, ret, NULL,
				NULL, NULL, NULL);
	if (rc == TSS2_RC_SUCCESS)
		return 0;
	*ret = ESYS_TR_NONE;
	return qs_tpm2_fail(err, rc, "making its primary key");
}

/*
 * A persistent key by its handle, if the TPM's has the name that the token
 * says: the salt of our sessions must not be encrypted to a key out of the
 * header, which anybody can write.
 */
static int find_srk(struct qs_tpm2 *tpm, uint32_t handle, const uint8_t *name, size_t name_size,
		    struct qs_error *err)
{
	TPM2B_NAME *found = NULL;
	bool same;
	TSS2_RC rc;

	if (tpm->srk != ESYS_TR_NONE && tpm->srk_handle != handle)
		(void)Esys_TR_Close(tpm->esys, &tpm->srk);
	if (tpm->srk == ESYS_TR_NONE) {
		rc = Esys_TR_FromTPMPublic(tpm->esys, handle, ESYS_TR_NONE, ESYS_TR_NONE,
					   ESYS_TR_NONE, &tpm->srk);
		if (rc != TSS2_RC_SUCCESS) {
			tpm->srk = ESYS_TR_NONE;
			return qs_tpm2_fail(err, rc, "looking for its storage root key");
		}
		tpm->srk_handle = handle;
	}
	rc = Esys_TR_GetName(tpm->esys, tpm->srk, &found);
	if (rc != TSS2_RC_SUCCESS)
		return qs_tpm2_fail(err, rc, "reading the name of its storage root key");
	same = found->size == name_size && memcmp(found->name, name, name_size) == 0;
	Esys_Free(found);
	return same ? 0 : qs_tpm2_fail(err, TPM2_RC_INTEGRITY, "comparing the storage root key");
}

/* ESYS_TR, serialised: handle, TPM2B_NAME, then what tss2 remembers of it. */
static int parse_srk(struct qs_tpm2 *tpm, const struct qs_bytes *srk, struct qs_error *err)
{
	size_t at = 0;
	TPM2B_NAME name = {};
	uint32_t handle = 0;
	TSS2_RC rc = Tss2_MU_UINT32_Unmarshal(srk->data, srk->size, &at, &handle);

	if (rc == TSS2_RC_SUCCESS)
		rc = Tss2_MU_TPM2B_NAME_Unmarshal(srk->data, srk->size, &at, &name);
	if (rc != TSS2_RC_SUCCESS || handle >> 24 != PERSISTENT)
		return qs_fail(err, QS_E_DAMAGED, "the TPM2 token's field tpm2_srk is malformed");
	return find_srk(tpm, handle, name.name, name.size, err);
}

int qs_tpm2_parent(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token, ESYS_TR *ret,
		   struct qs_error *err)
{
	int r;

	if (token->srk.size > 0) {
		r = parse_srk(tpm, &token->srk, err);
		*ret = tpm->srk;
	} else if (token->primary_alg == QS_TPM2_RSA) {
		r = qs_tpm2_make_primary(tpm, &qs_tpm2_rsa_template, &tpm->rsa, &tpm->ecc, err);
		*ret = tpm->rsa;
	} else {
		r = qs_tpm2_make_primary(tpm, &qs_tpm2_ecc_template, &tpm->ecc, &tpm->rsa, err);
		*ret = tpm->ecc;
	}
	return r;
}

int qs_tpm2_sealing_parent(struct qs_tpm2 *tpm, ESYS_TR *ret, enum qs_tpm2_alg *ret_alg,
			   struct qs_error *err)
{
	int r = qs_tpm2_make_primary(tpm, &qs_tpm2_ecc_template, &tpm->ecc, &tpm->rsa, NULL);

	*ret = tpm->ecc;
	*ret_alg = QS_TPM2_ECC;
	if (r == 0)
		return 0;
	r = qs_tpm2_make_primary(tpm, &qs_tpm2_rsa_template, &tpm->rsa, &tpm->ecc, err);
	*ret = tpm->rsa;
	*ret_alg = QS_TPM2_RSA;
	return r;
}

/* An object that was sealed away from the TPM, for a key of which only the public half was known.
 */
static TSS2_RC import(const struct qs_tpm2 *tpm, ESYS_TR parent, const TPM2B_PUBLIC *public,
		      const TPM2B_ENCRYPTED_SECRET *seed, TPM2B_PRIVATE *private)
{
	const TPMT_SYM_DEF_OBJECT no_inner = { .algorithm = TPM2_ALG_NULL };
	const TPM2B_DATA no_key = {};
	TPM2B_PRIVATE *imported = NULL;
	TSS2_RC rc = Esys_Import(tpm->esys, parent, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
				 &no_key, public, private, seed, &no_inner, &imported);

	if (rc == TSS2_RC_SUCCESS)
		*private = *imported;
	Esys_Free(imported);
	return rc;
}

int qs_tpm2_load(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token, ESYS_TR parent,
		 ESYS_TR *ret, struct qs_error *err)
{
	const uint8_t *blob = token->blob.data;
	size_t size = token->blob.size, at = 0;
	TPM2B_ENCRYPTED_SECRET seed = {};
	TPM2B_PRIVATE private = {};
	TPM2B_PUBLIC public = {};
	TSS2_RC rc = Tss2_MU_TPM2B_PRIVATE_Unmarshal(blob, size, &at, &private);

	if (rc == TSS2_RC_SUCCESS)
		rc = Tss2_MU_TPM2B_PUBLIC_Unmarshal(blob, size, &at, &public);
	if (rc == TSS2_RC_SUCCESS && at < size)
		rc = Tss2_MU_TPM2B_ENCRYPTED_SECRET_Unmarshal(blob, size, &at, &seed);
	if (rc != TSS2_RC_SUCCESS)
		return qs_fail(err, QS_E_DAMAGED, "the TPM2 token's field tpm2-blob is malformed");
	if (seed.size > 0)
		rc = import(tpm, parent, &public, &seed, &private);
	if (rc == TSS2_RC_SUCCESS)
		rc = Esys_Load(tpm->esys, parent, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
			       &private, &public, ret);
	if (rc == TSS2_RC_SUCCESS)
		return 0;
	*ret = ESYS_TR_NONE;
	return qs_tpm2_fail(err, rc, "loading the keyslot's sealed object");
}
